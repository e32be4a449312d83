//! Modules that are wrong, and guests that misbehave: one clear line or a bounded stop, in containers and
//! in the sandbox alone.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name))
    };
}

/// Writes without end.
const FLOOD: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\40\00\00\00\40\00\00\00")
  (data (i32.const 64) "flood flood flood flood flood flood flood flood flood flood fl\n\n")
  (func (export "_start")
    (loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))) (br $l))))"#;

fn sandbox() -> Option<Sandbox> {
    Sandbox::new(KETCH, &[Need::Root])
}

fn write(cx: &Sandbox, name: &str, bytes: &[u8]) -> String {
    let path = cx.path().join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn wat(cx: &Sandbox, name: &str, body: &str) -> String {
    write(
        cx,
        name,
        &wat::parse_str(format!("(module {body})")).unwrap(),
    )
}

#[track_caller]
fn ok(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

/// Both ways of running fail with this code and these words, and neither leaves anything.
#[track_caller]
fn refused(cx: &Sandbox, options: &[&str], subject: &str, code: i32, words: &str) {
    for walls in ["container", "wasm-only"] {
        let start = ["run", "--rm", "--network", "none", "--isolation", walls];
        let run = cx.ketch([&start[..], options, &[subject]].concat());
        let said = format!(
            "{walls} {options:?} {subject}: {}{}",
            run.stdout, run.stderr
        );
        assert_eq!(run.code, code, "{said}");
        assert!(run.stderr.contains(words), "{said}");
        assert!(!run.stderr.contains("panicked"), "{said}");
        let errors = run.stderr.lines().filter(|line| line.starts_with("error:"));
        assert!(errors.count() <= 1, "{said}");
        assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "", "{said}");
    }
}

#[test]
fn module_that_cannot_be_run_is_refused_in_one_line() {
    let Some(cx) = sandbox() else { return };
    let good = guest!("args.wasm");
    let rows = [
        (
            write(&cx, "cut.wasm", &good[..good.len() / 2]),
            "the module is invalid",
        ),
        (write(&cx, "version.wasm", b"\0asm\x02\0\0\0"), "version"),
        (write(&cx, "text.wasm", b"no module"), "does not start with"),
        (write(&cx, "empty.wasm", b""), "does not start with"),
        (
            wat(
                &cx,
                "import.wasm",
                r#"(import "env" "fly" (func)) (func (export "_start"))"#,
            ),
            "the module imports what nothing provides: env.fly",
        ),
        (
            wat(&cx, "no-entry.wasm", r#"(func (export "_initialize"))"#),
            "--invoke",
        ),
        (
            wat(&cx, "type.wasm", r#"(func (export "_start") (param i32))"#),
            "_start",
        ),
    ];
    for (file, words) in rows {
        refused(&cx, &[], &file, 126, words);
    }
    let file = wat(&cx, "export.wasm", r#"(func (export "_start"))"#);
    refused(
        &cx,
        &["--invoke", "absent"],
        &file,
        126,
        "the module exports no `absent`",
    );
}

#[test]
fn module_over_the_size_limit_is_refused() {
    let Some(cx) = sandbox() else { return };
    let path = write(&cx, "huge.wasm", b"\0asm\x01\0\0\0");
    // All but the beginning is a hole.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len((512 << 20) + 1).unwrap();
    refused(&cx, &[], &path, 126, "larger than");
}

#[test]
fn compiled_code_is_never_taken_from_an_image_or_a_file() {
    let Some(cx) = sandbox() else { return };
    let file = write(&cx, "good.wasm", guest!("args.wasm"));
    let run = cx.ketch(["wasm", "compile", &file]);
    ok(&run);
    let compiled = std::fs::read(run.stdout.trim()).unwrap();
    let file = write(&cx, "code.wasm", &compiled);
    refused(&cx, &[], &file, 126, "ELF");
    let files = [("app.wasm", compiled.as_slice(), 0o755)];
    cx.image("code", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
    refused(&cx, &["--runtime", "wasm"], "code", 125, "ELF");
}

#[test]
fn component_where_a_module_was_promised_is_run_as_what_it_is() {
    let Some(cx) = sandbox() else { return };
    let archive = cx.path().join("rootfs.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    let bytes = guest!("component.wasm");
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "app.wasm", &bytes[..])
        .unwrap();
    tar.finish().unwrap();
    let archive = archive.to_str().unwrap();
    let change = "ENTRYPOINT [\"/app.wasm\"]";
    ok(&cx.ketch([
        "import",
        "--platform",
        "wasip1/wasm",
        "-c",
        change,
        archive,
        "promised",
    ]));
    let run = cx.ketch(["run", "--rm", "--network", "none", "promised", "0", "x"]);
    ok(&run);
    assert!(run.stdout.contains("arg 2: x"), "{}", run.stdout);
}

#[test]
fn absent_source_of_a_mount_is_named() {
    let Some(cx) = sandbox() else { return };
    let file = write(&cx, "good.wasm", guest!("args.wasm"));
    let mount = "type=bind,source=/nowhere/at/all,target=/data";
    let run = cx.ketch(["run", "--rm", "--network", "none", "--mount", mount, &file]);
    assert_eq!(run.code, 125, "{run:?}");
    assert!(run.stderr.contains("/nowhere/at/all"), "{run:?}");
}

#[test]
fn guest_without_end_is_stopped_at_its_bounds() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::MemoryCgroup]) else {
        return;
    };
    let grow = "(memory 1) (func (export \"_start\")
        (loop $l (drop (memory.grow (i32.const 64))) (br $l)))";
    let grow = wat(&cx, "grow.wasm", grow);
    refused(&cx, &["--memory", "32m"], &grow, 137, "out of memory");
    let recurse = wat(
        &cx,
        "recurse.wasm",
        "(func $f (export \"_start\") (call $f) (call $f))",
    );
    refused(&cx, &[], &recurse, 134, "call stack exhausted");
    let spin = write(&cx, "spin.wasm", guest!("spin.wasm"));
    refused(
        &cx,
        &["--wasm-timeout", "100ms"],
        &spin,
        137,
        "--wasm-timeout",
    );
    refused(&cx, &["--wasm-fuel", "10000"], &spin, 137, "--wasm-fuel");
    let tables = "(table 1 funcref) (func (export \"_start\")
        (loop $l (br_if $l (i32.ne (i32.const -1)
          (table.grow (ref.null func) (i32.const 1000000))))) unreachable)";
    let tables = wat(&cx, "tables.wasm", tables);
    refused(&cx, &["--memory", "256m"], &tables, 134, "unreachable");
}

#[test]
fn flood_of_output_fills_no_disk_and_can_be_stopped() {
    let Some(cx) = sandbox() else { return };
    let file = write(&cx, "flood.wasm", &wat::parse_str(FLOOD).unwrap());
    let options = ["--log-opt", "max-size=64k", "--log-opt", "max-file=2"];
    let start = ["run", "-d", "--name", "flood", "--network", "none"];
    ok(&cx.ketch([&start[..], &options, &[&file]].concat()));
    let run = cx.ketch(["inspect", "-f", "{{.LogPath}}", "flood"]);
    ok(&run);
    let log = Path::new(run.stdout.trim()).to_path_buf();
    let segments = || -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(log.parent().unwrap()).unwrap().flatten();
        let logs = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|name| name.starts_with("container.log."))
        });
        logs.filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_owned();
            Some((name, entry.metadata().ok()?.len()))
        })
        .collect()
    };
    // After the fifth file three were given back.
    let number = |name: &str| {
        name.rsplit('.')
            .next()
            .and_then(|text| text.parse::<u32>().ok())
    };
    cx.until(["logs", "--tail", "1", "flood"], |_| {
        segments().iter().any(|(name, _)| number(name) >= Some(5))
    });
    let now = segments();
    let total: u64 = now.iter().map(|(_, size)| size).sum();
    assert!(now.len() <= 3 && total <= 3 * 66_000, "{now:?}");
    ok(&cx.ketch(["stop", "-t", "1", "flood"]));
    ok(&cx.ketch(["rm", "flood"]));
}

#[test]
fn sockets_are_there_with_the_right_and_not_without() {
    let Some(cx) = sandbox() else { return };
    let file = write(&cx, "sockets.wasm", guest!("sockets.wasm"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    for walls in ["container", "wasm-only"] {
        let run = |network: &str| {
            let start = ["run", "--rm", "--isolation", walls, "--network", network];
            cx.ketch([&start[..], &[&file, &address]].concat())
        };
        let denied = run("none");
        assert_eq!(denied.code, 1, "{walls} {denied:?}");
        assert!(!denied.stdout.contains("done"), "{walls} {denied:?}");
        assert!(listener.accept().is_err());
        let granted = run("host");
        assert!(
            granted.stdout.contains("connect: done"),
            "{walls} {granted:?}"
        );
        assert!(granted.stdout.contains("bind: done"), "{walls} {granted:?}");
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "guest\n");
    }
}
