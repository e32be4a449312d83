//! The daemon as a service: sockets of a service manager, metrics, the access log, and limits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use crate::support::{Daemon, KETCH, TIMEOUT, answered, ask, request, sandbox};

#[test]
fn socket_of_a_service_manager_is_served_and_readiness_is_told() {
    let Some(cx) = sandbox() else { return };
    let path = cx.path().join("handed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let manager = cx.path().join("notify");
    let notified = UnixDatagram::bind(&manager).unwrap();
    notified.set_read_timeout(Some(TIMEOUT)).unwrap();
    // As sd_listen_fds(3) has it: the socket is descriptor 3 of a process that knows its own number.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ketch.socket exec \"$0\" daemon --host fd://ketch.socket 3<&0 </dev/null";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script, KETCH])
        .env_clear()
        .env("KETCH_ROOT", cx.path().join("root"))
        .env("KETCH_RUN", cx.path().join("run"))
        .env("KETCH_NETWORK", "none")
        .env("NOTIFY_SOCKET", &manager)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut state = [0; 64];
    let length = notified.recv(&mut state).unwrap();
    assert_eq!(&state[..length], b"READY=1");
    let (status, _) = ask(&path, "GET", "/_ping", "");
    assert_eq!(status, 200);
    // What was handed over is not removed: its owner goes on with it.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(path.exists());
}

#[test]
fn socket_that_nobody_handed_over_is_an_error() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch(["daemon", "--host", "fd://"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("no such socket was inherited"),
        "{}",
        run.stderr
    );
}

#[test]
fn metrics_tell_of_requests_and_containers_and_of_nothing_else() {
    let Some(daemon) = Daemon::start(&["--metrics-addr", "127.0.0.1:0"]) else {
        return;
    };
    let address = daemon.printed("listening at http://");
    let address = address.strip_suffix("/metrics").unwrap();
    daemon.sleeper("one", "{}");
    assert_eq!(daemon.ask("GET", "/containers/nope/json", "").0, 404);
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        answered(&mut stream, &request("GET", path, ""))
    };
    let (status, text) = get("/metrics");
    assert_eq!(status, 200);
    assert!(
        text.contains("content-type: text/plain; version=0.0.4"),
        "{text}"
    );
    for line in [
        r#"ketch_requests_total{method="POST",route="containers/create",code="201"} 1"#,
        r#"ketch_requests_total{method="GET",route="containers/{id}/json",code="404"} 1"#,
        r#"ketch_containers{state="running"} 1"#,
        "ketch_panics_total 0",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}: {text}");
    }
    assert_eq!(get("/containers/json").0, 404);
}

#[test]
fn access_log_says_who_has_asked_for_what() {
    let Some(daemon) = Daemon::start(&["--log-level", "info", "--log-format", "json"]) else {
        return;
    };
    daemon.ask("GET", "/containers/nope/json?secret=1", "");
    let line = daemon.logged(|line| line.contains("/containers/nope/json"));
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["status"], 404);
    assert_eq!(record["route"], "containers/{id}/json");
    assert_eq!(record["pid"], std::process::id());
    assert_eq!((&record["uid"], &record["gid"]), (&0.into(), &0.into()));
    assert!(!line.contains("secret"), "{line}");
}

#[test]
fn client_that_never_finishes_its_request_is_let_go() {
    let Some(daemon) = Daemon::start(&["--header-timeout", "1"]) else {
        return;
    };
    for part in ["", "GET /_ping HTTP/1.1\r\nHost:"] {
        let mut slow = UnixStream::connect(daemon.socket()).unwrap();
        slow.set_read_timeout(Some(TIMEOUT)).unwrap();
        slow.write_all(part.as_bytes()).unwrap();
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).unwrap();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
            "{rest:?}"
        );
    }
    assert_eq!(daemon.ask("GET", "/_ping", "").0, 200);
}

#[test]
fn ten_thousand_idle_connections_stop_nobody() {
    const IDLE: usize = 10_000;
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_none_or(|current| current < 10_500) {
        return testkit::skip("needs 10500 descriptors");
    }
    let idle: Vec<UnixStream> = (0..IDLE)
        .map(|_| UnixStream::connect(daemon.socket()).unwrap())
        .collect();
    let (status, answer) = daemon.ask("GET", "/_ping", "");
    assert_eq!(status, 200, "{answer}");
    drop(idle);
    assert_eq!(daemon.ask("GET", "/containers/json", "").0, 200);
}

#[test]
fn distribution_shows_what_a_registry_has() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let Some(registry) = testkit::Registry::start(&daemon.cx.path().join("registry")) else {
        return;
    };
    let name = format!("{}/box:1", registry.host);
    assert_eq!(daemon.ketch(&["tag", "box", &name]).code, 0);
    let pushed = daemon.ketch(&["push", &name]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let (status, answer) = daemon.ask("GET", &format!("/distribution/{name}/json"), "");
    assert_eq!(status, 200, "{answer}");
    let digest = daemon.ketch(&["image", "inspect", "--format", "{{.RepoDigests}}", &name]);
    let digest = digest.stdout.trim().trim_end_matches(']').to_owned();
    let digest = digest.rsplit('@').next().unwrap();
    assert!(answer.contains(digest), "{digest}: {answer}");
    let missing = format!("/distribution/{}/none:1/json", registry.host);
    assert_eq!(daemon.ask("GET", &missing, "").0, 404);
}
