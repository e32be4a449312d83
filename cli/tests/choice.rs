//! Which runtime an image or a file gets, what is told about it, and the two spellings of commands.

use std::io::Write;

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

#[test]
fn explain_names_runtime_and_fact_and_runs_nothing() {
    let Some(cx) = sandbox() else { return };
    let native = cx.ketch(["run", "--explain", "hello"]);
    assert_eq!(native.code, 0, "{}", native.stderr);
    assert!(
        native
            .stdout
            .starts_with("runtime: native\nbecause: entrypoint starts with")
    );
    let wasm = cx.ketch(["run", "--explain", "--platform", "wasi/wasm", "hello"]);
    assert!(
        wasm.stdout
            .starts_with("runtime: wasm\nbecause: platform wasi/wasm\n")
    );
    let files = [("app.wasm", guest!("args.wasm"), 0o644)];
    cx.image("app", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
    let bytes = cx.ketch(["run", "--explain", "app", "1"]);
    assert!(
        bytes.stdout.contains("entrypoint starts with \\0asm"),
        "{}",
        bytes.stdout
    );
    assert!(
        bytes.stdout.contains("command: /app.wasm 1"),
        "{}",
        bytes.stdout
    );
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn wasm_file_is_run_with_arguments_environment_and_exit_code() {
    let Some(cx) = sandbox() else { return };
    let path = cx.path().join("args.wasm");
    std::fs::File::create(&path)
        .unwrap()
        .write_all(guest!("args.wasm"))
        .unwrap();
    let text = path.to_str().unwrap();
    let run = cx.ketch(["run", "--rm", "-e", "COLOUR=blue", text, "42", "--flag"]);
    assert_eq!(run.code, 42, "{}", run.stderr);
    for line in ["arg 1: 42", "arg 2: --flag", "env: COLOUR=blue"] {
        assert!(run.stdout.contains(line), "{line} in {}", run.stdout);
    }
    for name in ["./args.wasm", "args.wasm"] {
        let mut command = cx.command();
        let output = command
            .current_dir(cx.path())
            .args(["run", "--rm", name, "3"])
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
    // It can be started again although the image is no image.
    let run = cx.ketch(["run", "--name", "again", text, "4"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert_eq!(cx.ketch(["start", "-a", "again"]).code, 4);
}

#[test]
fn image_inspect_has_dockers_fields_and_what_the_module_is() {
    let Some(cx) = sandbox() else { return };
    let all = cx.ketch(["image", "inspect", "hello"]);
    assert_eq!(all.code, 0, "{}", all.stderr);
    for field in [
        "Id",
        "RepoTags",
        "RepoDigests",
        "Created",
        "Config",
        "RootFS",
        "Size",
        "Os",
    ] {
        assert!(all.stdout.contains(&format!("\"{field}\":")), "{field}");
    }
    let format = |platform: &str, format: &str| {
        let args = [
            "image",
            "inspect",
            "--platform",
            platform,
            "--format",
            format,
            "hello",
        ];
        let run = cx.ketch(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    let native = format(
        "linux/amd64",
        "{{.Runtime.Name}} {{.Architecture}} {{.Config.Entrypoint}}",
    );
    assert_eq!(native, "native amd64 [/hello]\n");
    let wasm = format(
        "wasi/wasm",
        "{{.Runtime.Name}}; {{.Runtime.Wasm.Kind}}; {{.Runtime.Wasm.Wasi}}",
    );
    assert_eq!(wasm, "wasm; core module; preview 1\n");
    let imports = format("wasi/wasm", "{{json .Runtime.Wasm.Imports}}");
    assert!(
        imports.starts_with("[\"wasi_snapshot_preview1."),
        "{imports}"
    );
    for platform in ["linux/amd64", "wasi/wasm"] {
        let layers = format(platform, "{{json .Layers}}");
        assert!(layers.contains("\"Digest\":\"sha256:") && layers.contains("\"Size\":"));
        let history = format(platform, "{{json .History}}");
        assert!(history.contains("\"CreatedBy\":"), "{history}");
    }
    let missing = cx.ketch(["image", "inspect", "nothing"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, "[]\n"));
    assert_eq!(
        cx.ketch(["inspect", "-f", "{{range .Id}}", "hello"]).code,
        64
    );
}

#[test]
fn grouped_spelling_is_the_same_command() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch(["container", "run", "--name", "one", "hello"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        cx.ketch(["container", "ls", "-aq"]).stdout,
        cx.ketch(["ps", "-aq"]).stdout
    );
    assert_eq!(
        cx.ketch(["image", "ls", "-q"]).stdout,
        cx.ketch(["images", "-q"]).stdout
    );
    assert_eq!(cx.ketch(["container", "rm", "one"]).code, 0);
    assert_eq!(cx.ketch(["image", "rm", "hello"]).code, 0);
    let unknown = cx.ketch(["image", "fly"]);
    assert_eq!(unknown.code, 125);
    assert!(unknown.stderr.contains("`image fly`"), "{}", unknown.stderr);
}

#[test]
fn image_of_a_container_stays_and_creating_beside_removing_leaves_no_half_container() {
    let Some(cx) = sandbox() else { return };
    let files = [("args", guest!("args.x86_64"), 0o755)];
    cx.image("kept", &files, &[]);
    assert_eq!(
        cx.ketch(["create", "--name", "user", "kept", "/args"]).code,
        0
    );
    assert_eq!(cx.ketch(["rmi", "kept"]).code, 1);
    assert_eq!(cx.ketch(["rm", "user"]).code, 0);
    for _ in 0..8 {
        cx.image("fought", &files, &[]);
        let create = |name: &str| {
            let mut command = cx.command();
            command.args([
                "run", "--pull", "never", "--name", name, "fought", "/args", "9",
            ]);
            command.output().unwrap().status.code()
        };
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| create("one"));
            let two = scope.spawn(|| create("two"));
            cx.ketch(["rmi", "fought"]);
            (one.join().unwrap(), two.join().unwrap())
        });
        // Each had the image until its end, or never.
        for (name, code) in [("one", one), ("two", two)] {
            assert!([Some(9), Some(125)].contains(&code), "{name}: {code:?}");
            assert_eq!(cx.ketch(["rm", name]).code == 0, code == Some(9));
        }
        cx.ketch(["rmi", "-f", "fought"]);
    }
}

#[test]
fn removing_one_platform_by_id_leaves_the_others_their_name() {
    let Some(cx) = sandbox() else { return };
    let id = |platform: &str| {
        let args = [
            "image",
            "inspect",
            "--platform",
            platform,
            "-f",
            "{{.Id}}",
            "hello",
        ];
        cx.ketch(args).stdout.trim().to_owned()
    };
    let (wasm, native) = (id("wasi/wasm"), id("linux/amd64"));
    let removed = cx.ketch(["rmi", &wasm]);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(removed.stdout, format!("Deleted: {wasm}\n"));
    let images = cx.ketch(["images", "--no-trunc"]).stdout;
    assert!(
        images.contains(&native) && !images.contains(&wasm),
        "{images}"
    );
    let gone = cx.ketch(["image", "inspect", "--platform", "wasi/wasm", "hello"]);
    assert_eq!(gone.code, 1, "{}", gone.stdout);
    assert_eq!(cx.ketch(["run", "--rm", "hello"]).code, 0);
    let again = cx.ketch(["run", "--rm", "--platform", "wasi/wasm", "hello"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
}

#[test]
fn leftovers_of_a_killed_process_are_cleared_away() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(cx.ketch(["ps"]).code, 0);
    let left = cx.path().join("root/tmp/left");
    std::fs::create_dir(&left).unwrap();
    assert_eq!(cx.ketch(["ps"]).code, 0);
    assert!(!left.exists());
}
