//! Docker's API on a real socket: raw requests, and the stock client where it is installed.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{BUSYBOX, Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");
/// Nothing here takes as long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A daemon in a sandbox with an image `box`.
struct Daemon {
    cx: Sandbox,
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start() -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
        let busybox = std::fs::read(BUSYBOX).unwrap();
        let programs = ["bin/sh", "bin/cat", "bin/echo", "bin/sleep", "bin/wc"];
        let files: Vec<(&str, &[u8], u32)> = programs
            .iter()
            .map(|name| (*name, busybox.as_slice(), 0o755))
            .collect();
        cx.image("box", &files, &[]);
        let socket = cx.path().join("api.sock");
        let child = serve(&cx, &socket);
        Some(Self { cx, child, socket })
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Sends a request and reads the answer to its end.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// Sends an archive and reads the answer to its end.
    fn upload(&self, path: &str, archive: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        )
        .unwrap();
        stream.write_all(archive).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// Creates a container `name` of `box`.
    fn create(&self, name: &str, body: &str) {
        let path = format!("/v1.44/containers/create?name={name}");
        let (status, answer) = self.ask("POST", &path, body);
        assert_eq!(status, 201, "{answer}");
    }

    /// The stock client with this daemon.
    fn docker(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let mut child = Command::new("docker")
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", self.cx.path().join("docker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for id in self.cx.ketch(["ps", "-aq"]).stdout.lines() {
            self.cx.ketch(["rm", "-f", id]);
        }
    }
}

fn serve(cx: &Sandbox, socket: &std::path::Path) -> Child {
    let host = format!("unix://{}", socket.display());
    let child = cx
        .command()
        .args(["daemon", "--host", &host])
        .stderr(Stdio::null())
        .spawn();
    let child = child.unwrap();
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(begun.elapsed() < TIMEOUT, "the daemon does not listen");
        std::thread::yield_now();
    }
    child
}

const SLEEPER: &str =
    r#"{"Image":"box","Cmd":["/bin/sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#;

#[test]
fn versions_errors_and_swarm_are_answered_in_dockers_words() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let (status, answer) = daemon.ask("GET", "/_ping", "");
    assert_eq!(status, 200);
    assert!(
        answer.contains("api-version: 1.56") && answer.ends_with("OK"),
        "{answer}"
    );
    let table = [
        ("GET", "/v1.99/info", 400, "client version 1.99 is too new"),
        ("GET", "/v1.20/info", 400, "client version 1.20 is too old"),
        ("GET", "/nowhere", 404, "page not found"),
        (
            "GET",
            "/containers/nope/json",
            404,
            "No such container: nope",
        ),
        (
            "GET",
            "/images/nope/json",
            404,
            "No such image: nope:latest",
        ),
        ("GET", "/swarm", 503, "This node is not a swarm manager"),
        (
            "GET",
            "/containers/json?filters=%7B%22x%22:[%22y%22]%7D",
            400,
            "invalid filter 'x'",
        ),
        ("POST", "/build?version=3", 400, "invalid version 3"),
        ("POST", "/build?squash=1", 400, "squash"),
        ("POST", "/grpc", 400, "no upgrade proto in request"),
        ("POST", "/session", 400, "identifier"),
    ];
    for (method, path, wanted, text) in table {
        let (status, answer) = daemon.ask(method, path, "");
        assert_eq!(status, wanted, "{path}: {answer}");
        assert!(answer.contains(text), "{path}: {answer}");
    }
}

#[test]
fn unknown_key_of_a_mount_and_unsupported_option_are_refused() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    for (config, text) in [
        (r#"{"Mounts":[{"Type":"bind","Sorce":"/x"}]}"#, "Sorce"),
        (r#"{"SecurityOpt":["nope=1"]}"#, "nope=1"),
    ] {
        let body = format!(r#"{{"Image":"box","HostConfig":{config}}}"#);
        let (status, answer) = daemon.ask("POST", "/containers/create", &body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(text), "{answer}");
    }
}

#[test]
fn attach_before_start_loses_nothing_and_outlives_the_end_of_input() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.create(
        "one",
        r#"{"Image":"box","Cmd":["/bin/sh","-c","echo first; cat; echo last"],"OpenStdin":true,
            "StdinOnce":true,"HostConfig":{"NetworkMode":"none"}}"#,
    );
    let mut stream = daemon.connect();
    let head = "POST /v1.44/containers/one/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("multiplexed-stream"), "{answer}");
    assert_eq!(daemon.ask("POST", "/containers/one/start", "").0, 204);
    stream.write_all(b"typed\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut frames = Vec::new();
    stream.read_to_end(&mut frames).unwrap();
    let mut text = String::new();
    let mut rest = frames.as_slice();
    while let Some((head, tail)) = rest.split_at_checked(8) {
        assert_eq!(head[0], 1);
        let length = u32::from_be_bytes(head[4..8].try_into().unwrap()) as usize;
        text.push_str(std::str::from_utf8(&tail[..length]).unwrap());
        rest = &tail[length..];
    }
    assert_eq!(text, "first\ntyped\nlast\n");
}

#[test]
fn killed_daemon_disturbs_no_container_and_the_next_one_knows_it() {
    let Some(mut daemon) = Daemon::start() else {
        return;
    };
    daemon.create("one", SLEEPER);
    assert_eq!(daemon.ask("POST", "/containers/one/start", "").0, 204);
    assert_eq!(daemon.ask("POST", "/containers/one/start", "").0, 304);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    daemon.child = serve(&daemon.cx, &daemon.socket);
    let (_, answer) = daemon.ask("GET", "/containers/one/json", "");
    assert!(answer.contains(r#""Running":true"#), "{answer}");
    assert_eq!(daemon.ask("POST", "/containers/one/stop?t=0", "").0, 204);
    let (_, answer) = daemon.ask("GET", "/containers/one/json", "");
    assert!(answer.contains(r#""ExitCode":137"#), "{answer}");
}

#[test]
fn stock_client_runs_a_container_with_its_exit_code_and_input() {
    if Command::new("docker").arg("--version").output().is_err() {
        testkit::skip("there is no docker client");
        return;
    }
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let run = ["run", "--rm", "--network", "none"];
    let with = |rest: &[&str]| -> Vec<String> {
        run.iter()
            .chain(rest)
            .map(|&word| word.to_owned())
            .collect()
    };
    let docker = |rest: &[&str], input: &str| {
        let args = with(rest);
        daemon.docker(&args.iter().map(String::as_str).collect::<Vec<_>>(), input)
    };
    let (code, out, err) = docker(&["box", "/bin/sh", "-c", "echo o; echo e >&2; exit 42"], "");
    assert_eq!((code, out.as_str(), err.as_str()), (42, "o\n", "e\n"));
    let (code, out, err) = docker(&["-i", "box", "/bin/wc", "-c"], &"x".repeat(100_000));
    assert_eq!((code, out.trim()), (0, "100000"), "{err}");
    let (code, _, err) = docker(&["box", "/no/such"], "");
    assert_eq!(code, 127, "{err}");
}

/// A context with this Dockerfile and a file `f`.
fn context(dockerfile: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", dockerfile), ("f", "payload\n")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn build_gives_an_image_its_names_and_uses_its_cache_again() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive =
        context("FROM box\nARG V=0\nCOPY f /f\nRUN echo $V >>/f\nCMD [\"/bin/cat\", \"/f\"]\n");
    let path = "/v1.44/build?t=made:1&t=made:2&networkmode=none&buildargs=%7B%22V%22%3A%227%22%7D";
    let (status, answer) = daemon.upload(path, &archive);
    assert_eq!(status, 200, "{answer}");
    for text in [
        "Successfully built ",
        "Successfully tagged made:2",
        "sha256:",
    ] {
        assert!(answer.contains(text), "{text}: {answer}");
    }
    let (_, again) = daemon.upload(path, &archive);
    assert!(again.contains("Using cache"), "{again}");
    let ran = daemon
        .cx
        .ketch(["run", "--rm", "--network", "none", "made:1"]);
    assert_eq!(ran.stdout, "payload\n7\n", "{}", ran.stderr);
    let (status, answer) = daemon.ask("POST", "/build/prune?all=1", "");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("CachesDeleted"), "{answer}");
}

#[test]
fn failed_step_of_a_build_is_told_in_both_forms() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive = context("FROM box\nRUN exit 9\n");
    let (status, answer) = daemon.upload("/v1.44/build?t=bad&networkmode=none", &archive);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(r#""errorDetail":{"#), "{answer}");
    assert!(answer.contains("returned a non-zero code: 9"), "{answer}");
    assert_eq!(daemon.ask("GET", "/images/bad/json", "").0, 404);
    let (_, answer) = daemon.upload("/v1.44/build?dockerfile=Other", &context("FROM box\n"));
    assert!(
        answer.contains("Cannot locate specified Dockerfile: Other"),
        "{answer}"
    );
}

#[test]
fn container_that_cannot_start_and_goes_with_its_end_is_told_of_as_removed() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.create(
        "gone",
        r#"{"Image":"box","Cmd":["/no/such"],"HostConfig":{"NetworkMode":"none","AutoRemove":true}}"#,
    );
    let mut waiting = daemon.connect();
    let request = "POST /v1.44/containers/gone/wait?condition=removed HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    waiting.write_all(request.as_bytes()).unwrap();
    // The head comes before there is anything to tell.
    let mut head = [0; 12];
    waiting.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let (status, answer) = daemon.ask("POST", "/containers/gone/start", "");
    assert_eq!(status, 400, "{answer}");
    let mut rest = String::new();
    waiting.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("StatusCode"), "{rest}");
    assert_eq!(daemon.ask("GET", "/containers/gone/json", "").0, 404);
}

#[test]
fn exec_with_a_terminal_has_its_output_and_its_own_start_only_once() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.create("one", SLEEPER);
    assert_eq!(daemon.ask("POST", "/containers/one/start", "").0, 204);
    let body = r#"{"AttachStdout":true,"AttachStderr":true,"Tty":true,"Cmd":["/bin/sh","-c","test -t 1 && echo seen; exit 3"]}"#;
    let (status, answer) = daemon.ask("POST", "/v1.44/containers/one/exec", body);
    assert_eq!(status, 201, "{answer}");
    let id = answer.split('"').rev().nth(1).unwrap().to_owned();
    let path = format!("/v1.44/exec/{id}/start");
    let (status, answer) = daemon.ask("POST", &path, r#"{"Tty":true}"#);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("seen\r\n"), "{answer}");
    assert_eq!(daemon.ask("POST", &path, r#"{"Tty":true}"#).0, 409);
    let (_, answer) = daemon.ask("GET", &format!("/exec/{id}/json"), "");
    assert!(answer.contains(r#""ExitCode":3"#), "{answer}");
}

#[test]
fn container_that_is_about_to_be_started_again_counts_as_running() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.create(
        "again",
        r#"{"Image":"box","Cmd":["/bin/sh","-c","exit 1"],"HostConfig":{"NetworkMode":"none","RestartPolicy":{"Name":"always"}}}"#,
    );
    assert_eq!(daemon.ask("POST", "/containers/again/start", "").0, 204);
    let begun = Instant::now();
    loop {
        let (_, answer) = daemon.ask("GET", "/containers/again/json", "");
        if answer.contains(r#""Restarting":true"#) {
            assert!(answer.contains(r#""Running":true"#), "{answer}");
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "{answer}");
    }
    let path = "/containers/again?force=1";
    assert_eq!(daemon.ask("DELETE", path, "").0, 204);
}

#[test]
fn container_of_a_killed_monitor_gets_another_one_that_nobody_has_to_ask_for() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.create("one", SLEEPER);
    assert_eq!(daemon.ask("POST", "/containers/one/start", "").0, 204);
    let (_, answer) = daemon.ask("GET", "/containers/one/json", "");
    let id = answer.split(r#""Id":""#).nth(1).unwrap().get(..64).unwrap();
    let dir = daemon.cx.path().join("run/containers").join(id);
    let monitor = || {
        let socket = sys::socket::connect(&dir.join("ctl.sock")).ok()?;
        Some(rustix::net::sockopt::socket_peercred(&socket).unwrap().pid)
    };
    let first = monitor().unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    let begun = Instant::now();
    while monitor().is_none_or(|now| now == first) {
        assert!(begun.elapsed() < TIMEOUT);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(daemon.ask("DELETE", "/containers/one?force=1", "").0, 204);
}

#[test]
fn container_that_goes_with_its_end_is_restarted_like_others() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.create(
        "gone",
        r#"{"Image":"box","Cmd":["/bin/sleep","1000"],"HostConfig":{"NetworkMode":"none","AutoRemove":true}}"#,
    );
    assert_eq!(daemon.ask("POST", "/containers/gone/start", "").0, 204);
    assert_eq!(
        daemon.ask("POST", "/containers/gone/restart?t=0", "").0,
        204
    );
    let (_, answer) = daemon.ask("GET", "/containers/gone/json", "");
    assert!(answer.contains(r#""Running":true"#), "{answer}");
    assert_eq!(daemon.ask("DELETE", "/containers/gone?force=1", "").0, 204);
}
