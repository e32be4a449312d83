//! Further programs in running containers, and streams that are joined later.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

/// A sandbox with a container `c` that runs and sleeps.
fn with_container(options: &[&str]) -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let files = [
        ("args", guest!("args.x86_64"), 0o755),
        ("echo", guest!("echo.x86_64"), 0o755),
        ("files", guest!("files.x86_64"), 0o755),
        ("sleep", guest!("sleep.x86_64"), 0o755),
        ("plain.txt", b"no program\n".as_slice(), 0o644),
        (
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\n".as_slice(),
            0o644,
        ),
    ];
    cx.image("guests", &files, &["ENV COLOUR=blue"]);
    let mut args = vec!["run", "-d", "--name", "sleeper"];
    args.extend_from_slice(options);
    args.extend(["guests", "/sleep", "1000"]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    Some(cx)
}

fn remove(cx: &Sandbox) {
    assert_eq!(cx.ketch(["rm", "-f", "sleeper"]).code, 0);
}

#[test]
fn program_has_the_containers_environment_and_gives_its_exit_code() {
    let Some(cx) = with_container(&["-e", "SIZE=big"]) else {
        return;
    };
    let run = cx.ketch(["exec", "-e", "SIZE=small", "sleeper", "/args", "7", "-e"]);
    assert_eq!((run.code, run.stderr.as_str()), (7, ""));
    for line in [
        "arg 2: -e",
        "env: COLOUR=blue",
        "env: SIZE=small",
        "env: HOME=/root",
    ] {
        assert!(run.stdout.contains(line), "{line} in {}", run.stdout);
    }
    let other = cx.ketch(["exec", "-u", "me", "sleeper", "/args"]);
    assert!(
        other.stdout.contains("env: HOME=/home/me"),
        "{}",
        other.stdout
    );
    remove(&cx);
}

#[test]
fn program_stands_beside_the_containers_own_without_descriptors_of_the_caller() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    let init = cx.ketch(["exec", "sleeper", "/files", "read", "/proc/1/cmdline"]);
    assert!(init.stdout.contains("/sleep"), "{}", init.stdout);
    let listed = cx.ketch(["exec", "sleeper", "/files", "list", "/proc/self/fd"]);
    let mut words = listed.stdout.split_whitespace();
    // 3 is the directory that is being read.
    let stranger = words.find(|word| word.parse::<u32>().is_ok_and(|number| number > 3));
    assert_eq!(stranger, None, "{}", listed.stdout);
    remove(&cx);
}

#[test]
fn missing_program_is_127_one_that_cannot_run_126_and_a_stopped_container_refused() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    assert_eq!(cx.ketch(["exec", "sleeper", "/nothing"]).code, 127);
    assert_eq!(cx.ketch(["exec", "-d", "sleeper", "/nothing"]).code, 127);
    assert_eq!(cx.ketch(["exec", "sleeper", "/plain.txt"]).code, 126);
    let nowhere = cx.ketch(["exec", "-w", "/nowhere", "sleeper", "/args"]);
    assert_eq!(nowhere.code, 125);
    assert!(nowhere.stderr.contains("`/nowhere`"), "{}", nowhere.stderr);
    assert_eq!(
        cx.ketch(["exec", "-u", "nobody", "sleeper", "/args"]).code,
        125
    );
    assert_eq!(cx.ketch(["stop", "-t", "0", "sleeper"]).code, 0);
    let run = cx.ketch(["exec", "sleeper", "/args"]);
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("container `sleeper` is not running"),
        "{}",
        run.stderr
    );
    remove(&cx);
}

#[test]
fn wasm_container_has_no_processes_to_execute() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let files = [("app.wasm", guest!("sleep.wasm"), 0o644)];
    cx.image("app", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
    let run = cx.ketch(["run", "-d", "--name", "sleeper", "app", "1000"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = cx.ketch(["exec", "sleeper", "/args"]);
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("wasm container") && run.stderr.contains("hint:"),
        "{}",
        run.stderr
    );
    remove(&cx);
}

/// More than every pipe and buffer between here and the program.
const MUCH: usize = 8 << 20;

fn echoed(mut command: Command) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&vec![b'x'; MUCH]));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn input_larger_than_all_buffers_comes_back_whole() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    for args in [
        ["exec", "-i", "sleeper", "/echo"].as_slice(),
        ["run", "-i", "--rm", "guests", "/echo"].as_slice(),
    ] {
        let mut command = cx.command();
        command.args(args);
        let run = echoed(command);
        assert_eq!((run.code, run.stdout.len()), (0, MUCH), "{}", run.stderr);
    }
    remove(&cx);
}

#[test]
fn closed_standard_output_ends_the_client() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    let mut child = cx
        .command()
        .args(["exec", "-i", "sleeper", "/echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"nobody reads this\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    remove(&cx);
}

/// The caller's terminal.
struct Terminal {
    master: File,
    slave: OwnedFd,
}

impl Terminal {
    fn new(rows: u16, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        Self {
            master: File::from(master),
            slave,
        }
    }

    fn stdio(&self) -> Stdio {
        Stdio::from(self.slave.try_clone().unwrap())
    }

    /// Reads until `text` has come.
    fn expect(&mut self, text: &str) {
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let length = self.master.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..length]);
        }
    }
}

#[test]
fn terminal_carries_lines_and_the_end_of_input() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    for args in [
        ["exec", "-it", "sleeper", "/echo"].as_slice(),
        ["run", "-it", "--rm", "guests", "/echo"].as_slice(),
    ] {
        let mut terminal = Terminal::new(33, 99);
        let mut child = cx
            .command()
            .args(args)
            .stdin(terminal.stdio())
            .stdout(terminal.stdio())
            .stderr(terminal.stdio())
            .spawn()
            .unwrap();
        terminal.master.write_all(b"ahoy\n").unwrap();
        // Once by the container's terminal, once by the program.
        terminal.expect("ahoy\r\nahoy\r\n");
        terminal.master.write_all(&[4]).unwrap();
        terminal.expect("5 bytes");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    remove(&cx);
}

#[test]
fn interrupt_at_the_terminal_ends_the_program() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    let mut terminal = Terminal::new(24, 80);
    let mut child = cx
        .command()
        .args(["exec", "-it", "sleeper", "/sleep", "1000"])
        .stdin(terminal.stdio())
        .stdout(terminal.stdio())
        .stderr(terminal.stdio())
        .spawn()
        .unwrap();
    terminal.expect("sleep: 1000");
    terminal.master.write_all(&[3]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    remove(&cx);
}

#[test]
fn signal_to_the_client_reaches_the_program_after_its_output_is_closed() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    let mut child = cx
        .command()
        .args(["exec", "sleeper", "/sleep", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    drop(child.stdout.take());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    remove(&cx);
}

#[test]
fn started_container_is_joined_and_gives_its_exit_code() {
    let Some(cx) = with_container(&[]) else {
        return;
    };
    let create = ["create", "-i", "--name", "again", "guests", "/echo"];
    assert_eq!(cx.ketch(create).code, 0);
    for text in [b"one".as_slice(), b"two"] {
        let run = cx.ketch_with_input(["start", "-ai", "again"], text);
        assert_eq!(
            (run.code, run.stdout.as_bytes()),
            (0, text),
            "{}",
            run.stderr
        );
    }
    assert_eq!(cx.ketch(["start", "again"]).code, 0);
    let run = cx.ketch_with_input(["attach", "again"], b"three");
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "three"),
        "{}",
        run.stderr
    );
    assert_eq!(cx.ketch(["attach", "again"]).code, 125);
    assert_eq!(cx.ketch(["rm", "again"]).code, 0);
    remove(&cx);
}
