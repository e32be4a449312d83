//! A monitor is killed, or the host goes down: nothing stays behind, the reason is recorded, and what
//! its policy says comes back.

#![expect(clippy::unwrap_used, reason = "test code")]

use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let files = [
        ("args", guest!("args.x86_64"), 0o755),
        ("sleep", guest!("sleep.x86_64"), 0o755),
    ];
    cx.image("guests", &files, &[]);
    Some(cx)
}

fn start(cx: &Sandbox, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", "c1"];
    args.extend_from_slice(options);
    args.extend(["guests", "/sleep", "1000"]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

fn field(cx: &Sandbox, field: &str) -> String {
    let format = format!("{{{{{field}}}}}");
    cx.ketch(["inspect", "-f", &format, "c1"])
        .stdout
        .trim()
        .to_owned()
}

/// Kills the monitor of the container `c1`; the pid of its program.
fn kill_monitor(cx: &Sandbox) -> String {
    let pid = field(cx, ".State.Pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let killed = std::process::Command::new("kill")
        .args(["-9", parent.unwrap().trim()])
        .status();
    assert!(killed.unwrap().success());
    pid
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

#[test]
fn container_of_a_killed_monitor_is_stopped_and_says_why() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &[]);
    let pid = kill_monitor(&cx);
    cx.until(["ps", "-a"], |run| run.stdout.contains("Exited (137)"));
    assert!(!is_alive(&pid));
    assert!(field(&cx, ".State.Error").contains("its monitor was gone"));
    let groups = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &field(&cx, ".Id")])
        .output();
    assert_eq!(String::from_utf8(groups.unwrap().stdout).unwrap(), "");
    assert_eq!(cx.ketch(["start", "c1"]).code, 0);
    assert_eq!(field(&cx, ".State.Status"), "running");
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
}

#[test]
fn container_that_goes_with_its_end_is_removed_and_its_exit_code_is_known() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--rm"]);
    let pid = kill_monitor(&cx);
    cx.until(["ps", "-aq"], |run| run.stdout.is_empty());
    assert!(!is_alive(&pid));
    assert_eq!(cx.ketch(["wait", "c1"]).stdout, "137\n");
}

#[test]
fn exit_code_is_known_after_the_container_was_removed() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch(["run", "--rm", "--name", "c1", "guests", "/args", "9"]);
    assert_eq!(run.code, 9, "{}", run.stderr);
    assert_eq!(cx.ketch(["wait", "c1"]).stdout, "9\n");
    assert_ne!(cx.ketch(["wait", "nobody"]).code, 0);
}

#[test]
fn system_start_brings_back_what_its_policy_says() {
    let Some(cx) = sandbox() else { return };
    for (policy, stop, comes_back) in [
        ("no", false, false),
        ("unless-stopped", false, true),
        ("on-failure", false, true),
        ("unless-stopped", true, false),
        ("always", true, true),
    ] {
        start(&cx, &["--restart", policy]);
        if stop {
            assert_eq!(cx.ketch(["stop", "-t", "0", "c1"]).code, 0);
        } else {
            kill_monitor(&cx);
            cx.until(["ps", "-a"], |run| run.stdout.contains("Exited"));
        }
        let run = cx.ketch(["system", "start"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let wanted = if comes_back { "running" } else { "exited" };
        assert_eq!(field(&cx, ".State.Status"), wanted, "{policy} {stop}");
        assert_eq!(run.stdout, if comes_back { "c1\n" } else { "" });
        assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
    }
}

#[test]
fn units_are_written_for_this_root() {
    let Some(cx) = sandbox() else { return };
    let dir = cx.path().join("units");
    let run = cx.ketch(["system", "install-units", "--dir", dir.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let root = cx.path().join("root").display().to_string();
    let units: Vec<String> = run
        .stdout
        .lines()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let [containers, daemon, socket] = units.as_slice() else {
        panic!("{}", run.stdout);
    };
    for text in [containers, daemon] {
        assert!(text.contains(&format!("\"--root\" \"{root}\"")), "{text}");
    }
    assert!(
        containers.contains("system start\nKillMode=process\n"),
        "{containers}"
    );
    assert!(
        daemon.contains("daemon --host fd://ketch.socket\nKillMode=process\n"),
        "{daemon}"
    );
    let path = cx.path().join("run/ketch.sock").display().to_string();
    assert!(
        socket.contains(&format!("ListenStream={path}\n")),
        "{socket}"
    );
}
