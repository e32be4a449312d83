//! Running containers are paused, resumed and given other limits.

#![expect(clippy::unwrap_used, reason = "test code")]

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A sandbox with a container `c1` that prints a line every few milliseconds.
fn with_container(options: &[&str]) -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox, Need::MemoryCgroup])?;
    cx.shell(&[]);
    let mut args = vec!["run", "-d", "--name", "c1"];
    args.extend_from_slice(options);
    args.extend([
        "box",
        "/bin/sh",
        "-c",
        "trap 'exit 3' TERM; while :; do echo x; sleep 0.01; done",
    ]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    Some(cx)
}

fn remove(cx: &Sandbox) {
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

fn printed(cx: &Sandbox) -> usize {
    cx.ketch(["logs", "c1"]).stdout.len()
}

/// What the file of the container's group holds, v1 or v2.
fn limit(cx: &Sandbox, v1: &str, v2: &str) -> String {
    let pid = cx.field("c1", ".State.Pid");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let controller = v1.split('/').next().unwrap();
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let names = parts.nth(1).unwrap();
        let names: Vec<&str> = names.split(',').collect();
        names
            .contains(&controller)
            .then(|| (names.join(","), parts.next().unwrap().to_owned()))
    });
    let file = match path {
        Some((names, group)) => format!(
            "/sys/fs/cgroup/{names}{group}/{}",
            v1.split_once('/').unwrap().1
        ),
        None => {
            let line = groups.lines().find_map(|line| line.strip_prefix("0::"));
            format!("/sys/fs/cgroup{}/{v2}", line.unwrap())
        }
    };
    std::fs::read_to_string(&file).unwrap().trim().to_owned()
}

#[track_caller]
fn assert_refused(run: &Run, text: &str) {
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains(text), "{}", run.stderr);
}

#[test]
fn paused_container_stands_still_and_goes_on() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    cx.until(["logs", "c1"], |run| !run.stdout.is_empty());
    assert_eq!(cx.ketch(["pause", "c1"]).stdout, "c1\n");
    assert_eq!(cx.field("c1", ".State.Status"), "paused");
    assert_eq!(cx.field("c1", ".State.Running"), "true");
    assert!(cx.ketch(["ps"]).stdout.contains("(Paused)"));
    let before = printed(&cx);
    let later = cx.ketch(["run", "--rm", "box", "/bin/sh", "-c", "sleep 0.3"]);
    assert_eq!((later.code, printed(&cx)), (0, before));
    assert_refused(&cx.ketch(["pause", "c1"]), "it is paused");
    assert_eq!(cx.ketch(["exec", "c1", "/bin/sh"]).code, 125);
    assert_eq!(cx.ketch(["unpause", "c1"]).code, 0);
    assert_refused(&cx.ketch(["unpause", "c1"]), "it is not paused");
    cx.until(["logs", "c1"], |run| run.stdout.len() > before);
    remove(&cx);
}

#[test]
fn paused_container_can_be_stopped_killed_and_removed() {
    let ends: [(&[&str], Option<&str>); 3] = [
        (&["stop", "c1"], Some("3")),
        (&["kill", "c1"], Some("137")),
        (&["rm", "-f", "c1"], None),
    ];
    for (end, code) in ends {
        let Some(cx) = with_container(&[]) else {
            return;
        };
        cx.until(["logs", "c1"], |run| !run.stdout.is_empty());
        assert_eq!(cx.ketch(["pause", "c1"]).code, 0);
        let run = cx.ketch(end);
        assert_eq!(run.code, 0, "{}", run.stderr);
        if let Some(code) = code {
            assert_eq!(cx.ketch(["wait", "c1"]).stdout.trim(), code);
            remove(&cx);
        }
    }
}

#[test]
fn limits_change_at_once_and_for_later_starts() {
    let Some(cx) = with_container(&["--memory", "64m", "--pids-limit", "40"]) else {
        return;
    };
    let args = [
        "update",
        "--memory",
        "96m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
    ];
    let run = cx.ketch(args.iter().chain(&["--cpu-shares", "512", "c1"]));
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "c1\n"),
        "{}",
        run.stderr
    );
    let is_changed = || {
        assert_eq!(
            limit(&cx, "memory/memory.limit_in_bytes", "memory.max"),
            "100663296"
        );
        assert_eq!(limit(&cx, "pids/pids.max", "pids.max"), "50");
        let quota = limit(&cx, "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota.starts_with("50000"), "{quota}");
    };
    is_changed();
    assert_eq!(cx.ketch(["stop", "c1"]).code, 0);
    assert_eq!(cx.ketch(["start", "c1"]).code, 0);
    is_changed();
    remove(&cx);
}

#[test]
fn limits_hold_for_what_the_policy_starts_again() {
    let Some(cx) = with_container(&["--memory", "96m", "--restart", "always"]) else {
        return;
    };
    assert_eq!(cx.ketch(["update", "--memory", "32m", "c1"]).code, 0);
    let pid = cx.field("c1", ".State.Pid");
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    cx.until(
        ["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "c1"],
        |run| run.stdout == "1 running\n",
    );
    assert_eq!(
        limit(&cx, "memory/memory.limit_in_bytes", "memory.max"),
        "33554432"
    );
    remove(&cx);
}

#[test]
fn restart_policy_changes_while_the_container_runs() {
    let Some(cx) = with_container(&["--restart", "always"]) else {
        return;
    };
    assert_eq!(cx.ketch(["update", "--restart", "no", "c1"]).code, 0);
    assert_eq!(cx.field("c1", ".HostConfig.RestartPolicy.Name"), "no");
    let pid = cx.field("c1", ".State.Pid");
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    cx.until(["inspect", "-f", "{{.State.Status}}", "c1"], |run| {
        run.stdout == "exited\n"
    });
    assert_eq!(cx.field("c1", ".RestartCount"), "0");
    remove(&cx);
}

#[test]
fn limit_that_cannot_be_is_refused_and_changes_nothing() {
    let Some(cx) = with_container(&["--memory", "64m"]) else {
        return;
    };
    let cases: [(&[&str], &str); 3] = [
        (&["--memory", "1m"], "6 MiB"),
        (&["--memory", "512m"], "--memory-swap"),
        (&["--pids-limit", "77", "--cpuset-cpus", "4095"], "cpuset"),
    ];
    for (args, text) in cases {
        let mut all = vec!["update"];
        all.extend_from_slice(args);
        all.push("c1");
        assert_refused(&cx.ketch(all), text);
    }
    assert_eq!(
        limit(&cx, "memory/memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_ne!(limit(&cx, "pids/pids.max", "pids.max"), "77");
    assert_eq!(cx.ketch(["update", "c1"]).code, 125);
    remove(&cx);
}
