//! Wasm containers through the real processes: what is not the same as for Linux programs.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// How long a container may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

/// A sandbox with the image `guest`: one guest program.
fn with_guest(bytes: &[u8]) -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let files = [("guest.wasm", bytes, 0o644)];
    cx.image("guest", &files, &["ENTRYPOINT [\"/guest.wasm\"]"]);
    Some(cx)
}

/// A port that was free a moment ago, below those that the kernel gives to clients: to one of these
/// a client that waits for the server could connect from itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The HTTP component in a container of the host's network, and its address.
struct Server<'a> {
    cx: &'a Sandbox,
    address: String,
}

impl<'a> Server<'a> {
    fn start(cx: &'a Sandbox, args: &[&str]) -> Self {
        let port = free_port().to_string();
        let mut all = vec!["run", "-d", "--name", "web", "--network", "host"];
        all.extend(["--wasm-http-port", &port]);
        all.extend_from_slice(args);
        all.push("guest");
        let run = cx.ketch(all);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let address = format!("127.0.0.1:{port}");
        let server = Self { cx, address };
        drop(server.connect());
        server
    }

    fn connect(&self) -> TcpStream {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(&self.address) {
                Ok(stream) => return stream,
                Err(error) => {
                    let logs = || self.cx.ketch(["logs", "web"]).stderr;
                    assert!(begun.elapsed() < PATIENCE, "{error}: {}", logs());
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Sends a request and reads until the server closes.
    fn exchange(&self, head: &str, body: &[u8]) -> String {
        let mut stream = self.connect();
        write!(
            stream,
            "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1"), b"")
    }

    fn logs(&self) -> Run {
        self.cx.ketch(["logs", "web"])
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.cx.ketch(["rm", "--force", "web"]);
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn http_component_gets_a_fresh_instance_for_each_request() {
    let Some(cx) = with_guest(guest!("http.wasm")) else {
        return;
    };
    let server = Server::start(&cx, &["-e", "COLOUR=blue"]);
    assert_eq!(body(&server.get("/")), "hello\n");
    for _ in 0..3 {
        assert_eq!(body(&server.get("/count")), "1\n");
    }
    assert_eq!(body(&server.get("/env?COLOUR")), "blue\n");
    assert_eq!(body(&server.get("/authority")), "localhost\n");
    assert_eq!(status(&server.get("/nothing")), "404");
}

#[test]
fn http_instance_is_used_again_where_that_is_asked_for() {
    let Some(cx) = with_guest(guest!("http.wasm")) else {
        return;
    };
    let server = Server::start(&cx, &["--wasm-http-reuse", "2"]);
    let counts: Vec<String> = (0..4)
        .map(|_| body(&server.get("/count")).to_owned())
        .collect();
    assert_eq!(counts, ["1\n", "2\n", "1\n", "2\n"]);
}

#[test]
fn http_connection_is_kept_and_bodies_stream_with_trailers() {
    let Some(cx) = with_guest(guest!("http.wasm")) else {
        return;
    };
    let server = Server::start(&cx, &[]);
    let mut stream = server.connect();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request.repeat(2).as_bytes()).unwrap();
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n7\r\n, world\r\n0\r\n\r\n";
    stream.write_all(chunked.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert!(
        answers.contains("Hello") && answers.contains(", world"),
        "{answers}"
    );
    assert!(answers.ends_with("x-length: 12\r\n\r\n"), "{answers}");
}

#[test]
fn http_request_that_fails_harms_no_other() {
    let Some(cx) = with_guest(guest!("http.wasm")) else {
        return;
    };
    let server = Server::start(&cx, &["--wasm-timeout", "1s", "--memory", "64m"]);
    assert_eq!(status(&server.get("/trap")), "500");
    assert_eq!(status(&server.get("/spin")), "504");
    assert_eq!(status(&server.get("/grow")), "500");
    assert_eq!(body(&server.get("/")), "hello\n");
    let logs = server.logs().stderr;
    assert!(logs.contains("wasm backtrace:"), "{logs}");
    assert!(logs.contains("out of memory"), "{logs}");
}

#[test]
fn http_server_that_is_stopped_finishes_its_requests() {
    let Some(cx) = with_guest(guest!("http.wasm")) else {
        return;
    };
    let server = Server::start(&cx, &[]);
    let mut stream = server.connect();
    write!(stream, "GET /slow?1000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let begun = Instant::now();
    while !server.logs().stdout.contains("slow: begun") {
        assert!(begun.elapsed() < PATIENCE, "{}", server.logs().stderr);
    }
    assert_eq!(cx.ketch(["stop", "web"]).code, 0);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(body(&answer), "slow\n", "{answer}");
    assert_eq!(cx.ketch(["wait", "web"]).stdout, "0\n");
    assert!(TcpStream::connect(&server.address).is_err());
}

#[test]
fn http_component_sees_volumes_and_sends_requests() {
    let Some(cx) = with_guest(guest!("http.wasm")) else {
        return;
    };
    let data = cx.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let server = Server::start(&cx, &["-v", &format!("{}:/data", data.display())]);
    let written = server.exchange(
        "POST /write?/data/note HTTP/1.1\r\nContent-Length: 4",
        b"text",
    );
    assert_eq!(status(&written), "200", "{written}");
    assert_eq!(std::fs::read(data.join("note")).unwrap(), b"text");
    assert_eq!(body(&server.get("/read?/data/note")), "text");
    let fetched = server.get(&format!("/fetch?{}", server.address));
    assert_eq!(body(&fetched), "hello\n", "{fetched}");
}

#[test]
fn guest_sees_neither_procfs_nor_sysfs() {
    let Some(cx) = with_guest(guest!("files.wasm")) else {
        return;
    };
    for path in [
        "/proc/1/mem",
        "/proc/1/maps",
        "/proc/self/mem",
        "/sys/kernel/notes",
    ] {
        let run = cx.ketch(["run", "--rm", "guest", "read", path]);
        assert_eq!(run.code, 1, "{path}: {}", run.stdout);
    }
}

#[test]
fn absolute_link_of_the_image_is_followed() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let mut archive = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, link: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        match link {
            "" => archive.append_data(&mut header, path, bytes).unwrap(),
            link => archive.append_link(&mut header, path, link).unwrap(),
        }
    };
    put(
        "guest.wasm",
        tar::EntryType::Regular,
        "",
        guest!("files.wasm"),
    );
    put("usr/share/text", tar::EntryType::Regular, "", b"found");
    put(
        "etc/alternatives/text",
        tar::EntryType::Symlink,
        "/usr/share/text",
        b"",
    );
    put("share", tar::EntryType::Symlink, "/usr/share", b"");
    let archive = archive.into_inner().unwrap();
    let entrypoint = "ENTRYPOINT [\"/guest.wasm\"]";
    let run = cx.ketch_with_input(["import", "--change", entrypoint, "-", "links"], &archive);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for path in ["/etc/alternatives/text", "/share/text"] {
        let run = cx.ketch(["run", "--rm", "links", "read", path]);
        assert_eq!(
            (run.code, run.stdout.trim()),
            (0, "found"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn guest_that_takes_too_long_is_137_with_the_reason() {
    let Some(cx) = with_guest(guest!("spin.wasm")) else {
        return;
    };
    let run = cx.ketch(["run", "--rm", "--wasm-timeout", "300ms", "guest"]);
    assert_eq!(run.code, 137, "{}", run.stderr);
    assert!(run.stderr.contains("--wasm-timeout"), "{}", run.stderr);
    let run = cx.ketch(["run", "--rm", "--wasm-fuel", "100000", "guest"]);
    assert_eq!(run.code, 137, "{}", run.stderr);
    assert!(run.stderr.contains("--wasm-fuel"), "{}", run.stderr);
}

#[test]
fn guest_over_its_memory_is_137_with_the_reason() {
    let Some(cx) = with_guest(guest!("memory.wasm")) else {
        return;
    };
    let run = cx.ketch(["run", "--rm", "--memory", "32m", "guest", "256"]);
    assert_eq!(run.code, 137, "{}", run.stderr);
    assert!(run.stderr.contains("out of memory"), "{}", run.stderr);
}

#[test]
fn export_is_called_by_option_and_by_the_command() {
    let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x08\x01\x04boom\0\0\
                   \x0a\x05\x01\x03\0\0\x0b";
    let Some(cx) = with_guest(module) else { return };
    let run = cx.ketch(["run", "--rm", "--invoke", "boom", "guest"]);
    assert_eq!(run.code, 134, "{}", run.stderr);
    let run = cx.ketch(["run", "--rm", "--entrypoint", "/guest.wasm#boom", "guest"]);
    assert_eq!(run.code, 134, "{}", run.stderr);
    let run = cx.ketch(["run", "--rm", "--invoke", "hush", "guest"]);
    assert_eq!(run.code, 126, "{}", run.stderr);
    assert!(run.stderr.contains("exports no `hush`"), "{}", run.stderr);
    let run = cx.ketch(["run", "--rm", "guest"]);
    assert_eq!(run.code, 126, "{}", run.stderr);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn wasm_option_for_a_linux_program_is_refused_by_name() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    cx.image(
        "linux",
        &[("args", guest!("args.x86_64"), 0o755)],
        &["CMD [\"/args\"]"],
    );
    let run = cx.ketch(["run", "--rm", "--wasm-fuel", "1000", "linux"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("--wasm-fuel"), "{}", run.stderr);
}

#[test]
fn wrapped_module_runs_as_artifact_and_as_image() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let file = cx.path().join("args.wasm");
    std::fs::File::create(&file)
        .unwrap()
        .write_all(guest!("args.wasm"))
        .unwrap();
    let file = file.to_str().unwrap();
    let inspected = cx.ketch(["wasm", "inspect", file]);
    assert!(
        inspected.stdout.contains("\"wasi preview 1 command\""),
        "{}",
        inspected.stderr
    );
    for (name, more) in [("artifact", None), ("image", Some("--image"))] {
        let mut args = vec!["wasm", "wrap", file, name];
        args.extend(more);
        let run = cx.ketch(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(cx.ketch(["run", "--rm", name, "42"]).code, 42);
        assert!(
            cx.ketch(["wasm", "inspect", name])
                .stdout
                .contains("\"core module\"")
        );
    }
}

#[test]
fn wasm_only_isolation_runs_without_a_container_and_refuses_what_needs_one() {
    let Some(cx) = with_guest(guest!("args.wasm")) else {
        return;
    };
    let only = |more: &[&str]| {
        let mut args = vec!["run", "--rm", "--isolation", "wasm-only"];
        args.extend_from_slice(more);
        cx.ketch(args)
    };
    let run = only(&["-e", "COLOUR=blue", "guest", "42", "two"]);
    assert_eq!(run.code, 42, "{}", run.stderr);
    assert!(run.stdout.contains("COLOUR=blue"), "{}", run.stdout);
    assert!(run.stderr.contains("the only wall"), "{}", run.stderr);
    let run = only(&["-v", "/tmp:/data", "guest", "0"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("--volume"), "{}", run.stderr);
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

/// A component that calls what it imports.
const SOCKET: &str = r#"(component
    (import "demo:plug/api@1.0.0" (instance $api (export "act" (func))))
    (alias export $api "act" (func $act))
    (core func $lowered (canon lower (func $act)))
    (core module $m
        (import "" "act" (func $act))
        (func (export "go") (call $act)))
    (core instance $i (instantiate $m (with "" (instance (export "act" (func $lowered))))))
    (func $go (canon lift (core func $i "go")))
    (export "go" (func $go)))"#;

/// A component with that export, and what it does.
fn plug(does: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m (func (export "act") {does}))
            (core instance $i (instantiate $m))
            (func $act (canon lift (core func $i "act")))
            (instance $api (export "act" (func $act)))
            (export "demo:plug/api@1.0.0" (instance $api)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn imports_of_a_component_are_taken_from_other_images() {
    let Some(cx) = with_guest(&wat::parse_str(SOCKET).unwrap()) else {
        return;
    };
    for (name, does) in [("quiet", "nop"), ("loud", "unreachable")] {
        let bytes = plug(does);
        let entrypoint = ["ENTRYPOINT [\"/plug.wasm\"]"];
        cx.image(name, &[("plug.wasm", &bytes, 0o644)], &entrypoint);
        let mut file = std::fs::File::create(cx.path().join(format!("{name}.wasm"))).unwrap();
        file.write_all(&bytes).unwrap();
    }
    let run = |plug: &str| {
        let option = format!("demo:plug={plug}");
        let args = [
            "run",
            "--rm",
            "--wasm-plug",
            &option,
            "--invoke",
            "go",
            "guest",
        ];
        cx.ketch(args)
    };
    let file = |name: &str| cx.path().join(name).display().to_string();
    for (plug, code) in [
        ("quiet".to_owned(), 0),
        ("loud".to_owned(), 134),
        (file("quiet.wasm"), 0),
        (file("loud.wasm"), 134),
    ] {
        let run = run(&plug);
        assert_eq!(run.code, code, "{plug}: {}", run.stderr);
    }
    for (option, says) in [
        ("demo:none=quiet", "imports nothing called `demo:none`"),
        ("demo:plug=guest", "does not export `demo:plug/api@1.0.0`"),
        ("demo:plug=absent", "cannot plug `absent`"),
        ("demo:plug", "it is IMPORT=IMAGE"),
    ] {
        let run = cx.ketch(["create", "--wasm-plug", option, "--invoke", "go", "guest"]);
        assert!(run.code == 125 || run.code == 64, "{option}: {run:?}");
        assert!(run.stderr.contains(says), "{option}: {}", run.stderr);
    }
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
    // What it is made of may go: the container keeps the whole.
    let args = ["create", "--name", "kept", "--wasm-plug", "demo:plug=quiet"];
    let made = cx.ketch(args.into_iter().chain(["--invoke", "go", "guest"]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(cx.ketch(["rmi", "quiet"]).code, 0);
    assert_eq!(cx.ketch(["start", "-a", "kept"]).code, 0);
    assert_eq!(
        std::fs::read_dir(cx.path().join("root/tmp"))
            .unwrap()
            .count(),
        0
    );
}
