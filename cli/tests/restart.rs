//! Restart policies, for containers of both kinds.

use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    cx.guests(&["args", "sleep", "spin"]);
    Some(cx)
}

/// Runs a container `c1` in the background.
fn start(cx: &Sandbox, args: &[&str]) {
    let mut all = vec!["run", "-d", "--name", "c1"];
    all.extend_from_slice(args);
    let run = cx.ketch(all);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn on_failure_starts_again_so_many_times_and_keeps_the_exit_code() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--restart", "on-failure:2", "guests", "/args", "3"]);
    cx.until_field("c1", ".State.Status", "exited");
    assert_eq!(cx.field("c1", ".RestartCount"), "2");
    assert_eq!(cx.field("c1", ".State.ExitCode"), "3");
    assert_eq!(
        cx.field("c1", ".HostConfig.RestartPolicy.Name"),
        "on-failure"
    );
    let logs = cx.ketch(["logs", "c1"]).stdout;
    assert_eq!(logs.matches("arg 0:").count(), 3, "{logs}");
}

#[test]
fn on_failure_leaves_success_alone() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--restart", "on-failure", "guests", "/args", "0"]);
    cx.until_field("c1", ".State.Status", "exited");
    assert_eq!(cx.field("c1", ".RestartCount"), "0");
}

#[test]
fn always_starts_again_until_it_is_stopped_also_between_two_runs() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--restart", "always", "guests", "/args", "0"]);
    cx.until_field("c1", ".RestartCount", "3");
    cx.until(["ps"], |run| run.stdout.contains("Restarting (0)"));
    assert_eq!(cx.ketch(["stop", "c1"]).code, 0);
    assert_eq!(cx.field("c1", ".State.Status"), "exited");
    let count = cx.field("c1", ".RestartCount");
    // A start by hand counts from the beginning.
    assert_eq!(cx.ketch(["start", "c1"]).code, 0);
    cx.until_field("c1", ".RestartCount", "1");
    assert_ne!(count, "0");
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn stop_and_kill_end_what_would_always_be_started_again() {
    let Some(cx) = sandbox() else { return };
    for end in [&["stop", "-t", "0", "c1"][..], &["kill", "c1"]] {
        start(&cx, &["--restart", "unless-stopped", "guests", "/spin"]);
        assert_eq!(cx.ketch(end).code, 0);
        cx.until_field("c1", ".State.Status", "exited");
        assert_eq!(cx.field("c1", ".State.ExitCode"), "137");
        assert_eq!(cx.field("c1", ".RestartCount"), "0");
        assert_eq!(cx.ketch(["rm", "c1"]).code, 0);
    }
}

#[test]
fn program_that_dies_of_a_signal_that_nobody_sent_for_its_end_is_started_again() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--restart", "always", "guests", "/sleep", "1000"]);
    let before = cx.field("c1", ".State.Pid");
    // SIGKILL from outside, as the kernel's out-of-memory killer sends it.
    let killed = std::process::Command::new("kill")
        .args(["-9", &before])
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
    cx.until_field("c1", ".RestartCount", "1");
    cx.until_field("c1", ".State.Status", "running");
    assert_ne!(cx.field("c1", ".State.Pid"), before);
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
}

#[test]
fn foreground_ends_with_the_first_run_and_the_container_goes_on() {
    let Some(cx) = sandbox() else { return };
    let args = ["run", "--name", "c1", "--restart", "on-failure:1"];
    let run = cx.ketch(args.iter().chain(&["guests", "/args", "4"]));
    assert_eq!(run.code, 4, "{}", run.stderr);
    cx.until_field("c1", ".State.Status", "exited");
    assert_eq!(cx.field("c1", ".RestartCount"), "1");
}

#[test]
fn wasm_container_is_started_again() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let files = [(
        "app.wasm",
        include_bytes!("../../fixtures/guests/built/args.wasm").as_slice(),
        0o644,
    )];
    cx.image("app", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
    start(&cx, &["--restart", "on-failure:2", "app", "5"]);
    cx.until_field("c1", ".State.Status", "exited");
    assert_eq!(cx.field("c1", ".RestartCount"), "2");
    assert_eq!(cx.field("c1", ".State.ExitCode"), "5");
}

#[test]
fn policy_that_makes_no_sense_is_refused() {
    let Some(cx) = sandbox() else { return };
    for args in [
        &["--restart", "never", "guests", "/args"][..],
        &["--restart", "on-failure:x", "guests", "/args"],
        &["--rm", "--restart", "always", "guests", "/args"],
    ] {
        let run = cx.ketch(["run"].iter().chain(args));
        assert_eq!(run.code, 125, "{}", run.stderr);
        assert!(run.stderr.contains("--restart"), "{}", run.stderr);
    }
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn program_that_cannot_start_at_all_is_not_started_again() {
    let Some(cx) = sandbox() else { return };
    let args = ["run", "-d", "--name", "c1", "--restart", "always"];
    let run = cx.ketch(args.iter().chain(&["guests", "/nothing"]));
    assert_eq!(run.code, 127, "{}", run.stderr);
    assert_eq!(cx.field("c1", ".State.Status"), "created");
}
