//! The command line as macOS and Windows have it, as a program on Linux: this test's program is that
//! command line when it is started as `portable ketch …`, and its compile worker.

#![expect(
    dead_code,
    unused_imports,
    reason = "the commands of Linux use more of what is shared, and its tests run elsewhere"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it does"
)]

#[path = "../src/portable/failures.rs"]
mod failures;
#[path = "../src/format.rs"]
mod format;
#[path = "../src/guest_options.rs"]
mod guest_options;
#[path = "../src/image_record.rs"]
mod image_record;
#[path = "../src/module_file.rs"]
mod module_file;
#[path = "../src/portable/mod.rs"]
mod portable;
#[path = "../src/progress.rs"]
mod progress;
#[path = "../src/render.rs"]
mod render;
#[path = "../src/settings.rs"]
mod settings;
#[path = "../src/template/mod.rs"]
mod template;
#[path = "../src/times.rs"]
mod times;
#[path = "../src/values.rs"]
mod values;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use image::{ImportOptions, Platform, Reference, RegistryOptions, Store, UnpackMode};
use state::Layout;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_worker = args.first().map(String::as_str) == Some(runtime_wasm::worker::SUBCOMMAND);
    if is_worker || args.first().map(String::as_str) == Some("ketch") {
        let args = if is_worker {
            [vec!["ketch".to_owned()], args].concat()
        } else {
            args
        };
        return match portable::dispatch(&args) {
            Ok(code) => ExitCode::from(code),
            Err(error) => render::failure(&error, portable::failure_code(&args)),
        };
    }
    let tests: [Test; 9] = [
        ("file_gets_arguments_and_variables", file_gets_arguments),
        ("image_is_run_with_its_files", image_is_run_with_its_files),
        ("artifact_is_run_and_listed", artifact_is_run_and_listed),
        ("guest_that_fails_has_a_containers_code", guest_that_fails),
        ("standard_input_is_given_when_asked_for", standard_input),
        ("program_of_linux_is_refused", program_of_linux_is_refused),
        ("command_of_linux_says_so", command_of_linux_says_so),
        ("image_comes_from_a_registry", image_comes_from_a_registry),
        ("what_was_left_is_cleared_away", what_was_left),
    ];
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            test(&Home::new());
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// A name and what it checks, in a home of its own.
type Test = (&'static str, fn(&Home));

/// A user's directories.
struct Home {
    dir: tempfile::TempDir,
    layout: Layout,
    store: Store,
}

/// How a command ended.
#[derive(Debug)]
struct End {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let store = Store::open(&layout, UnpackMode::default()).unwrap();
        Self { dir, layout, store }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg("ketch")
            .arg("--root")
            .arg(self.layout.root())
            .arg("--run")
            .arg(self.layout.run())
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path());
        command
    }

    fn ketch(&self, args: &[&str]) -> End {
        self.ketch_with_input(args, b"")
    }

    fn ketch_with_input(&self, args: &[&str], input: &[u8]) -> End {
        let mut command = self.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A guest that reads nothing may have ended.
        drop(child.stdin.take().unwrap().write_all(input));
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        End {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// A module's file.
    fn module(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(&wat::parse_str(text).unwrap()).unwrap();
        path.display().to_string()
    }

    /// An image of these files.
    fn image(
        &self,
        name: &str,
        platform: Platform,
        files: &[(&str, &[u8])],
        links: &[(&str, &str)],
    ) {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        for (path, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).unwrap();
        }
        let options = ImportOptions {
            name: Some(Reference::parse(name).unwrap()),
            changes: vec![
                r#"ENTRYPOINT ["/bin/app"]"#.to_owned(),
                "ENV FROM=image".to_owned(),
            ],
            platform: Some(platform),
            ..ImportOptions::default()
        };
        let archive = tar.into_inner().unwrap();
        self.store.import(archive.as_slice(), &options).unwrap();
    }
}

/// Prints its arguments and its variables, each ended by a NUL.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $out (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (drop (call $args_sizes (i32.const 16) (i32.const 20)))
    (drop (call $args (i32.const 1024) (i32.const 4096)))
    (call $out (i32.const 4096) (i32.load (i32.const 20)))
    (drop (call $env_sizes (i32.const 16) (i32.const 20)))
    (drop (call $env (i32.const 1024) (i32.const 8192)))
    (call $out (i32.const 8192) (i32.load (i32.const 20)))))"#;

/// Copies `/link`, or what stands for it, to standard output, writes it to `/new`, and ends with 3
/// when it cannot be opened.
const CAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "link")
  (data (i32.const 110) "new")
  (func (export "_start")
    (if (call $open (i32.const 3) (i32.const 1) (i32.const 100) (i32.const 4) (i32.const 0)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 40))
      (then (call $exit (i32.const 3))))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 512))
    (drop (call $read (i32.load (i32.const 40)) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    ;; O_CREAT | O_EXCL: every run has files of its own.
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 110) (i32.const 3) (i32.const 5)
          (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 40))
      (then (call $exit (i32.const 4))))
    (drop (call $write (i32.load (i32.const 40)) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Copies standard input to standard output.
const COPY: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 512))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

const RUN: [&str; 3] = ["run", "--isolation", "wasm-only"];

fn run<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&RUN, rest].concat()
}

fn file_gets_arguments(home: &Home) {
    let file = home.module("echo.wasm", ECHO);
    let end = home.ketch(&run(&["-e", "A=1", "--workdir", "/w", &file, "-x", "two"]));
    assert_eq!(end.code, 0, "{end:?}");
    assert_eq!(end.stdout, format!("{file}\0-x\0two\0A=1\0PWD=/w\0"));
    assert_eq!(end.stderr, "");
    // The second time it comes from the cache: the compiled file stays the same.
    let compiled = home.ketch(&["wasm", "compile", &file]).stdout;
    assert!(Path::new(compiled.trim()).is_file());
    assert!(
        home.ketch(&["wasm", "inspect", &file])
            .stdout
            .contains("\"Runs\": \"yes\"")
    );
}

fn image_is_run_with_its_files(home: &Home) {
    let module = wat::parse_str(CAT).unwrap();
    let files: [(&str, &[u8]); 2] = [("bin/app", &module), ("etc/data", b"the data\n")];
    let out = home.dir.path().join("secret").display().to_string();
    home.image("good", Platform::wasi(), &files, &[("link", "/etc/data")]);
    for _ in 0..2 {
        let end = home.ketch(&run(&["good"]));
        assert_eq!(
            (end.code, end.stdout.as_str()),
            (0, "the data\n"),
            "{end:?}"
        );
    }
    // A link out of the image leads to nothing outside.
    File::create(&out).unwrap().write_all(b"secret").unwrap();
    let up = format!("{}{out}", "../".repeat(20));
    for (name, target) in [("absolute", &out), ("relative", &up)] {
        home.image(name, Platform::wasi(), &files, &[("link", target.as_str())]);
        let end = home.ketch(&run(&[name]));
        assert_eq!((end.code, end.stdout.as_str()), (3, ""), "{end:?}");
    }
    let end = home.ketch(&run(&["--wasm-no-files", "good"]));
    assert_eq!(end.code, 3, "{end:?}");
    assert_eq!(std::fs::read_dir(home.layout.tmp()).unwrap().count(), 0);
}

fn artifact_is_run_and_listed(home: &Home) {
    let file = home.module("echo.wasm", ECHO);
    let end = home.ketch(&["wasm", "wrap", &file, "tool:1"]);
    assert_eq!(end.code, 0, "{end:?}");
    let end = home.ketch(&run(&["tool:1", "x"]));
    assert_eq!(end.stdout, "tool\0x\0", "{end:?}");
    assert_eq!(
        home.ketch(&["wasm", "wrap", "--image", &file, "boxed"])
            .code,
        0
    );
    let end = home.ketch(&run(&["boxed"]));
    assert_eq!(end.stdout, "/echo.wasm\0", "{end:?}");
    let rows = home.ketch(&[
        "image",
        "ls",
        "--format",
        "{{.Repository}}:{{.Tag}} {{.Platform}}",
    ]);
    assert_eq!(rows.stdout, "boxed:latest wasi/wasm\ntool:1 wasi/wasm\n");
    let wanted = "{{.Runtime.Wasm.World}} {{.Runtime.Name}}";
    let end = home.ketch(&["image", "inspect", "--format", wanted, "boxed"]);
    assert!(end.stdout.ends_with(" wasm\n"), "{end:?}");
    assert_eq!(home.ketch(&["tag", "tool:1", "other"]).code, 0);
    let end = home.ketch(&["rmi", "tool:1", "other", "boxed"]);
    assert!(end.stdout.contains("Deleted: sha256:"), "{end:?}");
    assert!(home.store.list().unwrap().is_empty());
    assert!(home.store.content().list().unwrap().is_empty());
}

fn guest_that_fails(home: &Home) {
    let module = |name: &str, body: &str| home.module(name, &format!("(module {body})"));
    let trap = module("trap.wasm", r#"(func (export "_start") unreachable)"#);
    let spin = module("spin.wasm", r#"(func (export "_start") (loop $l (br $l)))"#);
    let import = module(
        "import.wasm",
        r#"(import "x" "y" (func)) (func (export "_start"))"#,
    );
    let grow = r#"(memory 1) (func (export "_start")
        (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)"#;
    let grow = module("grow.wasm", grow);
    let text = home.dir.path().join("text.wasm");
    File::create(&text)
        .unwrap()
        .write_all(b"no module")
        .unwrap();
    let text = text.display().to_string();
    let rows: [(&[&str], i32, &str); 8] = [
        (&[&trap], 134, "unreachable"),
        (
            &["--wasm-timeout", "50ms", &spin],
            137,
            "ran longer than 50 ms",
        ),
        (&["--wasm-fuel", "1000", &spin], 137, "fuel"),
        (&[&import], 126, "x"),
        (&["--memory", "16m", &grow], 137, "out of memory"),
        (&[&text], 126, "cannot run the file"),
        (&["--network", "bridge", &trap], 125, "it needs Linux"),
        (&["--invoke", "nothing", &trap], 126, "nothing"),
    ];
    for (args, code, text) in rows {
        let end = home.ketch(&run(args));
        assert_eq!(end.code, code, "{args:?} {end:?}");
        assert!(end.stderr.contains(text), "{args:?} {end:?}");
        assert!(!end.stderr.contains("panicked"), "{args:?} {end:?}");
    }
    assert_eq!(std::fs::read_dir(home.layout.tmp()).unwrap().count(), 0);
}

fn standard_input(home: &Home) {
    let file = home.module("copy.wasm", COPY);
    let end = home.ketch_with_input(&run(&["-i", &file]), b"input");
    assert_eq!((end.code, end.stdout.as_str()), (0, "input"), "{end:?}");
    let end = home.ketch_with_input(&run(&[&file]), b"input");
    assert_eq!((end.code, end.stdout.as_str()), (0, ""), "{end:?}");
}

fn program_of_linux_is_refused(home: &Home) {
    let script: (&str, &[u8]) = ("bin/app", b"#!/bin/sh\n");
    let linux = Platform::new("linux", std::env::consts::ARCH, None);
    home.image("native", linux, &[script], &[]);
    let end = home.ketch(&run(&["--platform", "linux", "native"]));
    assert_eq!(end.code, 125, "{end:?}");
    assert!(end.stderr.contains("a program of Linux"), "{end:?}");
    assert!(end.stderr.contains("it needs Linux"), "{end:?}");
}

fn command_of_linux_says_so(home: &Home) {
    for command in ["ps", "exec", "daemon", "build", "oci", "update"] {
        let end = home.ketch(&[command]);
        let said = format!("error: cannot run `ketch {command}`: it needs Linux\n");
        assert_eq!((end.code, end.stderr), (1, said));
    }
    let end = home.ketch(&["run", "alpine"]);
    assert_eq!(end.code, 125);
    let hint = "hint: a wasm image runs without one: add --isolation wasm-only\n";
    assert_eq!(
        end.stderr,
        format!("error: cannot run a container: it needs Linux\n{hint}")
    );
    assert!(
        home.ketch(&["nonsense"])
            .stderr
            .contains("is not a command")
    );
    let help = home.ketch(&["--help"]);
    assert!(
        help.stdout.contains("wasm-only") && help.code == 0,
        "{help:?}"
    );
    assert!(home.ketch(&["version"]).stdout.starts_with("ketch "));
}

fn image_comes_from_a_registry(home: &Home) {
    let Some(registry) = testkit::Registry::start(&home.dir.path().join("registry")) else {
        return;
    };
    let name = format!("{}/tools/echo:1", registry.host);
    let file = home.module("echo.wasm", ECHO);
    assert_eq!(home.ketch(&["wasm", "wrap", &file, &name]).code, 0);
    let reference = Reference::parse(&name).unwrap();
    let options = RegistryOptions {
        insecure: vec![registry.host.clone()],
        ..RegistryOptions::default()
    };
    let pushed = home.store.push(&name, &reference, None, &options, &());
    pushed.unwrap();
    assert_eq!(home.ketch(&["rmi", &name]).code, 0);
    let mut command = home.command(&run(&["-q", &name, "y"]));
    let output = command
        .env("KETCH_INSECURE_REGISTRIES", &registry.host)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"echo\0y\0", "{output:?}");
}

fn what_was_left(home: &Home) {
    let left = home.layout.tmp().join("guest-of-the-dead");
    std::fs::create_dir_all(left.join("a/b")).unwrap();
    assert_eq!(home.ketch(&["images"]).code, 0);
    assert!(!left.exists());
}
