//! Guests in this process: what needs neither standard streams nor PID 1.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use runtime::detect::BinaryKind;

use crate::compile::compile;
use crate::engine::{Profile, Serving, engine};
use crate::host::{Ending, Outcome, run};
use crate::spec::{Entry, GuestRoot, RootAccess, WasmSpec};

const PAGE: u64 = 64 << 10;

/// Compiles, as the worker does, and runs, as the wasm host does.
fn run_in(root: &Path, text: &str, adapt: impl FnOnce(&mut WasmSpec)) -> Outcome {
    let bytes = wat::parse_str(text).unwrap();
    let mut spec = WasmSpec::new(BinaryKind::CoreModule, vec!["/app.wasm".to_owned()]);
    adapt(&mut spec);
    let invoke = match &spec.entry {
        Entry::Export(name) => Some(name.as_str()),
        _ => None,
    };
    let engine = engine(Profile::new(Serving::Command, spec.metering)).unwrap();
    let compiled = compile(&engine, &bytes, invoke).unwrap();
    spec.guest_root = GuestRoot::Path(root.to_str().unwrap().to_owned());
    spec.kind = compiled.info.kind;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("artifact");
    let mut artifact = File::create(&path).unwrap();
    artifact.write_all(&compiled.artifact).unwrap();
    let file = File::open(&path).unwrap();
    run(&spec, file, || Ok(()), |outcome| outcome).unwrap()
}

fn outcome(text: &str, adapt: impl FnOnce(&mut WasmSpec)) -> Outcome {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path(), text, adapt)
}

fn code(text: &str) -> u8 {
    outcome(text, |_| ()).code
}

/// A module whose `_start` has this body, with preview 1's functions imported.
fn module(body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "args_sizes_get"
            (func $args_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_sizes_get"
            (func $environ_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get"
            (func $environ (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_prestat_get"
            (func $prestat (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
            (func $prestat_name (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_unlink_file"
            (func $unlink (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_rename"
            (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_link"
            (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_symlink"
            (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_create_directory"
            (func $mkdir (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_filestat_set_times"
            (func $times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 1024) "filenew..")
          (func $recurse (param i32) (result i32)
            (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
          (func (export "_start") {body}))"#
    )
}

#[test]
fn exit_codes_are_the_guest_s_own() {
    let rows = [
        (0, 0),
        (1, 1),
        (125, 125),
        (126, 126),
        (200, 200),
        (255, 255),
        (300, 44),
        (-1, 255),
    ];
    for (asked, expected) in rows {
        let text = module(&format!("(call $exit (i32.const {asked}))"));
        assert_eq!(code(&text), expected, "proc_exit({asked})");
    }
    assert_eq!(code(&module("nop")), 0);
}

#[test]
fn traps_end_with_134_and_their_name() {
    let rows = [
        (
            "unreachable",
            "wasm trap: wasm `unreachable` instruction executed",
        ),
        (
            "(drop (i32.load (i32.const -8)))",
            "wasm trap: out of bounds memory access",
        ),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "wasm trap: integer divide by zero",
        ),
        (
            "(drop (call $recurse (i32.const 0)))",
            "wasm trap: call stack exhausted",
        ),
    ];
    for (body, expected) in rows {
        let outcome = outcome(&module(body), |_| ());
        assert_eq!(outcome.code, 134, "{body}");
        let Ending::Trapped { name, backtrace } = &outcome.ending else {
            panic!("{outcome:?}");
        };
        assert_eq!(name, expected);
        assert!(backtrace.lines().count() <= 64, "{backtrace}");
    }
}

#[test]
fn trap_message_has_a_demangled_backtrace() {
    let text = r#"(module $app
        (func $_ZN4core9panicking5panic17h0123456789abcdefE unreachable)
        (func $main (export "_start")
          (call $_ZN4core9panicking5panic17h0123456789abcdefE)))"#;
    let message = outcome(text, |_| ()).message();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(
        lines[0],
        "ketch: wasm trap: wasm `unreachable` instruction executed"
    );
    assert_eq!(lines[1], "wasm backtrace:");
    assert!(lines[2].contains("app!core::panicking::panic"), "{message}");
    assert!(lines[3].contains("app!main"), "{message}");
    assert_eq!(lines.len(), 4, "{message}");
}

#[test]
fn guest_that_allocates_without_end_is_out_of_memory() {
    let body = "(loop (drop (memory.grow (i32.const 16))) (br 0))";
    let limited = |spec: &mut WasmSpec| spec.limits.memory_bytes = Some(64 * PAGE);
    let result = outcome(&module(body), limited);
    assert_eq!(result.code, 137);
    assert!(matches!(result.ending, Ending::OutOfMemory(_)));
    assert!(
        result
            .message()
            .starts_with("ketch: out of memory: the guest needs ")
    );
    let at_once = r#"(module (memory 100) (func (export "_start")))"#;
    assert_eq!(outcome(at_once, limited).code, 137);
}

#[test]
fn guest_within_its_memory_limit_runs() {
    let body = "(if (i32.ne (memory.grow (i32.const 15)) (i32.const 1)) (then unreachable))";
    let limited = |spec: &mut WasmSpec| spec.limits.memory_bytes = Some(16 * PAGE);
    assert_eq!(outcome(&module(body), limited).code, 0);
}

#[test]
fn tables_grow_to_their_limit_only() {
    let text = r#"(module (table $t 1 funcref)
        (func (export "_start")
          (if (i32.ne (table.grow $t (ref.null func) (i32.const 20000000)) (i32.const -1))
            (then unreachable))))"#;
    assert_eq!(code(text), 0);
}

#[test]
fn arguments_and_environment_reach_the_guest_and_nothing_else_does() {
    // Exit code: ten times the arguments, plus the variables.
    let body = "(drop (call $args_sizes (i32.const 0) (i32.const 4)))
        (drop (call $environ_sizes (i32.const 8) (i32.const 12)))
        (call $exit (i32.add
          (i32.mul (i32.load (i32.const 0)) (i32.const 10))
          (i32.load (i32.const 8))))";
    assert_eq!(code(&module(body)), 10);
    let result = outcome(&module(body), |spec| {
        spec.args = vec!["/bin/tool".into(), "-a".into(), String::new()];
        spec.env = vec![
            ("NAME".into(), "one".into()),
            ("NAME".into(), "two".into()),
            ("B".into(), String::new()),
        ];
    });
    assert_eq!(result.code, 32);
}

#[test]
fn working_directory_is_in_the_environment() {
    let body = "(drop (call $environ (i32.const 0) (i32.const 64)))
        (call $exit (i32.load8_u (i32.const 68)))";
    let result = outcome(&module(body), |spec| spec.cwd = "/work".to_owned());
    assert_eq!(result.code, b'/');
}

/// S53: the guest sees one directory, under the container's name for it.
#[test]
fn preopened_directories_are_the_root_alone() {
    let body = r#"
        ;; Descriptor 3 is a directory whose name is one byte long.
        (if (call $prestat (i32.const 3) (i32.const 0)) (then unreachable))
        (if (i32.load8_u (i32.const 0)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 4)) (i32.const 1)) (then unreachable))
        (if (call $prestat_name (i32.const 3) (i32.const 16) (i32.const 1)) (then unreachable))
        ;; Descriptor 4 is none (badf).
        (if (i32.ne (call $prestat (i32.const 4) (i32.const 0)) (i32.const 8)) (then unreachable))
        (call $exit (i32.load8_u (i32.const 16)))"#;
    assert_eq!(code(&module(body)), b'/');
}

/// Opens the file or directory with these flags; the exit code is the errno.
fn open(name: &str, length: u32, oflags: u32, rights: u32) -> String {
    module(&format!(
        r#"(i32.store8 (i32.const 2048) (i32.const 0)) {name}
        (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 1024)
          (i32.const {length}) (i32.const {oflags}) (i64.const {rights}) (i64.const 0)
          (i32.const 0) (i32.const 0)))"#
    ))
}

const ERRNO_PERM: u8 = 63;
const RIGHT_READ: u32 = 2;
const RIGHT_WRITE: u32 = 64;
const CREATE: u32 = 1;
const TRUNCATE: u32 = 8;

/// S49: a read-only root stays as it is, whatever the guest calls.
#[test]
fn read_only_root_refuses_every_change() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    File::create(&file).unwrap().write_all(b"intact").unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    let at = "(i32.const 3) (i32.const 1024) (i32.const 4)";
    let new = "(i32.const 1028) (i32.const 3)";
    let call = |call: &str| module(&format!("(call $exit {call})"));
    let changes = [
        open("", 7, CREATE, RIGHT_WRITE),
        open("", 4, TRUNCATE, RIGHT_WRITE),
        open("", 4, TRUNCATE, RIGHT_READ),
        open("", 4, 0, RIGHT_WRITE),
        call(&format!("(call $unlink {at})")),
        call(&format!("(call $rename {at} (i32.const 3) {new})")),
        call(&format!(
            "(call $link (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 3) {new})"
        )),
        call(&format!(
            "(call $symlink (i32.const 1024) (i32.const 4) (i32.const 3) {new})"
        )),
        call(&format!("(call $mkdir (i32.const 3) {new})")),
        call(
            "(call $times (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4)
               (i64.const 0) (i64.const 0) (i32.const 5))",
        ),
    ];
    let read_only = |spec: &mut WasmSpec| spec.root = RootAccess::ReadOnly;
    for change in &changes {
        let code = run_in(root.path(), change, read_only).code;
        assert_eq!(code, ERRNO_PERM, "{}", &change[change.len() - 300..]);
        assert_eq!(std::fs::read(&file).unwrap(), b"intact");
    }
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    assert_eq!(
        run_in(root.path(), &open("", 4, 0, RIGHT_READ), read_only).code,
        0
    );
}

#[test]
fn writable_root_takes_new_files() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(
        run_in(root.path(), &open("", 7, CREATE, RIGHT_WRITE), |_| ()).code,
        0
    );
    assert!(root.path().join("filenew").is_file());
}

#[test]
fn path_that_leaves_the_root_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("out")).unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink("../out", root.join("link")).unwrap();
    let outside = r#"(i32.store (i32.const 1024) (i32.const 0x6f2f2e2e))
        (i32.store (i32.const 1028) (i32.const 0x7475))"#;
    let link = "(i32.store (i32.const 1024) (i32.const 0x6b6e696c))";
    assert_eq!(
        run_in(&root, &open(outside, 6, 0, RIGHT_READ), |_| ()).code,
        ERRNO_PERM
    );
    let followed = open(link, 4, 0, RIGHT_READ).replace(
        "$open (i32.const 3) (i32.const 0)",
        "$open (i32.const 3) (i32.const 1)",
    );
    assert_eq!(run_in(&root, &followed, |_| ()).code, ERRNO_PERM);
}

#[test]
fn invoke_calls_the_named_export_after_initialising() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (global $ready (mut i32) (i32.const 1))
        (func (export "_initialize") (global.set $ready (i32.const 7)))
        (func (export "greet") (call $exit (global.get $ready))))"#;
    let result = outcome(text, |spec| spec.entry = Entry::Export("greet".to_owned()));
    assert_eq!(result.code, 7);
}

#[test]
fn export_with_parameters_cannot_be_started() {
    let text = r#"(module (func (export "add") (param i32)))"#;
    let result = outcome(text, |spec| spec.entry = Entry::Export("add".to_owned()));
    assert_eq!(result.code, 126);
    assert_eq!(
        result.message(),
        "ketch: cannot start the guest: `add` is no function without parameters\n"
    );
}

/// A component command of this version whose `run` has this core body.
fn component(version: &str, body: &str) -> String {
    format!(
        r#"(component
          (import "wasi:cli/exit@0.2.0" (instance $exit
            (export "exit" (func (param "status" (result))))))
          (core func $exit (canon lower (func $exit "exit")))
          (core module $m
            (import "host" "exit" (func $exit (param i32)))
            (func (export "run") (result i32) {body}))
          (core instance $i (instantiate $m
            (with "host" (instance (export "exit" (func $exit))))))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $out (export "run" (func $run)))
          (export "wasi:cli/run@{version}" (instance $out)))"#
    )
}

#[test]
fn component_commands_of_preview_3_end_with_their_result() {
    let async_run = |body: &str| {
        component("0.3.0", body).replace(
            "(func $run (result (result))",
            "(func $run async (result (result))",
        )
    };
    assert_eq!(code(&async_run("(i32.const 0)")), 0);
    assert_eq!(code(&async_run("(i32.const 1)")), 1);
    assert_eq!(code(&async_run("unreachable")), 134);
}

#[test]
fn standard_proposals_are_on() {
    let guests = [
        "(func (export \"_start\") (drop (i8x16.popcnt (v128.const i64x2 1 2))))",
        "(func $f) (func (export \"_start\") (return_call $f))",
        "(type $s (struct (field i32)))
         (func (export \"_start\") (drop (struct.new $s (i32.const 1))))",
        "(tag $t) (func (export \"_start\") (block (try_table (catch_all 0) (throw $t))))",
        "(memory i64 1) (memory 1) (func (export \"_start\") (drop (i32.load (i64.const 0))))",
    ];
    for guest in guests {
        assert_eq!(code(&format!("(module {guest})")), 0, "{guest}");
    }
}

#[test]
fn component_commands_end_with_their_result() {
    for version in ["0.2.0", "0.2.6"] {
        assert_eq!(code(&component(version, "(i32.const 0)")), 0);
        assert_eq!(code(&component(version, "(i32.const 1)")), 1);
        assert_eq!(code(&component(version, "unreachable")), 134);
        let exits = "(call $exit (i32.const 1)) (i32.const 0)";
        assert_eq!(code(&component(version, exits)), 1);
    }
}

#[test]
fn artifact_that_is_no_compiled_code_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("artifact");
    for bytes in [
        &b""[..],
        b"\0asm\x01\0\0\0",
        b"\x7fELF\x02\x01\x01\0 and nothing",
    ] {
        File::create(&path).unwrap().write_all(bytes).unwrap();
        for kind in [BinaryKind::CoreModule, BinaryKind::Component] {
            let spec = WasmSpec::new(kind, Vec::new());
            assert!(run(&spec, File::open(&path).unwrap(), || Ok(()), drop).is_err());
        }
    }
}

/// A component whose `run` logs the message of two bytes at 0 of its memory.
fn logging(message: &str, length: u32) -> String {
    format!(
        r#"(component
          (import "wasi:logging/logging" (instance $log
            (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
            (export "level" (type $level (eq $l)))
            (export "log" (func (param "level" $level) (param "context" string)
              (param "message" string)))))
          (core module $libc (memory (export "memory") 1) (data (i32.const 0) "{message}"))
          (core instance $libc (instantiate $libc))
          (core func $log (canon lower (func $log "log") (memory (core memory $libc "memory"))))
          (core module $m
            (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
            (func (export "run") (result i32)
              (call $log (i32.const 2) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const {length}))
              (i32.const 0)))
          (core instance $i (instantiate $m
            (with "host" (instance (export "log" (func $log))))))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $out (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

/// S51: strings that are none, or lie outside of the guest's memory, end the guest alone.
#[test]
fn hostile_strings_are_traps() {
    assert_eq!(code(&logging("hi", 2)), 0);
    for (message, length) in [("\\ff\\fe", 2), ("hi", 0x7fff_ffff), ("hi", 0x1_0001)] {
        assert_eq!(code(&logging(message, length)), 134, "{message} {length}");
    }
}

#[test]
fn guest_without_fuel_is_stopped_and_a_frugal_one_is_not() {
    let fuel = |units| move |spec: &mut WasmSpec| spec.metering.fuel = Some(units);
    let spin = outcome(&module("(loop $l (br $l))"), fuel(100_000));
    assert_eq!((spin.code, &spin.ending), (137, &Ending::OutOfFuel));
    assert_eq!(outcome(&module("nop"), fuel(100_000)).code, 0);
}

/// The low byte of random numbers and of the wall clock, added.
#[test]
fn deterministic_guest_gives_the_same_answer_again() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
          (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
          (drop (call $random (i32.const 0) (i32.const 8)))
          (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 8)))
          (call $exit (i32.and (i32.const 255) (i32.wrap_i64 (i64.add
            (i64.load (i32.const 0)) (i64.load (i32.const 8))))))))"#;
    let fixed = |spec: &mut WasmSpec| spec.metering.deterministic = true;
    let first = outcome(text, fixed).code;
    assert!((0..3).all(|_| outcome(text, fixed).code == first));
}

#[test]
fn export_of_an_interface_is_called_by_both_names() {
    let text = r#"(component
        (core module $m (func (export "greet") unreachable))
        (core instance $i (instantiate $m))
        (func $greet (canon lift (core func $i "greet")))
        (instance $out (export "greet" (func $greet)))
        (export "demo:words/api@0.1.0" (instance $out)))"#;
    let invoke = |spec: &mut WasmSpec| {
        spec.entry = Entry::Export("demo:words/api@0.1.0#greet".to_owned());
    };
    assert_eq!(outcome(text, invoke).code, 134);
}
