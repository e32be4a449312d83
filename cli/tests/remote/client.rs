//! This program as a client: of its own daemon, and of Docker's.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::{Need, Registry, Run, Sandbox};

use crate::support::{Daemon, KETCH, run, sandbox, until};

/// Something that speaks Docker's API, with an image `box` whose programs are busybox.
struct Engine<'a> {
    cx: &'a Sandbox,
    host: String,
}

impl Engine<'_> {
    fn ketch(&self, args: &[&str]) -> Run {
        self.cx.ketch([&["-H", &self.host], args].concat())
    }

    fn with_input(&self, args: &[&str], input: &[u8]) -> Run {
        self.cx
            .ketch_with_input([&["-H", &self.host], args].concat(), input)
    }

    fn ok(&self, args: &[&str]) -> String {
        let run = self.ketch(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }
}

/// What must be the same at every engine.
fn commands_work(engine: &Engine<'_>) {
    let ok = |args: &[&str]| engine.ok(args);
    // Streams, exit codes, input.
    let done = engine.ketch(&[
        "run",
        "--rm",
        "--network",
        "none",
        "box",
        "/bin/sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    let done = engine.with_input(
        &[
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "box",
            "/bin/wc",
            "-c",
        ],
        b"12345",
    );
    assert_eq!((done.code, done.stdout.trim()), (0, "5"), "{}", done.stderr);
    let done = engine.ketch(&[
        "run",
        "--rm",
        "-t",
        "--network",
        "none",
        "box",
        "/bin/echo",
        "tty",
    ]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "tty\r\n"),
        "{}",
        done.stderr
    );
    let done = engine.ketch(&["run", "--rm", "--network", "none", "box", "/no/such"]);
    assert_eq!(done.code, 127, "{}", done.stderr);
    let done = engine.ketch(&["run", "--rm", "--pull", "never", "nowhere:1"]);
    assert_eq!(done.code, 125, "{}", done.stderr);
    // A life.
    let id = ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-l",
        "k=v",
        "-e",
        "A=b",
        "--network",
        "none",
        "box",
        "/bin/sh",
        "-c",
        "echo begun; trap 'exit 3' TERM; while :; do sleep 0.1; done",
    ]);
    let id = id.trim();
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(
        ok(&[
            "ps",
            "--filter",
            "label=k=v",
            "--format",
            "{{.Names}} {{.Image}} {{.State}}"
        ]),
        "one box running\n"
    );
    assert_eq!(ok(&["ps", "-q"]).trim(), &id[..12]);
    assert_eq!(
        ok(&["inspect", "--format", "{{.Id}} {{.State.Running}}", "one"]),
        format!("{id} true\n")
    );
    until("the log has it", || ok(&["logs", "one"]) == "begun\n");
    let done = engine.ketch(&["exec", "one", "/bin/sh", "-c", "echo $A; exit 5"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (5, "b\n"),
        "{}",
        done.stderr
    );
    let done = engine.with_input(&["exec", "-i", "one", "/bin/cat"], b"fed");
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "fed"),
        "{}",
        done.stderr
    );
    assert!(ok(&["top", "one"]).contains("PID"));
    let line = ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.MemUsage}}",
        "one",
    ]);
    assert!(line.starts_with("one ") && line.contains(" / "), "{line}");
    copies(engine);
    assert_eq!(ok(&["stop", "one"]), "one\n");
    assert_eq!(ok(&["wait", "one"]), "3\n");
    assert_eq!(ok(&["start", "one"]), "one\n");
    assert_eq!(ok(&["kill", "one"]), "one\n");
    until("it has ended", || {
        ok(&["inspect", "--format", "{{.State.Running}}", "one"]) == "false\n"
    });
    assert_eq!(ok(&["rename", "one", "two"]), "");
    assert_eq!(ok(&["rm", "two"]), "two\n");
    let gone = engine.ketch(&["inspect", "two"]);
    assert_eq!(gone.code, 1);
    assert!(
        gone.stderr.contains("no such object: two"),
        "{}",
        gone.stderr
    );
    // Images, volumes.
    assert_eq!(ok(&["tag", "box", "other:1"]), "");
    assert_eq!(
        ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "other"]),
        "other:1\n"
    );
    assert!(ok(&["rmi", "other:1"]).contains("Untagged: other:1"));
    assert_eq!(ok(&["volume", "create", "--label", "a=b", "vol"]), "vol\n");
    assert_eq!(
        ok(&["volume", "ls", "-q", "--filter", "label=a=b"]),
        "vol\n"
    );
    assert_eq!(ok(&["volume", "rm", "vol"]), "vol\n");
    assert!(ok(&["network", "ls", "--format", "{{.Name}}"]).contains("none\n"));
    builds(engine);
    registry_gets_and_gives(engine);
    let events = ok(&[
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ]);
    assert!(events.lines().any(|line| line == "start"), "{events}");
    let version = ok(&["version", "--format", "{{.Client.Version}} {{.Server.Os}}"]);
    assert!(version.ends_with(" linux\n"), "{version}");
    assert!(ok(&["info"]).contains("ServerVersion: "));
    let refused = engine.ketch(&["wasm", "x.wasm"]);
    assert!(
        refused.stderr.contains("is not available at a daemon"),
        "{}",
        refused.stderr
    );
}

/// An image goes to a registry and comes back.
fn registry_gets_and_gives(engine: &Engine<'_>) {
    let Some(registry) = Registry::start(&engine.cx.path().join("registry")) else {
        return;
    };
    let name = format!("{}/box:1", registry.host);
    engine.ok(&["tag", "box", &name]);
    assert!(engine.ok(&["push", &name]).ends_with(&format!("{name}\n")));
    engine.ok(&["rmi", &name]);
    assert_ne!(engine.ketch(&["inspect", "--type", "image", &name]).code, 0);
    engine.ok(&["pull", "-q", &name]);
    let pulled = engine.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        &name,
        "/bin/echo",
        "here",
    ]);
    assert_eq!(pulled, "here\n");
    let missing = format!("{}/none:1", registry.host);
    assert_ne!(engine.ketch(&["pull", &missing]).code, 0);
    engine.ok(&["rmi", &name]);
}

/// Files go there and come back.
fn copies(engine: &Engine<'_>) {
    let dir = engine.cx.path().join("copied");
    std::fs::create_dir(&dir).unwrap();
    let file = |name: &str| dir.join(name);
    sys::durable::create_file(&file("a"), b"content", 0o644).unwrap();
    std::fs::create_dir(file("tree")).unwrap();
    sys::durable::create_file(&file("tree/leaf"), b"green", 0o644).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    engine.ok(&["cp", "-q", &text(&file("a")), "one:/b"]);
    engine.ok(&["cp", "-q", &text(&file("tree")), "one:/t"]);
    assert_eq!(
        engine.ok(&["exec", "one", "/bin/cat", "/b", "/t/leaf"]),
        "contentgreen"
    );
    engine.ok(&["cp", "-q", "one:/t", &text(&file("back"))]);
    assert_eq!(std::fs::read(file("back/leaf")).unwrap(), b"green");
    engine.ok(&["cp", "-q", "one:/b", &text(&file("tree"))]);
    assert_eq!(std::fs::read(file("tree/b")).unwrap(), b"content");
    let missing = engine.ketch(&["cp", "one:/no", &text(&dir)]);
    assert_eq!(missing.code, 1, "{}", missing.stderr);
    std::fs::remove_dir_all(dir).unwrap();
}

fn builds(engine: &Engine<'_>) {
    let dir = engine.cx.path().join("context");
    std::fs::create_dir(&dir).unwrap();
    for (name, content) in [
        (
            "Dockerfile",
            "FROM box\nARG V\nCOPY . /in/\nRUN echo $V >/v\nCMD [\"/bin/cat\", \"/v\", \"/in/kept\"]\n",
        ),
        (".dockerignore", "secret\n"),
        ("kept", "kept"),
        ("secret", "secret"),
    ] {
        sys::durable::create_file(&dir.join(name), content.as_bytes(), 0o644).unwrap();
    }
    let path = dir.to_str().unwrap();
    let built = engine.ketch(&[
        "build",
        "-t",
        "made:1",
        "--network",
        "none",
        "--build-arg",
        "V=7",
        path,
    ]);
    assert_eq!(built.code, 0, "{}{}", built.stdout, built.stderr);
    let done = engine.ketch(&["run", "--rm", "--network", "none", "made:1"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "7\nkept"),
        "{}",
        done.stderr
    );
    let done = engine.ketch(&[
        "run",
        "--rm",
        "--network",
        "none",
        "made:1",
        "/bin/ls",
        "/in",
    ]);
    assert!(!done.stdout.contains("secret"), "{}", done.stdout);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn own_daemon_is_served_as_docker_is() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let host = format!("unix://{}", daemon.socket().display());
    commands_work(&Engine {
        cx: &daemon.cx,
        host,
    });
}

/// A Docker daemon of our own, with its own state and without networks.
struct Dockerd(Child);

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn dockers_daemon_is_a_remote_engine_like_any_other() {
    let Some(cx) = sandbox() else { return };
    let Some(dir) = Sandbox::new(KETCH, &[Need::Root, Need::Docker]) else {
        return;
    };
    let host = format!("unix://{}/docker.sock", dir.path().display());
    let option = |name: &str| format!("--{name}={}/{name}", dir.path().display());
    let child = Command::new("dockerd")
        .args([option("data-root"), option("exec-root"), option("pidfile")])
        .arg(format!("--host={host}"))
        .args(["--bridge=none", "--iptables=false", "--storage-driver=vfs"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _dockerd = Dockerd(child);
    let engine = Engine { cx: &cx, host };
    until("dockerd answers", || engine.ketch(&["version"]).code == 0);
    let archive = cx.path().join("box.tar");
    let archive = archive.to_str().unwrap();
    let saved = cx.ketch(["save", "-o", archive, "box"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    assert!(engine.ok(&["load", "-i", archive]).contains("Loaded image"));
    commands_work(&engine);
}

#[test]
fn context_names_a_daemon_until_another_one_is_used() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let docker = daemon.cx.path().join("docker");
    let ketch = |args: &[&str]| {
        let output = daemon
            .cx
            .command()
            .args(args)
            .env("DOCKER_CONFIG", &docker)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let host = format!("host=unix://{}", daemon.socket().display());
    let (code, _, stderr) = ketch(&[
        "context",
        "create",
        "--description",
        "mine",
        "--docker",
        &host,
        "mine",
    ]);
    assert_eq!(code, 0, "{stderr}");
    // Docker's own command finds it.
    let listed = Command::new("docker")
        .args(["context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}}"])
        .env("DOCKER_CONFIG", &docker)
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let address = host.strip_prefix("host=").unwrap();
    assert!(listed.contains(&format!("mine {address}")), "{listed}");
    let (_, version, _) = ketch(&["-c", "mine", "version"]);
    assert!(version.contains("daemon at unix://"), "{version}");
    assert_eq!(ketch(&["context", "use", "mine"]).0, 0);
    let (_, version, _) = ketch(&["version"]);
    assert!(version.contains("daemon at unix://"), "{version}");
    // What is said closer is stronger.
    let (_, version, _) = ketch(&["-H", "local", "version"]);
    assert!(!version.contains("daemon at"), "{version}");
    let (code, _, stderr) = ketch(&["context", "rm", "mine"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is the one that is used"), "{stderr}");
    let exported = daemon.cx.path().join("mine.tar");
    let exported = exported.to_str().unwrap();
    assert_eq!(ketch(&["context", "export", "mine", exported]).0, 0);
    assert_eq!(ketch(&["context", "import", "again", exported]).0, 0);
    let (_, shown, _) = ketch(&[
        "context",
        "inspect",
        "--format",
        "{{.Endpoints.docker.Host}}",
        "again",
    ]);
    assert_eq!(shown.trim(), address);
    assert_eq!(ketch(&["context", "use", "default"]).0, 0);
    let (_, version, _) = ketch(&["version"]);
    assert!(!version.contains("daemon at"), "{version}");
    assert_eq!(ketch(&["context", "rm", "mine", "again"]).0, 0);
}

#[test]
fn dial_stdio_is_a_connection_with_an_end_of_input() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let host = format!("unix://{}", daemon.socket().display());
    let mut child = daemon
        .cx
        .command()
        .args(["-H", &host, "system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"OK") {
        let mut buffer = [0; 1024];
        let count = output.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    // The daemon hears that nothing more comes, and hangs up.
    drop(input);
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    assert!(child.wait().unwrap().success());
}

/// A real server of ssh on a port of the loopback address, for this user and a key of its own.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    fn start(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name).display().to_string();
        for name in ["host", "user"] {
            run(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-f", &file(name)],
            );
        }
        std::fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("/usr/sbin/sshd")
            .args([
                "-D",
                "-e",
                "-f",
                "/dev/null",
                "-h",
                &file("host"),
                "-p",
                &port.to_string(),
            ])
            .args([
                "-o",
                "ListenAddress=127.0.0.1",
                "-o",
                "StrictModes=no",
                "-o",
                "UsePAM=no",
            ])
            .args(["-o", "PermitRootLogin=yes", "-o", "PidFile=none"])
            .arg("-o")
            .arg(format!("AuthorizedKeysFile={}", file("authorized")))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { child, port };
        until("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn daemon_behind_ssh_is_reached_by_its_host_name() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    if !Path::new("/usr/sbin/sshd").exists() {
        return testkit::skip("needs sshd");
    }
    std::fs::create_dir_all("/run/sshd").unwrap();
    let dir = daemon.cx.path().join("ssh");
    std::fs::create_dir(&dir).unwrap();
    let sshd = Sshd::start(&dir);
    // The client's own configuration: its key, and the program of these tests at the other side.
    let programs = dir.join("bin");
    std::fs::create_dir(&programs).unwrap();
    let key = dir.join("user").display().to_string();
    let ssh = format!(
        "#!/bin/sh\nexec /usr/bin/ssh -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o SetEnv=X=1 \"$@\"\n"
    );
    sys::durable::create_file(&programs.join("ssh"), ssh.as_bytes(), 0o755).unwrap();
    let host = format!(
        "ssh://root@127.0.0.1:{}{}",
        sshd.port,
        daemon.socket().display()
    );
    let output = daemon
        .cx
        .command()
        .args([
            "-H",
            &host,
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "box",
            "/bin/echo",
            "far",
        ])
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "far\n", "{text}");
}
