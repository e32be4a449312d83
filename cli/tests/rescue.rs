//! A monitor is killed, or the host goes down. The container goes on under another monitor as far as
//! it can, nothing stays behind, the reason is recorded, and what its policy says comes back.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Signal, kill_process};
use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints a line every few milliseconds until it is told to end.
const TALK: &str =
    "i=0; while [ ! -e /end ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 7";

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    cx.shell(&[]);
    Some(cx)
}

fn run(cx: &Sandbox, args: &[&str]) -> String {
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
    run.stdout
}

/// Starts a container `c1` that runs a script.
fn start(cx: &Sandbox, options: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", "c1"];
    args.extend_from_slice(options);
    args.extend(["box", "/bin/sh", "-c", script]);
    run(cx, &args);
}

/// The process that answers for the container `c1`.
fn monitor(cx: &Sandbox) -> Pid {
    let socket = format!("run/containers/{}/ctl.sock", cx.field("c1", ".Id"));
    let socket = sys::socket::connect(&cx.path().join(socket)).unwrap();
    socket_peercred(&socket).unwrap().pid
}

/// Kills the monitor of the container `c1`; the pid of its program.
fn kill_monitor(cx: &Sandbox) -> String {
    let pid = cx.field("c1", ".State.Pid");
    let monitor = monitor(cx);
    kill_process(monitor, Signal::KILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Somebody who was attached may give it another one at once.
    while is_alive(&monitor.as_raw_nonzero().to_string()) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    pid
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// The control groups of the container `c1`.
fn groups(cx: &Sandbox) -> String {
    let id = cx.field("c1", ".Id");
    let output = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &id])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The numbers of the lines that `TALK` has printed: they grow, and none comes twice.
fn numbers(text: &str) -> Vec<u32> {
    let lines = text.lines().map(|line| line.strip_prefix("line "));
    let numbers: Vec<u32> = lines.map(|n| n.unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    numbers
}

/// Waits until the log has lines beyond the one with this number; the last one's.
fn wait_for_lines(cx: &Sandbox, beyond: u32) -> u32 {
    let last = |text: &str| numbers(text).last().copied();
    let run = cx.until(["logs", "c1"], |run| {
        last(&run.stdout).is_some_and(|last| last > beyond)
    });
    last(&run.stdout).unwrap()
}

fn tell_to_end(cx: &Sandbox) {
    run(cx, &["exec", "c1", "/bin/sh", "-c", ">/end"]);
}

#[test]
fn container_of_a_killed_monitor_goes_on_and_its_exit_code_is_known() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &[], TALK);
    let before = wait_for_lines(&cx, 2);
    let pid = kill_monitor(&cx);
    assert!(run(&cx, &["ps"]).contains("Up "));
    assert_eq!(cx.field("c1", ".State.Pid"), pid);
    let after = wait_for_lines(&cx, before + 5);
    // And another time.
    kill_monitor(&cx);
    assert_eq!(cx.field("c1", ".State.Status"), "running");
    wait_for_lines(&cx, after + 5);
    assert!(is_alive(&pid));
    tell_to_end(&cx);
    assert_eq!(run(&cx, &["wait", "c1"]), "7\n");
    assert_eq!(cx.field("c1", ".State.ExitCode"), "7");
    assert_eq!(cx.field("c1", ".State.Error"), "");
    cx.until(["version"], |_| groups(&cx).is_empty());
    let events = ["events", "--since", "1h", "--until", "0s"];
    let events = run(&cx, &events);
    assert_eq!(events.matches(" rescue ").count(), 2, "{events}");
    assert_eq!(events.matches(" die ").count(), 1, "{events}");
    run(&cx, &["start", "c1"]);
    run(&cx, &["rm", "-f", "c1"]);
}

#[test]
fn many_that_look_at_once_give_the_container_one_monitor() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &[], TALK);
    for _ in 0..5 {
        let pid = kill_monitor(&cx);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert!(run(&cx, &["ps"]).contains("Up ")));
            }
        });
        assert!(is_alive(&pid));
    }
    run(&cx, &["rm", "-f", "c1"]);
}

#[test]
fn whoever_waits_or_reads_goes_on_with_the_next_monitor() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &[], TALK);
    wait_for_lines(&cx, 2);
    let begin = |args: &[&str]| {
        let mut command = cx.command();
        command.args(args).stdin(Stdio::null());
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut attached = begin(&["attach", "c1"]);
    let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let following = begin(&["logs", "-f", "c1"]);
    let waiting = begin(&["wait", "c1"]);
    let before = numbers(&run(&cx, &["logs", "c1"]));
    kill_monitor(&cx);
    let after = wait_for_lines(&cx, before.last().unwrap() + 5);
    // What is printed reaches who was attached before.
    let mut seen = vec![first];
    while numbers(&seen.join("\n")).last() < Some(&after) {
        seen.push(lines.next().unwrap().unwrap());
    }
    tell_to_end(&cx);
    seen.extend(lines.map(Result::unwrap));
    let all = numbers(&run(&cx, &["logs", "c1"]));
    assert_eq!(numbers(&seen.join("\n")).last(), all.last());
    assert_eq!(attached.wait().unwrap().code(), Some(7));
    let output = following.wait_with_output().unwrap();
    assert_eq!(numbers(&String::from_utf8(output.stdout).unwrap()), all);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"7\n");
    run(&cx, &["rm", "c1"]);
}

#[test]
fn container_under_another_monitor_is_paused_stopped_and_killed_like_any_other() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &[], &format!("trap 'exit 3' TERM; {TALK}"));
    wait_for_lines(&cx, 0);
    run(&cx, &["pause", "c1"]);
    kill_monitor(&cx);
    assert_eq!(cx.field("c1", ".State.Status"), "paused");
    run(&cx, &["unpause", "c1"]);
    run(&cx, &["stop", "c1"]);
    assert_eq!(cx.field("c1", ".State.ExitCode"), "3");

    run(&cx, &["start", "c1"]);
    kill_monitor(&cx);
    run(&cx, &["kill", "c1"]);
    assert_eq!(run(&cx, &["wait", "c1"]), "137\n");

    // One that is asked to end meanwhile ends.
    run(&cx, &["start", "c1"]);
    kill_monitor(&cx);
    run(&cx, &["stop", "c1"]);
    assert_eq!(cx.field("c1", ".State.ExitCode"), "3");
    run(&cx, &["rm", "c1"]);
}

#[test]
fn policy_and_health_check_go_on_under_another_monitor() {
    let Some(cx) = sandbox() else { return };
    let check = [
        "--restart",
        "on-failure:1",
        "--health-cmd",
        "[ -e /well ]",
        "--health-interval",
        "50ms",
        "--health-retries",
        "1",
    ];
    start(&cx, &check, TALK);
    let health = |wanted| cx.until_field("c1", ".State.Health.Status", wanted);
    health("unhealthy");
    kill_monitor(&cx);
    assert_eq!(cx.field("c1", ".State.Health.Status"), "unhealthy");
    run(&cx, &["exec", "c1", "/bin/sh", "-c", ">/well"]);
    health("healthy");
    // The file that ends it stays, so the second run ends as well.
    tell_to_end(&cx);
    cx.until_field("c1", ".State.Status", "exited");
    assert_eq!(cx.field("c1", ".RestartCount"), "1");
    assert_eq!(cx.field("c1", ".State.ExitCode"), "7");
    run(&cx, &["rm", "c1"]);
}

#[test]
fn container_that_waits_to_be_started_again_is_started_by_the_next_monitor() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--restart", "always"], "exit 1");
    let count = |beyond: u32| {
        let args = ["inspect", "-f", "{{.RestartCount}}", "c1"];
        let count = |text: &str| text.trim().parse::<u32>().unwrap();
        let run = cx.until(args, |run| count(&run.stdout) > beyond);
        count(&run.stdout)
    };
    // By now it waits most of the time.
    let before = count(3);
    kill_process(monitor(&cx), Signal::KILL).unwrap();
    count(before + 1);
    run(&cx, &["stop", "c1"]);
    assert_eq!(cx.field("c1", ".State.Status"), "exited");
    run(&cx, &["rm", "c1"]);
}

#[test]
fn program_that_ended_with_its_monitor_is_started_again_as_its_policy_says() {
    let Some(cx) = sandbox() else { return };
    start(
        &cx,
        &["--restart", "always"],
        "[ -e /up ] && sleep 1000; >/up",
    );
    let status = ["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "c1"];
    cx.until(status, |run| run.stdout.trim() == "running 1");
    // The program ends, and its monitor with it, before it can start it again.
    let pid = cx.field("c1", ".State.Pid");
    let monitor = monitor(&cx);
    kill_process(monitor, Signal::STOP).unwrap();
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    kill_process(monitor, Signal::KILL).unwrap();
    cx.until(status, |run| run.stdout.trim() == "running 2");
    assert_ne!(
        cx.field("c1", ".State.Pid"),
        pid.as_raw_nonzero().to_string()
    );
    run(&cx, &["rm", "-f", "c1"]);
}

#[test]
fn end_that_nobody_has_seen_is_said_to_be_unknown() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &[], "sleep 1000");
    let pid = Pid::from_raw(cx.field("c1", ".State.Pid").parse().unwrap()).unwrap();
    let monitor = monitor(&cx);
    kill_process(monitor, Signal::STOP).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    kill_process(monitor, Signal::KILL).unwrap();
    // Whoever takes orphans in has to have waited for it.
    let deadline = Instant::now() + PATIENCE;
    while std::path::Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(run(&cx, &["ps", "-a"]).contains("Exited (255)"));
    assert!(
        cx.field("c1", ".State.Error")
            .contains("how the container ended")
    );
    assert_eq!(groups(&cx), "");
    run(&cx, &["rm", "c1"]);
}

#[test]
fn terminal_is_lost_with_its_monitor_and_the_container_says_so() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["-t"], "trap '' HUP; while :; do sleep 0.02; done");
    let pid = kill_monitor(&cx);
    cx.until(["ps", "-a"], |run| run.stdout.contains("Exited (137)"));
    assert!(!is_alive(&pid));
    let error = cx.field("c1", ".State.Error");
    assert!(error.contains("its monitor was gone") && error.contains("its terminal"));
    assert_eq!(groups(&cx), "");
    run(&cx, &["start", "c1"]);
    assert_eq!(cx.field("c1", ".State.Status"), "running");
    run(&cx, &["rm", "-f", "c1"]);
}

#[test]
fn container_that_goes_with_its_end_is_removed_and_its_exit_code_is_known() {
    let Some(cx) = sandbox() else { return };
    start(&cx, &["--rm", "-v", "/data"], TALK);
    kill_monitor(&cx);
    tell_to_end(&cx);
    cx.until(["ps", "-aq"], |run| run.stdout.is_empty());
    assert_eq!(run(&cx, &["wait", "c1"]), "7\n");
    cx.until(["volume", "ls", "-q"], |run| run.stdout.is_empty());
}

/// A container in the foreground that copies what it is given.
fn copier(cx: &Sandbox, options: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = cx.command();
    command.args(["run", "-i", "--name", "c1"]).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

#[test]
fn both_kinds_go_on_with_the_streams_of_their_caller() {
    let Some(cx) = sandbox() else { return };
    cx.image("native", &[("echo", guest!("echo.x86_64"), 0o755)], &[]);
    let module = [("echo.wasm", guest!("echo.wasm"), 0o644)];
    cx.image("wasm", &module, &["ENTRYPOINT [\"/echo.wasm\"]"]);
    for options in [&["native", "/echo"][..], &["wasm"]] {
        let (mut child, mut stdout) = copier(&cx, options);
        let mut stdin = child.stdin.take().unwrap();
        let mut say = |text: &str| {
            stdin.write_all(text.as_bytes()).unwrap();
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, text);
        };
        say("one\n");
        let pid = kill_monitor(&cx);
        assert!(run(&cx, &["ps"]).contains("Up "), "{options:?}");
        say("two\n");
        assert!(is_alive(&pid));
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{options:?}");
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        let logs = cx.ketch(["logs", "c1"]);
        assert_eq!(logs.stdout, "one\ntwo\n");
        assert!(logs.stderr.contains("8 bytes"), "{}", logs.stderr);
        assert_eq!(cx.field("c1", ".State.ExitCode"), "0");
        run(&cx, &["rm", "c1"]);
    }
}

#[test]
fn wasm_container_under_another_monitor_is_stopped_at_once() {
    let Some(cx) = sandbox() else { return };
    let module = [("spin.wasm", guest!("spin.wasm"), 0o644)];
    cx.image("wasm", &module, &["ENTRYPOINT [\"/spin.wasm\"]"]);
    run(&cx, &["run", "-d", "--name", "c1", "wasm"]);
    kill_monitor(&cx);
    run(&cx, &["stop", "c1"]);
    assert_eq!(cx.field("c1", ".State.ExitCode"), "143");
    assert_eq!(run(&cx, &["logs", "c1"]), "spin: running\n");
    run(&cx, &["rm", "c1"]);
}

#[test]
fn exit_code_is_known_after_the_container_was_removed() {
    let Some(cx) = sandbox() else { return };
    let args = [
        "run", "--rm", "--name", "c1", "box", "/bin/sh", "-c", "exit 9",
    ];
    assert_eq!(cx.ketch(args).code, 9);
    assert_eq!(run(&cx, &["wait", "c1"]), "9\n");
    assert_ne!(cx.ketch(["wait", "nobody"]).code, 0);
}

/// What a crash of the host leaves of the container `c1`: its records, and nothing that runs.
fn crash(cx: &Sandbox) {
    let id = cx.field("c1", ".Id");
    let pid = cx.field("c1", ".State.Pid");
    kill_process(monitor(cx), Signal::KILL).unwrap();
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    std::fs::remove_dir_all(cx.path().join("run/containers").join(id)).unwrap();
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
        start(&cx, &["--restart", policy], "sleep 1000");
        if stop {
            run(&cx, &["stop", "-t", "0", "c1"]);
        } else {
            crash(&cx);
            cx.until(["ps", "-a"], |run| run.stdout.contains("Exited"));
            assert!(
                cx.field("c1", ".State.Error")
                    .contains("the host was restarted")
            );
        }
        let run = cx.ketch(["system", "start"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let wanted = if comes_back { "running" } else { "exited" };
        assert_eq!(cx.field("c1", ".State.Status"), wanted, "{policy} {stop}");
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

#[test]
fn neither_monitor_holds_what_its_callers_caller_has_left_open() {
    let Some(cx) = sandbox() else { return };
    // Both ends are open over `execve`, as a shell's `exec 9>file` is.
    let (end, left_open) = rustix::pipe::pipe().unwrap();
    start(&cx, &[], TALK);
    kill_monitor(&cx);
    assert_eq!(cx.field("c1", ".State.Status"), "running");
    drop(left_open);
    // Nobody writes: what is heard is that nobody holds the other end.
    let mut fds = [PollFd::new(&end, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1);
    tell_to_end(&cx);
    run(&cx, &["rm", "-f", "c1"]);
}
