//! Containers of both kinds through the real processes: command line, monitor, init, wasm host.

use std::path::Path;

use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

fn sandbox() -> Option<Sandbox> {
    Sandbox::new(KETCH, &[Need::Root])
}

/// A sandbox with the image `guests`: every guest program for Linux.
fn with_guests() -> Option<Sandbox> {
    let cx = sandbox()?;
    let files = [
        ("args", guest!("args.x86_64"), 0o755),
        ("echo", guest!("echo.x86_64"), 0o755),
        ("files", guest!("files.x86_64"), 0o755),
        ("memory", guest!("memory.x86_64"), 0o755),
        ("spin", guest!("spin.x86_64"), 0o755),
        ("sleep", guest!("sleep.x86_64"), 0o755),
        ("plain.txt", b"no program\n".as_slice(), 0o644),
    ];
    cx.image("guests", &files, &[]);
    Some(cx)
}

#[test]
fn hello_for_linux_greets_the_name_of_the_environment() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch(["run", "--rm", "-e", "NAME=Ada", "hello"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.starts_with("Hello, Ada!"), "{}", run.stdout);
    assert!(run.stdout.contains("linux container") && run.stdout.contains("pid 1"));
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn hello_for_wasm_is_the_other_half_of_the_same_image() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch([
        "run",
        "--rm",
        "--platform",
        "wasi/wasm",
        "-e",
        "NAME=Ada",
        "hello",
    ]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.starts_with("Hello, Ada!") && run.stdout.contains("wasm sandbox"));
}

#[test]
fn exit_code_is_the_programs_own() {
    let Some(cx) = with_guests() else { return };
    for code in ["0", "1", "42", "255"] {
        let run = cx.ketch(["run", "--rm", "guests", "/args", code]);
        assert_eq!(run.code.to_string(), code, "{}", run.stderr);
    }
}

#[test]
fn missing_program_is_127_and_one_that_cannot_run_is_126() {
    let Some(cx) = with_guests() else { return };
    let run = cx.ketch(["run", "--rm", "guests", "/nothing"]);
    assert_eq!(run.code, 127, "{}", run.stderr);
    assert!(
        run.stderr.contains("cannot execute `/nothing`"),
        "{}",
        run.stderr
    );
    let run = cx.ketch(["run", "--rm", "guests", "/plain.txt"]);
    assert_eq!(run.code, 126, "{}", run.stderr);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn standard_input_reaches_the_program_and_ends() {
    let Some(cx) = with_guests() else { return };
    let input = vec![b'x'; 300_000];
    let run = cx.ketch_with_input(["run", "--rm", "-i", "guests", "/echo"], &input);
    assert_eq!(
        (run.code, run.stdout.len()),
        (0, input.len()),
        "{}",
        run.stderr
    );
}

#[test]
fn memory_over_the_limit_is_137() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::MemoryCgroup]) else {
        return;
    };
    cx.image("hog", &[("memory", guest!("memory.x86_64"), 0o755)], &[]);
    let run = cx.ketch([
        "run", "--name", "hog", "--memory", "16m", "hog", "/memory", "64",
    ]);
    assert_eq!(run.code, 137, "{}", run.stderr);
    assert!(run.stderr.contains("out of memory"), "{}", run.stderr);
    assert!(
        cx.ketch(["inspect", "hog"])
            .stdout
            .contains("\"OOMKilled\": true")
    );
}

#[test]
fn wasm_over_the_limit_is_out_of_memory_in_the_record() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::MemoryCgroup]) else {
        return;
    };
    let files = [("hog.wasm", guest!("memory.wasm"), 0o644)];
    cx.image("hog", &files, &["ENTRYPOINT [\"/hog.wasm\"]"]);
    let run = cx.ketch(["run", "--name", "hog", "--memory", "32m", "hog", "64"]);
    assert_eq!(run.code, 137, "{}", run.stderr);
    let format = "{{.State.OOMKilled}} {{.State.Error}}";
    let record = cx.ketch(["inspect", "-f", format, "hog"]).stdout;
    assert!(record.starts_with("true out of memory: "), "{record}");
}

#[test]
fn read_only_root_cannot_be_written_and_a_volume_can() {
    let Some(cx) = with_guests() else { return };
    let write = |args: &[&str]| {
        let mut all = vec!["run", "--rm", "--read-only"];
        all.extend_from_slice(args);
        cx.ketch(all).code
    };
    assert_ne!(write(&["guests", "/files", "write", "/new", "text"]), 0);
    let data = cx.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let volume = format!("{}:/data", data.display());
    assert_eq!(
        write(&[
            "-v",
            &volume,
            "guests",
            "/files",
            "write",
            "/data/new",
            "text"
        ]),
        0
    );
    assert_eq!(
        std::fs::read_to_string(data.join("new")).unwrap().trim(),
        "text"
    );
    let readonly = format!("{volume}:ro");
    assert_ne!(
        write(&["-v", &readonly, "guests", "/files", "write", "/data/x", "y"]),
        0
    );
}

#[test]
fn absent_volume_source_is_125_and_creates_nothing() {
    let Some(cx) = with_guests() else { return };
    let run = cx.ketch(["run", "-v", "/nowhere/at/all:/data", "guests", "/args"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("`/nowhere/at/all`"), "{}", run.stderr);
    assert!(!Path::new("/nowhere").exists());
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn detached_container_is_listed_logged_stopped_and_removed() {
    let Some(cx) = with_guests() else { return };
    let run = cx.ketch(["run", "-d", "--name", "web", "guests", "/spin"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(cx.ketch(["ps"]).stdout.contains("web"));
    assert_eq!(cx.ketch(["rm", "web"]).code, 1);
    assert_eq!(cx.ketch(["stop", "-t", "0", "web"]).stdout, "web\n");
    assert_eq!(cx.ketch(["wait", "web"]).stdout, "137\n");
    assert!(cx.ketch(["ps", "-a"]).stdout.contains("Exited (137)"));
    assert_eq!(cx.ketch(["rm", "web"]).code, 0);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn logs_hold_what_was_printed() {
    let Some(cx) = with_guests() else { return };
    let run = cx.ketch([
        "run",
        "--name",
        "once",
        "-e",
        "COLOUR=blue",
        "guests",
        "/args",
        "0",
        "a b",
    ]);
    let logs = cx.ketch(["logs", "once"]);
    assert_eq!(logs.stdout, run.stdout);
    assert!(logs.stdout.contains("COLOUR=blue"));
    assert_eq!(cx.ketch(["rm", "once"]).code, 0);
}

#[test]
fn name_in_use_is_refused_with_a_hint() {
    let Some(cx) = with_guests() else { return };
    assert_eq!(
        cx.ketch(["create", "--name", "one", "guests", "/args"])
            .code,
        0
    );
    let run = cx.ketch(["create", "--name", "one", "guests", "/args"]);
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("in use") && run.stderr.contains("hint:"),
        "{}",
        run.stderr
    );
}

#[test]
fn wasm_guest_has_arguments_environment_and_exit_code() {
    let Some(cx) = sandbox() else { return };
    let files = [("app.wasm", guest!("args.wasm"), 0o644)];
    cx.image("app", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
    let run = cx.ketch(["run", "--rm", "-e", "COLOUR=blue", "app", "42", "-e"]);
    assert_eq!(run.code, 42, "{}", run.stderr);
    assert!(run.stdout.contains("COLOUR=blue") && run.stdout.contains("/app.wasm"));
}

#[test]
fn wasm_trap_is_134_and_named() {
    let Some(cx) = sandbox() else { return };
    cx.image(
        "trap",
        &[("t.wasm", guest!("trap.wasm"), 0o644)],
        &["ENTRYPOINT [\"/t.wasm\"]"],
    );
    let run = cx.ketch(["run", "--name", "trapped", "trap", "unreachable"]);
    assert_eq!(run.code, 134, "{}", run.stderr);
    assert!(run.stderr.contains("unreachable"), "{}", run.stderr);
    let format = "{{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}";
    let record = cx.ketch(["inspect", "-f", format, "trapped"]).stdout;
    assert!(record.starts_with("134 false "), "{record}");
    assert!(record.contains("unreachable"), "{record}");
}

#[test]
fn corrupt_module_is_refused_before_anything_is_made() {
    let Some(cx) = sandbox() else { return };
    let bytes = b"\0asm\x01\0\0\0garbage".as_slice();
    cx.image(
        "bad",
        &[("a.wasm", bytes, 0o755)],
        &["ENTRYPOINT [\"/a.wasm\"]"],
    );
    let run = cx.ketch(["run", "bad"]);
    assert_eq!(run.code, 126, "{}", run.stderr);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn unknown_flag_and_unknown_command_are_125() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(cx.ketch(["run", "--nonsense", "hello"]).code, 125);
    assert_eq!(cx.ketch(["nonsense"]).code, 125);
    assert_eq!(cx.ketch(["run", "--memory", "much", "hello"]).code, 125);
}
