//! Builds over BuildKit's protocols, by clients that people have: compose, which has buildx's client in
//! it (`POST /grpc`), and the docker command of Debian, which has the one before (`version=2`).

#![expect(clippy::unwrap_used, reason = "test code")]
#![expect(
    clippy::disallowed_methods,
    reason = "the files of a context are no state"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use testkit::{BUSYBOX, DOCKER_20, Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");
/// Nothing here takes as long.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A daemon in a sandbox with an image `box`, and a directory to build in.
struct Daemon {
    cx: Sandbox,
    child: Child,
    socket: PathBuf,
    context: PathBuf,
}

/// What a client said, standard output and error together.
struct Said {
    is_success: bool,
    text: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        Self {
            is_success: output.status.success(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }
}

impl Daemon {
    fn start(client: Need) -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox, client])?;
        let busybox = std::fs::read(BUSYBOX).unwrap();
        let programs = ["bin/sh", "bin/cat", "bin/ls", "bin/sleep", "bin/mkdir"];
        let files: Vec<(&str, &[u8], u32)> = programs
            .iter()
            .map(|name| (*name, busybox.as_slice(), 0o755))
            .collect();
        cx.image("box", &files, &[]);
        let socket = cx.path().join("api.sock");
        let child = cx
            .command()
            .args(["daemon", "--host", &format!("unix://{}", socket.display())])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < TIMEOUT, "the daemon does not listen");
            std::thread::yield_now();
        }
        let context = cx.path().join("context");
        std::fs::create_dir(&context).unwrap();
        Some(Self {
            cx,
            child,
            socket,
            context,
        })
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.context.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn client(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(&self.context)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", self.cx.path().join("docker"))
            .env("DOCKER_BUILDKIT", "1")
            .env("BUILDKIT_PROGRESS", "plain")
            // Else compose looks for buildx as another program.
            .env("COMPOSE_BAKE", "false")
            .stdin(Stdio::null());
        command
    }

    fn compose(&self, args: &[&str]) -> Said {
        let program = testkit::compose().unwrap();
        let output = self.client(program).args(args).output().unwrap();
        Said::of(&output)
    }

    fn docker(&self, args: &[&str]) -> Said {
        let output = self.client(DOCKER_20).args(args).output().unwrap();
        Said::of(&output)
    }

    /// What a program of an image prints.
    fn run(&self, image: &str, command: &[&str]) -> String {
        let mut args = vec!["run", "--rm", "--network", "none", image];
        args.extend(command);
        let run = self.cx.ketch(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
FROM box AS base
ARG WHO=nobody
RUN --mount=type=secret,id=token,required=true echo "$WHO $(cat /run/secrets/token)" > /out
COPY . /ctx
FROM base AS app
LABEL made=here
CMD ["/bin/cat", "/out"]
FROM base AS never
RUN exit 3
"#;

/// What both clients build.
fn write_context(daemon: &Daemon) {
    daemon.write("Dockerfile", DOCKERFILE);
    daemon.write(".dockerignore", "# not these\nhidden\n*.log\n!kept.log\n");
    daemon.write("hidden/file", "hidden");
    daemon.write("a.log", "log");
    daemon.write("kept.log", "log");
    daemon.write("dir/plain", "plain");
    daemon.write("token", "sesame");
    std::os::unix::fs::symlink("dir/plain", daemon.context.join("link")).unwrap();
}

fn check_image(daemon: &Daemon, image: &str) {
    assert_eq!(daemon.run(image, &[]), "world sesame\n");
    let listed = daemon.run(image, &["/bin/ls", "-A", "/ctx"]);
    let mut names: Vec<&str> = listed.split_whitespace().collect();
    names.sort_unstable();
    let mut wanted = vec![
        ".dockerignore",
        "Dockerfile",
        "compose.yaml",
        "dir",
        "kept.log",
        "link",
        "token",
    ];
    wanted.retain(|name| daemon.context.join(name).symlink_metadata().is_ok());
    assert_eq!(names, wanted);
    assert_eq!(daemon.run(image, &["/bin/cat", "/ctx/link"]), "plain");
}

const COMPOSE: &str = r"
services:
  app:
    image: made
    build:
      context: .
      target: app
      network: none
      args: {WHO: world}
      labels: {stage: app}
      secrets: [token]
  never:
    image: never
    build: {context: ., target: never, network: none, secrets: [token]}
secrets:
  token: {file: ./token}
";

#[test]
fn compose_builds_with_arguments_target_secret_and_ignore_file() {
    let Some(daemon) = Daemon::start(Need::Compose) else {
        return;
    };
    write_context(&daemon);
    daemon.write("compose.yaml", COMPOSE);
    let said = daemon.compose(&["build", "app"]);
    assert!(said.is_success, "{}", said.text);
    for text in [
        "load build definition from Dockerfile",
        "RUN --mount=type=secret",
    ] {
        assert!(said.text.contains(text), "{text}: {}", said.text);
    }
    check_image(&daemon, "made");
    let inspected = daemon.cx.ketch(["image", "inspect", "made"]).stdout;
    assert!(inspected.contains(r#""stage": "app""#), "{inspected}");

    let said = daemon.compose(&["build", "app"]);
    assert!(said.is_success, "{}", said.text);
    assert!(said.text.contains("CACHED"), "{}", said.text);
    daemon.write("dir/plain", "other");
    let said = daemon.compose(&["build", "app"]);
    assert!(said.is_success, "{}", said.text);
    assert_eq!(daemon.run("made", &["/bin/cat", "/ctx/link"]), "other");
}

#[test]
fn compose_hears_why_a_build_failed() {
    let Some(daemon) = Daemon::start(Need::Compose) else {
        return;
    };
    write_context(&daemon);
    daemon.write("compose.yaml", COMPOSE);
    let said = daemon.compose(&["build", "never"]);
    assert!(!said.is_success);
    let wanted = "did not complete successfully: exit code: 3";
    assert!(said.text.contains(wanted), "{}", said.text);

    daemon.write("Dockerfile", "FROM box\nRUNN x\n");
    let said = daemon.compose(&["build", "app"]);
    assert!(!said.is_success);
    assert!(said.text.contains("Dockerfile:2"), "{}", said.text);

    std::fs::remove_file(daemon.context.join("Dockerfile")).unwrap();
    let said = daemon.compose(&["build", "app"]);
    assert!(!said.is_success);
    assert!(
        said.text.contains("no such file or directory"),
        "{}",
        said.text
    );
}

#[test]
fn build_ends_with_its_client() {
    let Some(daemon) = Daemon::start(Need::Compose) else {
        return;
    };
    // A number that no other program has.
    let marker = format!("9{}", std::process::id());
    daemon.write(
        "Dockerfile",
        &format!("FROM box\nRUN echo begun; exec sleep {marker}\n"),
    );
    daemon.write(
        "compose.yaml",
        "services: {a: {image: made, build: {context: ., network: none}}}",
    );
    let mut client = daemon
        .client(testkit::compose().unwrap())
        .arg("build")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait(|| sleeps(&marker));
    client.kill().unwrap();
    client.wait().unwrap();
    wait(|| !sleeps(&marker));
}

/// Whether a program sleeps for so long.
fn sleeps(marker: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line == format!("sleep\0{marker}\0").as_bytes())
}

fn wait(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < TIMEOUT, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn docker_command_builds_into_the_store() {
    let Some(daemon) = Daemon::start(Need::Docker20) else {
        return;
    };
    write_context(&daemon);
    let said = daemon.docker(&[
        "build",
        "--network",
        "none",
        "--target",
        "app",
        "--build-arg",
        "WHO=world",
        "--secret",
        "id=token,src=token",
        "-t",
        "made",
        ".",
    ]);
    assert!(said.is_success, "{}", said.text);
    check_image(&daemon, "made");

    let said = daemon.docker(&["build", "--network", "none", "--target", "never", "."]);
    assert!(!said.is_success);
    assert!(
        said.text.contains("there is no secret `token`"),
        "{}",
        said.text
    );
}

#[test]
fn docker_command_gets_the_result_as_files_and_as_an_archive() {
    let Some(daemon) = Daemon::start(Need::Docker20) else {
        return;
    };
    daemon.write(
        "Dockerfile",
        "FROM scratch\nCOPY dir/plain /a/b\nCOPY link /c\n",
    );
    daemon.write("dir/plain", "plain");
    daemon.write("link", "c");
    let said = daemon.docker(&["build", "--output", "type=local,dest=out", "."]);
    assert!(said.is_success, "{}", said.text);
    let out = daemon.context.join("out");
    assert_eq!(std::fs::read(out.join("a/b")).unwrap(), b"plain");
    assert_eq!(std::fs::read(out.join("c")).unwrap(), b"c");

    let said = daemon.docker(&["build", "--output", "type=tar,dest=out.tar", "."]);
    assert!(said.is_success, "{}", said.text);
    let file = std::fs::File::open(daemon.context.join("out.tar")).unwrap();
    let mut archive = tar::Archive::new(file);
    let names: Vec<PathBuf> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    assert_eq!(
        names,
        ["a/", "a/b", "c"].map(PathBuf::from),
        "{}",
        said.text
    );
    // Neither is in the store.
    let images = daemon.cx.ketch(["images", "-q"]).stdout;
    assert_eq!(images.lines().count(), 1, "{images}");
}

#[test]
fn docker_command_sends_an_archive_as_context() {
    let Some(daemon) = Daemon::start(Need::Docker20) else {
        return;
    };
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", "FROM box\nCOPY f /f\n"), ("f", "payload")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    let mut child = daemon
        .client(DOCKER_20)
        .args(["build", "-t", "made", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&archive.into_inner().unwrap()).unwrap();
    drop(input);
    let said = Said::of(&child.wait_with_output().unwrap());
    assert!(said.is_success, "{}", said.text);
    assert_eq!(daemon.run("made", &["/bin/cat", "/f"]), "payload");
}

#[test]
fn upgrades_are_refused_without_what_they_need() {
    let Some(daemon) = Daemon::start(Need::Root) else {
        return;
    };
    for (path, headers, status) in [
        ("/grpc", "", "400"),
        (
            "/grpc",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "400",
        ),
        ("/session", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "400"),
        ("/grpc", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "101"),
    ] {
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        write!(stream, "POST {path} HTTP/1.1\r\nHost: d\r\n{headers}\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.ends_with(status), "{path} {headers}: {answer}");
    }
}
