//! Guests in the wasm host as a process: descriptors, streams, signals, exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use runtime::detect::BinaryKind;
use runtime_wasm::compile::compile;
use runtime_wasm::engine::{Profile, engine};
use runtime_wasm::{RootAccess, WasmSpec};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Puts descriptors 3 and 4 where the container's init would.
const INIT: &str = r#"exec "$0" 3<"$1" 4<"$2""#;

/// A host that is about to run; the directory goes when the test has ended.
fn host(text: &str, adapt: impl FnOnce(&mut WasmSpec)) -> (Command, TempDir) {
    let bytes = wat::parse_str(text).unwrap();
    let engine = engine(Profile::COMMAND).unwrap();
    let compiled = compile(&engine, &bytes, None).unwrap();
    let mut spec = WasmSpec::new(BinaryKind::CoreModule, vec!["/app.wasm".to_owned()]);
    spec.root = RootAccess::ReadOnly;
    spec.kind = compiled.info.kind;
    adapt(&mut spec);
    start(&spec.encode().unwrap(), &compiled.artifact)
}

fn start(spec: &[u8], artifact: &[u8]) -> (Command, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    let (spec, artifact) = (write("spec", spec), write("artifact", artifact));
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", INIT, env!("CARGO_BIN_EXE_ketch-wasm-host")])
        .args([spec, artifact])
        .env_clear()
        .stdin(Stdio::null());
    (command, dir)
}

fn output(text: &str) -> Output {
    let (mut command, _dir) = host(text, |_| ());
    command.output().unwrap()
}

const STREAMS: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read"
      (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write"
      (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\40\00\00\00\06\00\00\00")
    (data (i32.const 64) "ready\n")
    (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))))"#;

fn guest(body: &str) -> String {
    format!("(module {STREAMS} (func (export \"_start\") {body}))")
}

#[test]
fn guest_with_output_and_code_is_seen_outside() {
    let output = output(&guest("(call $ready) (call $exit (i32.const 201))"));
    assert_eq!(output.status.code(), Some(201));
    assert_eq!(output.stdout, b"ready\n");
    assert_eq!(output.stderr, b"");
}

#[test]
fn stdin_that_ends_is_copied_whole() {
    // One buffer of 1000 bytes at 1024, described at 0.
    let copy = guest(
        "(i32.store (i32.const 0) (i32.const 1024))
         (loop $more
           (i32.store (i32.const 4) (i32.const 1000))
           (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 32))
             (then unreachable))
           (if (i32.eqz (i32.load (i32.const 32))) (then (call $exit (i32.const 0))))
           (i32.store (i32.const 4) (i32.load (i32.const 32)))
           (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))
             (then unreachable))
           (br $more))",
    );
    let (mut command, _dir) = host(&copy, |_| ());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut input = child.stdin.take().unwrap();
    let to_send = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(&to_send).unwrap());
    let mut received = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut received)
        .unwrap();
    writer.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(received == sent);
}

#[test]
fn exit_while_stdin_stays_open_does_not_wait() {
    let ask_and_exit = guest(
        "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 1))
         (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 32)))
         (call $exit (i32.const 3))",
    );
    let (mut command, _dir) = host(&ask_and_exit, |_| ());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"x").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    drop(input);
}

/// Starts a guest that says it is ready and then does this, and returns when it has said so.
fn ready(body: &str) -> (Child, TempDir) {
    let (mut command, dir) = host(&guest(&format!("(call $ready) {body}")), |_| ());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    (child, dir)
}

#[test]
fn signal_ends_a_guest_at_once_with_its_number() {
    let spin = "(loop $l (br $l))";
    let block = "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 1))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 32)))";
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
        for body in [spin, block] {
            let (mut child, _dir) = ready(body);
            let pid = Pid::from_child(&child);
            kill_process(pid, signal).unwrap();
            let status = child.wait().unwrap();
            // An exit code, not a death by signal: PID 1 would survive the default action.
            assert_eq!(status.code(), Some(128 + signal.as_raw()), "{signal:?}");
        }
    }
}

#[test]
fn trap_is_134_with_name_and_backtrace_on_stderr() {
    let output = output(&guest("(call $ready) unreachable"));
    assert_eq!(output.status.code(), Some(134));
    assert_eq!(output.stdout, b"ready\n");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with(
            "ketch: wasm trap: wasm `unreachable` instruction executed\nwasm backtrace:\n"
        ),
        "{text}"
    );
}

#[test]
fn memory_without_end_is_137_and_recursion_without_end_134() {
    let grow = guest("(loop (drop (memory.grow (i32.const 64))) (br 0))");
    let (mut command, _dir) = host(&grow, |spec| spec.limits.memory_bytes = Some(32 << 20));
    let found = command.output().unwrap();
    assert_eq!(found.status.code(), Some(137));
    assert!(found.stderr.starts_with(b"ketch: out of memory: "));

    let recurse = r#"(module (func $f (export "_start") (call $f) (call $f)))"#;
    let found = output(recurse);
    assert_eq!(found.status.code(), Some(134));
    assert!(
        found
            .stderr
            .starts_with(b"ketch: wasm trap: call stack exhausted\n")
    );
}

#[test]
fn host_without_its_descriptors_says_so() {
    let host = env!("CARGO_BIN_EXE_ketch-wasm-host");
    let output = Command::new("/bin/sh")
        .args(["-c", r#"exec "$0" 3<&- 4<&-"#, host])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("ketch: cannot read the wasm container's spec: "),
        "{text}"
    );
}

#[test]
fn artifact_of_another_engine_is_refused_with_the_reason() {
    let spec = WasmSpec::new(BinaryKind::CoreModule, Vec::new());
    let foreign = std::fs::read(Path::new("/proc/self/exe")).unwrap();
    let (mut command, _dir) = start(&spec.encode().unwrap(), &foreign);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("ketch: the compiled module does not fit this engine"),
        "{text}"
    );
}
