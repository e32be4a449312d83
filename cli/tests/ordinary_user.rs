//! Containers of an ordinary user, with and without subordinate ids.

use testkit::{Need, Run, Sandbox, Subordinate, UserNamespaces};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

fn user(subordinate: Subordinate, namespaces: UserNamespaces) -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::IdMapPrograms])?;
    Some(cx.as_user(subordinate, namespaces))
}

fn both() -> impl Iterator<Item = Sandbox> {
    [Subordinate::None, Subordinate::Ids]
        .into_iter()
        .filter_map(|ids| user(ids, UserNamespaces::Allowed))
}

/// An image whose one file belongs to user 7, and whose directory to user 8.
fn owned_image(cx: &Sandbox) {
    let guest = include_bytes!("../../fixtures/guests/built/files.x86_64").as_slice();
    cx.image("files", &[("files", guest, 0o755)], &[]);
}

#[track_caller]
fn assert_ok(run: &Run) {
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
}

#[test]
fn user_runs_both_kinds_as_root_of_its_namespace() {
    for cx in both() {
        let linux = cx.ketch(["run", "--rm", "-e", "NAME=Ada", "hello"]);
        assert_ok(&linux);
        assert!(linux.stdout.contains("Hello, Ada!") && linux.stdout.contains("uid 0, gid 0"));
        let wasm = cx.ketch(["run", "--rm", "--platform", "wasi/wasm", "hello"]);
        assert_ok(&wasm);
        assert!(wasm.stdout.contains("wasm sandbox"), "{}", wasm.stdout);
        assert_ok(&cx.ketch(["run", "--rm", "--network", "host", "hello"]));
        assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
    }
}

#[test]
fn users_containers_outlive_their_front_end_and_answer_the_next() {
    for cx in both() {
        let sleep = include_bytes!("../../fixtures/guests/built/sleep.x86_64").as_slice();
        cx.image("guests", &[("sleep", sleep, 0o755)], &[]);
        assert_ok(&cx.ketch(["run", "-d", "--name", "nap", "guests", "/sleep", "600"]));
        assert!(cx.ketch(["ps"]).stdout.contains("nap"));
        assert_ok(&cx.ketch(["kill", "nap"]));
        assert_eq!(cx.ketch(["wait", "nap"]).stdout, "137\n");
        assert_ok(&cx.ketch(["rm", "nap"]));
        assert_ok(&cx.ketch(["rmi", "guests"]));
    }
}

#[test]
fn users_exec_stands_in_the_containers_namespaces() {
    for cx in both() {
        let sleep = include_bytes!("../../fixtures/guests/built/sleep.x86_64").as_slice();
        let files = include_bytes!("../../fixtures/guests/built/files.x86_64").as_slice();
        let programs = [("sleep", sleep, 0o755), ("files", files, 0o755)];
        cx.image("guests", &programs, &[]);
        assert_ok(&cx.ketch(["run", "-d", "--name", "nap", "guests", "/sleep", "600"]));
        let init = cx.ketch(["exec", "nap", "/files", "read", "/proc/1/cmdline"]);
        assert_ok(&init);
        assert!(init.stdout.contains("/sleep"), "{}", init.stdout);
        let run = cx.ketch(["exec", "nap", "/files", "write", "/new", "text"]);
        assert_ok(&run);
        assert_eq!(cx.ketch(["exec", "nap", "/nothing"]).code, 127);
        assert_ok(&cx.ketch(["rm", "-f", "nap"]));
        let stopped = cx.ketch(["exec", "nap", "/sleep"]);
        assert_eq!(stopped.code, 125);
    }
}

#[test]
fn user_id_that_is_not_mapped_is_refused_and_leaves_nothing() {
    let Some(cx) = user(Subordinate::None, UserNamespaces::Allowed) else {
        return;
    };
    owned_image(&cx);
    let run = cx.ketch(["run", "-u", "1000", "files", "/files"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("user id 1000") && run.stderr.contains("/etc/subuid"));
    let Some(cx) = user(Subordinate::Ids, UserNamespaces::Allowed) else {
        return;
    };
    let run = cx.ketch(["run", "--rm", "-u", "1000:1001", "hello"]);
    assert!(run.stdout.contains("uid 1000, gid 1001"), "{run:?}");
}

#[test]
fn limit_without_a_writable_cgroup_is_refused_and_leaves_nothing() {
    let Some(cx) = user(Subordinate::Ids, UserNamespaces::Allowed) else {
        return;
    };
    let run = cx.ketch(["run", "--memory", "64m", "hello"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("--memory"), "{}", run.stderr);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn forbidden_user_namespaces_are_refused_with_the_setting() {
    let Some(cx) = user(Subordinate::None, UserNamespaces::Forbidden) else {
        return;
    };
    let run = cx.ketch(["run", "hello"]);
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("user.max_user_namespaces is 0"),
        "{}",
        run.stderr
    );
}

#[test]
fn directory_of_another_user_is_refused() {
    let Some(cx) = user(Subordinate::None, UserNamespaces::Allowed) else {
        return;
    };
    let root = cx.path().join("user/run");
    std::fs::create_dir(&root).unwrap();
    let run = cx.ketch(["run", "hello"]);
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("belongs to user id 0"),
        "{}",
        run.stderr
    );
}

#[test]
fn users_container_goes_on_when_its_monitor_is_killed() {
    for cx in both() {
        let sleep = include_bytes!("../../fixtures/guests/built/sleep.x86_64").as_slice();
        cx.image("guests", &[("sleep", sleep, 0o755)], &[]);
        let args = ["run", "-d", "--name", "nap", "--restart", "always"];
        assert_ok(&cx.ketch([&args[..], &["guests", "/sleep", "600"]].concat()));
        let field = |field: &str| {
            let run = cx.ketch(["inspect", "-f", field, "nap"]);
            assert_ok(&run);
            run.stdout.trim().to_owned()
        };
        let pid = field("{{.State.Pid}}");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.expect("a container that runs");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let parent = parent.expect("a line of proc(5)").trim().to_owned();
        let killed = std::process::Command::new("kill")
            .args(["-9", &parent])
            .status();
        assert!(killed.is_ok_and(|status| status.success()));
        assert_eq!(
            field("{{.State.Status}} {{.State.Pid}}"),
            format!("running {pid}")
        );
        // Its policy is the next monitor's to follow, in the same user namespace.
        assert_ok(&cx.ketch(["exec", "nap", "/sleep", "0"]));
        let killed = std::process::Command::new("kill")
            .args(["-9", &pid])
            .status();
        assert!(killed.is_ok_and(|status| status.success()));
        let args = [
            "inspect",
            "-f",
            "{{.State.Status}} {{.RestartCount}}",
            "nap",
        ];
        cx.until(args, |run| run.stdout.trim() == "running 1");
        assert_ok(&cx.ketch(["rm", "-f", "nap"]));
    }
}
