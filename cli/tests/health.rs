//! Health checks: probes run, count, are killed when they hang, and may start a container again.

#![expect(clippy::unwrap_used, reason = "test code")]

use serde_json::Value;
use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

fn sandbox(changes: &[&str]) -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    cx.shell(changes);
    Some(cx)
}

/// Runs a container `c1` that waits for a signal.
fn start(cx: &Sandbox, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", "c1"];
    args.extend_from_slice(options);
    args.extend([
        "box",
        "/bin/sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.05; done",
    ]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

fn health(cx: &Sandbox) -> Value {
    let run = cx.ketch(["inspect", "-f", "{{json .State.Health}}", "c1"]);
    serde_json::from_str(&run.stdout).unwrap()
}

fn until_status(cx: &Sandbox, status: &str) {
    cx.until_field("c1", ".State.Health.Status", status);
}

fn remove(cx: &Sandbox) {
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
}

fn events(cx: &Sandbox) -> Vec<String> {
    let args = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=c1",
    ];
    let run = cx.ketch(args.iter().chain(&["--format", "{{.Action}}"]));
    run.stdout.lines().map(str::to_owned).collect()
}

const FAST: [&str; 4] = ["--health-interval", "50ms", "--health-retries", "2"];

#[test]
fn probe_runs_in_the_container_and_its_result_is_shown() {
    let Some(cx) = sandbox(&[]) else { return };
    let check = "test -e /sick && { echo I am sick; exit 3; }; echo fine; test $COLOUR = blue";
    start(
        &cx,
        &[
            "-e",
            "COLOUR=blue",
            "--health-cmd",
            check,
            FAST[0],
            FAST[1],
            FAST[2],
            FAST[3],
        ],
    );
    until_status(&cx, "healthy");
    let state = health(&cx);
    let last = state["Log"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&0.into(), &"fine\n".into())
    );
    assert!(cx.ketch(["ps"]).stdout.contains("(healthy)"));
    assert_eq!(
        cx.ketch(["exec", "c1", "/bin/sh", "-c", "echo >/sick"])
            .code,
        0
    );
    until_status(&cx, "unhealthy");
    assert!(cx.ketch(["ps"]).stdout.contains("(unhealthy)"));
    cx.until(["version"], |_| {
        health(&cx)["Log"].as_array().unwrap().len() == 5
    });
    let state = health(&cx);
    let last = state["Log"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&3.into(), &"I am sick\n".into())
    );
    assert!(state["FailingStreak"].as_u64().unwrap() >= 2);
    let seen: Vec<String> = events(&cx)
        .into_iter()
        .filter(|event| event.starts_with("health_status"))
        .collect();
    assert_eq!(seen, ["health_status: healthy", "health_status: unhealthy"]);
    remove(&cx);
}

#[test]
fn probe_that_hangs_is_killed_with_all_that_it_started_and_never_piles_up() {
    let Some(cx) = sandbox(&[]) else { return };
    // Each leaves a process of a session of its own behind.
    let check = "setsid sleep 3600 & sleep 3600";
    let options = [
        "--health-timeout",
        "100ms",
        FAST[0],
        FAST[1],
        FAST[2],
        FAST[3],
    ];
    start(&cx, &[&["--health-cmd", check][..], &options].concat());
    until_status(&cx, "unhealthy");
    let state = health(&cx);
    let last = &state["Log"][0];
    assert_eq!(last["ExitCode"], -1);
    assert!(
        last["Output"]
            .as_str()
            .unwrap()
            .contains("longer than 100 ms"),
        "{last}"
    );
    cx.until(["version"], |_| {
        health(&cx)["FailingStreak"].as_u64().unwrap() > 4
    });
    let count = "ls /proc | grep -c '^[0-9]'";
    let mount = cx.ketch(["exec", "c1", "/bin/sh", "-c", count]);
    // The program, its sleep, one probe with two programs, and these four.
    let processes: u32 = mount.stdout.trim().parse().unwrap();
    assert!(processes <= 9, "{processes}");
    remove(&cx);
}

#[test]
fn unhealthy_container_is_started_again_when_that_is_asked_for() {
    let Some(cx) = sandbox(&[]) else { return };
    let options = ["--restart-on-unhealthy", FAST[0], FAST[1], FAST[2], FAST[3]];
    start(
        &cx,
        &[&["--health-cmd", "test ! -e /dev/shm/sick"][..], &options].concat(),
    );
    until_status(&cx, "healthy");
    assert_eq!(
        cx.ketch(["exec", "c1", "/bin/sh", "-c", "echo >/dev/shm/sick"])
            .code,
        0
    );
    cx.until(["inspect", "-f", "{{.RestartCount}}", "c1"], |run| {
        run.stdout == "1\n"
    });
    cx.until(["version"], |_| {
        let events = events(&cx);
        let wanted = ["health_status: unhealthy", "kill", "die", "start"];
        events.windows(4).any(|window| window == wanted)
    });
    remove(&cx);
}

#[test]
fn failures_of_the_start_period_do_not_count() {
    let Some(cx) = sandbox(&[]) else { return };
    let period = [
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "30ms",
    ];
    start(
        &cx,
        &[
            &["--health-cmd", "test -e /ready", "--health-retries", "1"][..],
            &period,
        ]
        .concat(),
    );
    cx.until(["version"], |_| {
        health(&cx)["Log"].as_array().unwrap().len() == 5
    });
    assert_eq!(health(&cx)["Status"], "starting");
    assert_eq!(health(&cx)["FailingStreak"], 0);
    assert!(cx.ketch(["ps"]).stdout.contains("(health: starting)"));
    assert_eq!(
        cx.ketch(["exec", "c1", "/bin/sh", "-c", "echo >/ready"])
            .code,
        0
    );
    until_status(&cx, "healthy");
    remove(&cx);
}

#[test]
fn check_of_the_image_is_used_and_can_be_switched_off() {
    let Some(cx) = sandbox(&["HEALTHCHECK --interval=50ms --retries=1 CMD exit 1"]) else {
        return;
    };
    start(&cx, &[]);
    until_status(&cx, "unhealthy");
    let run = cx.ketch(["inspect", "-f", "{{.Config.Healthcheck.Retries}}", "c1"]);
    assert_eq!(run.stdout, "1\n");
    remove(&cx);
    start(&cx, &["--no-healthcheck"]);
    assert_eq!(health(&cx), Value::Null);
    remove(&cx);
}

#[test]
fn paused_container_is_not_probed() {
    let Some(cx) = sandbox(&[]) else { return };
    start(&cx, &[&["--health-cmd", "exit 0"][..], &FAST].concat());
    until_status(&cx, "healthy");
    assert_eq!(cx.ketch(["pause", "c1"]).code, 0);
    let before = health(&cx);
    let run = cx.ketch(["run", "--rm", "box", "/bin/sh", "-c", "sleep 0.4"]);
    assert_eq!((run.code, health(&cx)), (0, before.clone()));
    assert_eq!(cx.ketch(["unpause", "c1"]).code, 0);
    cx.until(["version"], |_| health(&cx) != before);
    assert_eq!(health(&cx)["Status"], "healthy");
    remove(&cx);
}

#[test]
fn options_without_sense_are_refused() {
    let Some(cx) = sandbox(&[]) else { return };
    for options in [
        &["--health-interval", "1s"][..],
        &["--restart-on-unhealthy"],
        &["--no-healthcheck", "--health-cmd", "true"],
        &["--health-cmd", "true", "--health-timeout", "soon"],
        &["--rm", "--restart-on-unhealthy", "--health-cmd", "true"],
    ] {
        let mut args = vec!["run"];
        args.extend_from_slice(options);
        args.extend(["box", "/bin/sh"]);
        let run = cx.ketch(args);
        assert_eq!(run.code, 125, "{options:?}: {}", run.stderr);
    }
}

#[test]
fn wasm_server_is_asked_over_http() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let files = [("http.wasm", guest!("http.wasm"), 0o644)];
    cx.image("server", &files, &["ENTRYPOINT [\"/http.wasm\"]"]);
    let args = ["run", "-d", "--name", "c1", "--wasm-http-port", "8080"];
    let probe = [
        "--health-cmd",
        "http://localhost:8080/",
        "--health-interval",
        "50ms",
    ];
    let run = cx.ketch(args.iter().chain(&probe).chain(&["server"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    until_status(&cx, "healthy");
    let state = health(&cx);
    let last = state["Log"].as_array().unwrap().last().unwrap();
    assert!(
        last["Output"].as_str().unwrap().starts_with("HTTP/1.1 200"),
        "{last}"
    );
    remove(&cx);
    let probe = [
        "--health-cmd",
        "http://localhost:9/",
        "--health-interval",
        "50ms",
    ];
    let run = cx.ketch(
        args.iter()
            .chain(&probe)
            .chain(&["--health-retries", "2", "server"]),
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    until_status(&cx, "unhealthy");
    remove(&cx);
    let run = cx.ketch(["run", "--health-cmd", "curl localhost", "server"]);
    assert_eq!(run.code, 125, "{}", run.stderr);
    assert!(run.stderr.contains("over HTTP"), "{}", run.stderr);
}
