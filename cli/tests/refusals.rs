//! Bad input: one line that names the object and the cause, the right exit code, and nothing that
//! was not there before.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::{Read, Write};
use std::net::TcpListener;

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

/// A sandbox with the image `guests`.
fn with_guests() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let files = [
        ("args", guest!("args.x86_64"), 0o755),
        ("foreign", guest!("args.aarch64"), 0o755),
        ("plain.txt", b"no program\n".as_slice(), 0o644),
    ];
    cx.image("guests", &files, &[]);
    Some(cx)
}

/// Runs, and checks code, words, one line, and that no container or image came of it.
fn refused(cx: &Sandbox, args: &[&str], code: i32, words: &[&str]) -> Run {
    let before = cx.ketch(["images", "-q"]).stdout;
    let run = cx.ketch(args);
    assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{args:?}: {}", run.stderr);
    }
    let errors = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{args:?}: {}", run.stderr);
    assert_eq!(run.stdout, "", "{args:?}");
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "", "{args:?}");
    assert_eq!(cx.ketch(["images", "-q"]).stdout, before, "{args:?}");
    run
}

#[test]
fn unknown_image_and_unreachable_registry_are_125() {
    let Some(cx) = with_guests() else { return };
    refused(
        &cx,
        &["run", "--pull", "never", "nothing"],
        125,
        &["`nothing`", "hint:"],
    );
    // Nobody listens on the port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let image = format!("127.0.0.1:{port}/nothing");
    refused(&cx, &["run", &image], 125, &["registry", &image[..14]]);
    refused(&cx, &["pull", &image], 1, &["registry", &image[..14]]);
}

/// A registry that answers every request with this status.
fn registry(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // A client that hangs up is answered all the same.
            let _length = stream.read(&mut request);
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    address.to_string()
}

#[test]
fn registry_that_knows_no_such_image_or_user_is_named() {
    let Some(cx) = with_guests() else { return };
    let image = format!("{}/secret", registry("401 Unauthorized"));
    refused(&cx, &["run", &image], 125, &[&image]);
    let image = format!("{}/nothing", registry("404 Not Found"));
    refused(&cx, &["run", &image], 125, &[&image]);
}

#[test]
fn content_with_another_digest_is_refused_and_nothing_kept() {
    let Some(cx) = with_guests() else { return };
    let archive = cx.path().join("guests.tar");
    let saved = cx.ketch(["save", "-o", archive.to_str().unwrap(), "guests"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    assert_eq!(cx.ketch(["rmi", "guests"]).code, 0);
    let mut bytes = std::fs::read(&archive).unwrap();
    // One letter of a file that lies in a layer, or of its compressed form.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let run = cx.ketch_with_input(["load"], &bytes);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("sha256:"), "{}", run.stderr);
    assert_eq!(cx.ketch(["images", "-q"]).stdout, "");
}

#[test]
fn program_that_is_missing_not_executable_or_for_another_processor() {
    let Some(cx) = with_guests() else { return };
    refused(
        &cx,
        &["run", "--rm", "guests", "/nothing"],
        127,
        &["`/nothing`"],
    );
    refused(
        &cx,
        &["run", "--rm", "guests", "nothing"],
        127,
        &["`nothing`"],
    );
    refused(
        &cx,
        &["run", "--rm", "guests", "/plain.txt"],
        126,
        &["`/plain.txt`"],
    );
    refused(
        &cx,
        &["run", "--rm", "guests", "/foreign"],
        126,
        &["`/foreign`", "machine"],
    );
    refused(&cx, &["run", "guests"], 125, &["`guests`", "command"]);
}

#[test]
fn image_without_the_wanted_platform_says_what_it_has() {
    let Some(cx) = with_guests() else { return };
    let args = ["run", "--platform", "linux/s390x", "guests", "/args"];
    refused(&cx, &args, 125, &["`guests`", "linux/s390x", "linux/amd64"]);
}

#[test]
fn values_that_cannot_be_used_are_named() {
    let Some(cx) = with_guests() else { return };
    for (option, value) in [
        ("--memory", "1m"),
        ("--memory", "900t"),
        ("--memory", "lots"),
        ("--cpus", "4096"),
        ("--cpus", "many"),
        ("--pids-limit", "few"),
        ("--network", "moon"),
        ("--pull", "often"),
        ("--runtime", "jvm"),
        ("--platform", "linux/"),
        ("--user", "nobody-here"),
        ("--volume", "/nowhere/at/all:/data"),
        ("--env", "=x"),
        ("--env-file", "/nowhere/at/all"),
        ("--security-opt", "off"),
        ("--name", "a/b"),
    ] {
        let run = refused(&cx, &["run", option, value, "guests", "/args"], 125, &[]);
        let named = run.stderr.contains(value.trim_end_matches(":/data"));
        // A size is named in bytes.
        assert!(
            named || option == "--memory",
            "{option} {value}: {}",
            run.stderr
        );
    }
    refused(
        &cx,
        &["run", "--no-such-flag", "guests"],
        125,
        &["--no-such-flag"],
    );
}

#[test]
fn malformed_line_of_an_environment_file_is_named() {
    let Some(cx) = with_guests() else { return };
    let file = cx.path().join("env");
    std::fs::File::create(&file)
        .unwrap()
        .write_all(b"# fine\nA=1\nB C=2\n")
        .unwrap();
    let args = [
        "run",
        "--env-file",
        file.to_str().unwrap(),
        "guests",
        "/args",
    ];
    refused(&cx, &args, 125, &["line 3", "B C=2"]);
}

#[test]
fn wasm_that_cannot_be_run_is_126_and_says_why() {
    let Some(cx) = with_guests() else { return };
    let write = |name: &str, bytes: &[u8]| {
        let path = cx.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = write("text.wasm", b"no module at all");
    refused(&cx, &["run", &text], 126, &["text.wasm"]);
    let whole = guest!("args.wasm");
    let cut = write("cut.wasm", &whole[..whole.len() / 2]);
    refused(&cx, &["run", &cut], 126, &["module"]);
    refused(
        &cx,
        &["run", "/nowhere/at/all.wasm"],
        125,
        &["`/nowhere/at/all.wasm`"],
    );
    let good = write("good.wasm", whole);
    refused(
        &cx,
        &["run", "--entrypoint", "x", &good],
        125,
        &["--entrypoint"],
    );
}
