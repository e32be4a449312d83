//! Daemons of these tests, and raw requests to them.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::{BUSYBOX, Need, Run, Sandbox};

pub(crate) const KETCH: &str = env!("CARGO_BIN_EXE_ketch");
/// Nothing here takes as long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const SLEEPER: &str =
    r#"{"Image":"box","Cmd":["/bin/sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#;

/// A sandbox with an image `box`.
pub(crate) fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    let busybox = std::fs::read(BUSYBOX).unwrap();
    let programs = [
        "bin/sh",
        "bin/cat",
        "bin/echo",
        "bin/sleep",
        "bin/wc",
        "bin/ls",
    ];
    let files: Vec<(&str, &[u8], u32)> = programs
        .iter()
        .map(|name| (*name, busybox.as_slice(), 0o755))
        .collect();
    cx.image("box", &files, &[]);
    Some(cx)
}

/// A daemon with the full socket `api.sock` in its sandbox, and what else it is told.
pub(crate) struct Daemon {
    pub(crate) cx: Sandbox,
    child: Child,
    args: Vec<String>,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Collects what a daemon prints.
fn collect(child: &mut Child, lines: &Arc<Mutex<Vec<String>>>) {
    let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(lines));
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

impl Daemon {
    pub(crate) fn start(args: &[&str]) -> Option<Self> {
        Some(Self::in_sandbox(sandbox()?, args))
    }

    pub(crate) fn in_sandbox(cx: Sandbox, args: &[&str]) -> Self {
        let socket = format!("unix://{}", cx.path().join("api.sock").display());
        let mut all = vec!["daemon".to_owned(), "--host".to_owned(), socket];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let lines = Arc::default();
        let child = spawn(&cx, &all, &lines);
        let daemon = Self {
            cx,
            child,
            args: all,
            lines,
        };
        daemon.until_ready();
        daemon
    }

    fn until_ready(&self) {
        until("the daemon listens", || {
            UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// Kills it, and starts another one.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.cx, &self.args, &self.lines);
        self.until_ready();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.cx.path().join("api.sock")
    }

    /// What follows `prefix` in a line that it has printed.
    pub(crate) fn printed(&self, prefix: &str) -> String {
        let find = || {
            let lines = self.lines.lock().unwrap();
            lines
                .iter()
                .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        };
        until(prefix, || find().is_some());
        find().unwrap()
    }

    /// The first line of its log that fits.
    pub(crate) fn logged(&self, fits: impl Fn(&str) -> bool) -> String {
        let find = || {
            let lines = self.lines.lock().unwrap();
            lines.iter().find(|line| fits(line)).cloned()
        };
        until("a line of the log", || find().is_some());
        find().unwrap()
    }

    /// Asks at its full socket.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        ask(&self.socket(), method, path, body)
    }

    pub(crate) fn ketch(&self, args: &[&str]) -> Run {
        self.cx.ketch(args)
    }

    /// Makes a socket that allows a part, and gives where it is.
    pub(crate) fn scoped(&self, args: &[&str]) -> PathBuf {
        let run = self.ketch(&[&["socket", "create"], args].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        PathBuf::from(run.stdout.trim())
    }

    /// Creates a sleeper and starts it; gives its id.
    pub(crate) fn sleeper(&self, name: &str, labels: &str) -> String {
        let body = format!(r#"{{"Labels":{labels},{}"#, SLEEPER.get(1..).unwrap());
        let path = format!("/v1.44/containers/create?name={name}");
        let (status, answer) = self.ask("POST", &path, &body);
        assert_eq!(status, 201, "{answer}");
        let (status, answer) = self.ask("POST", &format!("/containers/{name}/start"), "");
        assert_eq!(status, 204, "{answer}");
        self.ketch(&["inspect", "--format", "{{.Id}}", name])
            .stdout
            .trim()
            .to_owned()
    }
}

fn spawn(cx: &Sandbox, args: &[String], lines: &Arc<Mutex<Vec<String>>>) -> Child {
    let mut command = cx.command();
    let mut child = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
    collect(&mut child, lines);
    child
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

/// Waits until something is so.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < TIMEOUT, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A request whose answer is read to its end.
pub(crate) fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Status and answer.
pub(crate) fn answered(stream: &mut (impl Read + Write), request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    answered(&mut stream, &request(method, path, body))
}

/// Runs a program that must succeed; gives its output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
