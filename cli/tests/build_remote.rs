//! Builds from and to elsewhere: repositories, URLs, registries.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::{BUSYBOX, Need, Registry, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    base(&cx);
    Some(cx)
}

fn base(cx: &Sandbox) {
    let busybox = fs::read(BUSYBOX).unwrap();
    let names = ["sh", "cat", "echo", "ls", "stat", "wc", "test"];
    let files: Vec<(String, &[u8], u32)> = names
        .iter()
        .map(|name| (format!("bin/{name}"), busybox.as_slice(), 0o755))
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(path, bytes, mode)| (path.as_str(), *bytes, *mode))
        .collect();
    cx.image("base", &files, &[]);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file, which nobody else reads"
)]
fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn build(cx: &Sandbox, context: &str, args: &[&str]) -> Run {
    let mut all = vec!["build", "--progress=plain", "-t", "out"];
    all.extend(args);
    all.push(context);
    cx.ketch(all)
}

fn built(cx: &Sandbox, context: &str, args: &[&str]) -> Run {
    let run = build(cx, context, args);
    assert_eq!(run.code, 0, "{context}: {}", run.stderr);
    run
}

fn sh(cx: &Sandbox, line: &str) -> String {
    let run = cx.ketch(["run", "--rm", "out", "/bin/sh", "-c", line]);
    assert_eq!(run.code, 0, "{line}: {}", run.stderr);
    run.stdout
}

fn done(run: &Run) -> usize {
    let lines = run.stderr.lines();
    lines
        .filter(|line| line.starts_with('#') && line.contains("DONE"))
        .count()
}

/// Repositories below a directory, served by `git daemon` on loopback.
struct GitServer {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl GitServer {
    fn start(dir: &Path) -> Option<Self> {
        if !Path::new("/usr/lib/git-core/git-daemon").exists() {
            testkit::skip("needs git's daemon");
            return None;
        }
        fs::create_dir_all(dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("/usr/lib/git-core/git-daemon")
            .args(["--export-all", "--listen=127.0.0.1", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", dir.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < PATIENCE, "git's daemon does not listen");
            std::thread::yield_now();
        }
        Some(Self {
            child,
            port,
            dir: dir.to_path_buf(),
        })
    }

    fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Runs git in a repository, which is made when it is not there.
    fn git(&self, name: &str, args: &[&str]) -> String {
        let dir = self.dir.join(name);
        if !dir.join(".git").exists() {
            fs::create_dir_all(&dir).unwrap();
            git(&dir, &["init", "--quiet", "--initial-branch=main"]);
        }
        git(&dir, args)
    }

    /// Commits all files of a repository. Gives the commit.
    fn commit(&self, name: &str) -> String {
        self.git(name, &["add", "--all"]);
        self.git(name, &["commit", "--quiet", "--allow-empty", "-m", "x"]);
        self.git(name, &["rev-parse", "HEAD"]).trim().to_owned()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Answers each request with the file that is asked for, on a thread of its own.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap();
            let found = files.iter().find(|(name, _)| *name == path);
            let (status, body) = match found {
                Some((_, body)) => ("200 OK", body.as_slice()),
                None => ("404 Not Found", b"".as_slice()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    port
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn repositories_are_contexts_and_sources() {
    let Some(cx) = sandbox() else { return };
    let Some(server) = GitServer::start(&cx.path().join("git")) else {
        return;
    };
    let repo = server.dir.join("app");
    write(&repo.join("Dockerfile"), "FROM base\nCOPY . /all\n");
    write(&repo.join("sub/Dockerfile"), "FROM base\nCOPY f /f\n");
    write(&repo.join("sub/f"), "first");
    let first = server.commit("app");
    server.git("app", &["tag", "v1"]);
    write(&repo.join("sub/f"), "second");
    server.commit("app");
    let url = server.url("app");
    built(&cx, &url, &[]);
    assert_eq!(
        sh(&cx, "cat /all/sub/f; ls -a /all"),
        "second.\n..\nDockerfile\nsub\n"
    );
    built(&cx, &format!("{url}#v1:sub"), &[]);
    assert_eq!(sh(&cx, "cat /f"), "first");
    // A commit that is no branch's newest, and a short one.
    for commit in [first.as_str(), first.get(..10).unwrap()] {
        built(&cx, &format!("{url}#{commit}:sub"), &[]);
        assert_eq!(sh(&cx, "cat /f"), "first");
    }
    built(
        &cx,
        &url,
        &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"],
    );
    assert_eq!(sh(&cx, "test -d /all/.git && echo kept"), "kept\n");
    // As a source of ADD, and as a named context.
    let context = cx.path().join("context");
    let dockerfile = format!(
        "FROM base\nADD {url}#v1 /added\nADD --keep-git-dir=true --checksum={first} {url}#v1:sub /kept/\nCOPY --from=more f /named\n"
    );
    write(&context.join("Dockerfile"), &dockerfile);
    let more = format!("more={url}#main:sub");
    let context = context.to_str().unwrap();
    built(&cx, context, &["--build-context", &more]);
    assert_eq!(
        sh(&cx, "cat /added/sub/f /kept/f /named; ls -a /added"),
        "firstfirstsecond.\n..\nDockerfile\nsub\n"
    );
    let again = built(&cx, context, &["--build-context", &more]);
    assert_eq!(done(&again), 0, "{}", again.stderr);
    for (context, expected) in [
        (format!("{url}#none"), "couldn't find remote ref none"),
        (format!("{url}#v1:none"), "it has no directory `none`"),
        (server.url("absent"), "cannot get"),
    ] {
        let run = build(&cx, &context, &[]);
        assert_eq!(run.code, 1, "{context}");
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    let wrong = format!("FROM base\nADD --checksum=0123456789 {url} /x\n");
    let run = cx.ketch_with_input(["build", "-"], wrong.as_bytes());
    assert!(
        run.code == 1 && run.stderr.contains("the commit of"),
        "{}",
        run.stderr
    );
}

/// S39: what a repository brings stays in it.
#[test]
fn hostile_repositories_get_nothing_of_the_host() {
    let Some(cx) = sandbox() else { return };
    let Some(server) = GitServer::start(&cx.path().join("git")) else {
        return;
    };
    let secret = cx.path().join("secret");
    write(&secret.join("Dockerfile"), "canary-content\n");
    write(&secret.join(".dockerignore"), "canary-content\n");
    git(&secret, &["init", "--quiet", "--initial-branch=main"]);
    git(&secret, &["add", "--all"]);
    git(&secret, &["commit", "--quiet", "-m", "x"]);
    let repo = server.dir.join("evil");
    write(&repo.join("f"), "f");
    symlink(&secret, repo.join("sub")).unwrap();
    for name in ["Dockerfile", ".dockerignore"] {
        symlink(secret.join(name), repo.join(name)).unwrap();
    }
    server.commit("evil");
    let url = server.url("evil");
    // Neither the context's directory, nor its files, nor what ADD names, leads out.
    let add = format!("FROM base\nADD {url}#main:sub /x/\nRUN cat /x/Dockerfile\n");
    let runs = [
        build(&cx, &format!("{url}#main:sub"), &[]),
        build(&cx, &url, &[]),
        cx.ketch_with_input(["build", "-"], add.as_bytes()),
    ];
    for run in runs {
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(!run.stderr.contains("canary-content"), "{}", run.stderr);
    }
    // A submodule of the host's own files, and hooks and filters of the repository.
    let modules = format!(
        "[submodule \"s\"]\n\tpath = s\n\turl = file://{}\n",
        secret.display()
    );
    let repo = server.dir.join("modules");
    let marker = cx.path().join("marker");
    write(&repo.join("f"), "f");
    write(&repo.join(".gitattributes"), "* filter=evil\n");
    server.commit("modules");
    server.git(
        "modules",
        &["submodule", "--quiet", "add", secret.to_str().unwrap(), "s"],
    );
    write(&repo.join(".gitmodules"), &modules);
    write(
        &repo.join("hooks/post-checkout"),
        &format!("#!/bin/sh\ntouch {}\n", marker.display()),
    );
    server.commit("modules");
    let url = server.url("modules");
    let add = format!("FROM base\nADD {url} /x/\n");
    let run = cx.ketch_with_input(["build", "-"], add.as_bytes());
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("'file' not allowed"), "{}", run.stderr);
    for reference in ["--upload-pack=touch", "-x", "a..b"] {
        let run = build(&cx, &format!("{url}#{reference}"), &[]);
        assert!(
            run.code != 0 && run.stderr.contains("malformed"),
            "{}",
            run.stderr
        );
    }
    let run = build(&cx, &format!("file://{}", secret.display()), &[]);
    assert_ne!(run.code, 0);
    assert!(!marker.exists());
}

#[test]
fn urls_are_contexts_and_sources() {
    let Some(cx) = sandbox() else { return };
    let text = b"FROM base\nRUN echo alone >/f\n".to_vec();
    let packed = archive(&[("Dockerfile", "FROM base\nCOPY f /f\n"), ("f", "packed\n")]);
    let port = serve(vec![
        ("/Dockerfile", text),
        ("/context.tar", packed.clone()),
        ("/d/data.txt", b"data".to_vec()),
    ]);
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    built(&cx, &url("/Dockerfile"), &[]);
    assert_eq!(sh(&cx, "cat /f"), "alone\n");
    built(&cx, &url("/context.tar"), &[]);
    assert_eq!(sh(&cx, "cat /f"), "packed\n");
    let run = build(&cx, &url("/none"), &[]);
    assert!(
        run.code == 1 && run.stderr.contains("404"),
        "{}",
        run.stderr
    );
    let sum = "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7";
    let (data, tar) = (url("/d/data.txt?x=1"), url("/context.tar"));
    let dockerfile = |sum: &str| {
        format!(
            "FROM base\nADD --checksum={sum} --chmod=640 {data} /named\nADD {data} /dir/\nADD {tar} /tar\nADD --unpack=true {tar} /unpacked/\nRUN test \"$(cat /named /dir/data.txt)\" = datadata && test -f /tar\n"
        )
    };
    let add = |sum: &str| {
        cx.ketch_with_input(
            ["build", "--progress=plain", "-t", "out", "-"],
            dockerfile(sum).as_bytes(),
        )
    };
    let run = add(sum);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(sh(&cx, "cat /unpacked/f; ls /dir"), "packed\ndata.txt\n");
    assert_eq!(done(&add(sum)), 0);
    let run = add(&sum.replace("3a6e", "3a6f"));
    assert!(
        run.code == 1 && run.stderr.contains("has the checksum sha256:3a6eb"),
        "{}",
        run.stderr
    );
}

/// A server of one file at a time that tells its versions apart: what it answered, in order.
struct Versions {
    port: u16,
    now: Arc<Mutex<(String, &'static str)>>,
    answers: Arc<Mutex<Vec<&'static str>>>,
}

impl Versions {
    /// The header with which it tells them apart.
    fn start(header: &'static str, question: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let now = Arc::new(Mutex::new((String::new(), "")));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (file, log) = (Arc::clone(&now), Arc::clone(&answers));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let (version, body) = file.lock().unwrap().clone();
                let is_same = request.lines().any(|line| {
                    let asked = line.split_once(": ");
                    asked.is_some_and(|(name, value)| {
                        name.eq_ignore_ascii_case(question) && value == version
                    })
                });
                let (status, body) = match is_same {
                    true => ("304 Not Modified", ""),
                    false => ("200 OK", body),
                };
                log.lock().unwrap().push(status);
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\n{header}: {version}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(body.as_bytes()).unwrap();
            }
        });
        Self { port, now, answers }
    }

    fn serve(&self, version: &str, body: &'static str) {
        *self.now.lock().unwrap() = (version.to_owned(), body);
    }

    fn answers(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}

#[test]
fn file_of_a_url_is_fetched_when_its_server_says_that_it_changed() {
    let Some(cx) = sandbox() else { return };
    const FETCHED: &str = "200 OK";
    const SAME: &str = "304 Not Modified";
    let kinds = [
        ("ETag", "If-None-Match", ["\"a\"", "W/\"b\""]),
        (
            "Last-Modified",
            "If-Modified-Since",
            [
                "Thu, 01 Jan 1970 01:00:00 GMT",
                "Thu, 01 Jan 1970 02:00:00 GMT",
            ],
        ),
    ];
    for (header, question, [first, second]) in kinds {
        let server = Versions::start(header, question);
        let add = |more: &str, args: &[&str]| {
            let url = format!("http://127.0.0.1:{}/d/some%20file", server.port);
            let dockerfile = format!("FROM base\n{more}ADD {url} /d/\n");
            let mut all = vec!["build", "--progress=plain", "-t", "out"];
            all.extend(args);
            all.push("-");
            let run = cx.ketch_with_input(all, dockerfile.as_bytes());
            assert_eq!(run.code, 0, "{}", run.stderr);
            done(&run)
        };
        server.serve(first, "one");
        assert_eq!((add("", &[]), server.answers()), (1, vec![FETCHED]));
        let look = "cat '/d/some file'; stat -c ' %a' '/d/some file'";
        assert_eq!(sh(&cx, look), "one 600\n");
        assert_eq!((add("", &[]), server.answers()), (0, vec![SAME]));
        // Its bytes are needed for another layer.
        let work = format!("WORKDIR /{header}\n");
        assert_eq!(
            (add(&work, &[]), server.answers()),
            (2, vec![SAME, FETCHED])
        );
        server.serve(second, "two");
        assert_eq!((add("", &[]), server.answers()), (1, vec![FETCHED]));
        assert_eq!(sh(&cx, "cat '/d/some file'"), "two");
        // Another version with the same bytes is the same file, but for its time.
        if header == "ETag" {
            server.serve("\"c\"", "two");
            assert_eq!((add("", &[]), server.answers()), (0, vec![FETCHED]));
        } else {
            let late = ["--build-arg", "SOURCE_DATE_EPOCH=1000000"];
            assert_eq!((add("", &late), server.answers()), (1, vec![SAME, FETCHED]));
            assert_eq!(sh(&cx, "stat -c %Y '/d/some file'"), "7200\n");
        }
    }
    // Who says what the file is does not ask for it twice.
    let server = Versions::start("ETag", "If-None-Match");
    server.serve("\"a\"", "data");
    let sum = "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7";
    let url = format!("http://127.0.0.1:{}", server.port);
    let dockerfile = format!("FROM base\nADD --checksum={sum} {url} /d/\n");
    for (steps, answers) in [(1, vec![FETCHED]), (0, Vec::new())] {
        let all = ["build", "--progress=plain", "-t", "out", "-"];
        let run = cx.ketch_with_input(all, dockerfile.as_bytes());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!((done(&run), server.answers()), (steps, answers));
    }
    assert_eq!(sh(&cx, "cat /d/__unnamed__"), "data");
}

#[test]
fn contexts_are_images_of_layouts_and_stand_for_names() {
    let Some(cx) = sandbox() else { return };
    let dir = cx.path().join("layout");
    let out = dir.to_str().unwrap();
    let output = format!("type=oci,tar=false,dest={out}");
    let dockerfile = "FROM base\nENV FOO=bar\nRUN echo layout >/from\nUSER 7\n";
    let saved = cx.ketch_with_input(
        ["build", "-t", "other/name:v1", "-o", &output, "-"],
        dockerfile.as_bytes(),
    );
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    let index = fs::read_to_string(dir.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    // Nothing of it is here.
    for args in [["rmi", "-f", "other/name:v1"], ["builder", "prune", "-af"]] {
        let run = cx.ketch(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    let pruned = cx.ketch(["image", "prune", "-f"]);
    assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    let images = || cx.ketch(["images", "-q", "--no-trunc"]).stdout;
    let before = images();
    let build = |dockerfile: &str, place: &str| {
        let context = format!("thing={place}");
        cx.ketch_with_input(
            [
                "build",
                "--progress=plain",
                "-t",
                "out",
                "--build-context",
                &context,
                "-",
            ],
            dockerfile.as_bytes(),
        )
    };
    // It stands for the stage of its name and for the image.
    let dockerfile = "FROM base AS thing\nRUN exit 9\nFROM thing\nUSER 0\nRUN echo $FOO >/foo\nCOPY --from=thing /from /copied\n";
    for place in [
        format!("oci-layout://{out}"),
        format!("oci-layout://{out}:v1"),
        format!("oci-layout://{out}@{digest}"),
        format!("oci-layout://{out}:unread@{digest}"),
    ] {
        let run = build(dockerfile, &place);
        assert_eq!(run.code, 0, "{place}: {}", run.stderr);
        assert_eq!(sh(&cx, "cat /foo /from /copied"), "bar\nlayout\nlayout\n");
    }
    let image = build(
        "FROM docker.io/library/thing:latest\nUSER 0\n",
        &format!("oci-layout://{out}"),
    );
    assert_eq!(image.code, 0, "{}", image.stderr);
    assert_eq!(sh(&cx, "cat /from"), "layout\n");
    // It has got no name here, and what was built of it stays whole without the directory.
    let after = images();
    assert_eq!(after.lines().count(), before.lines().count() + 2, "{after}");
    assert_eq!(cx.ketch(["image", "inspect", "other/name:v1"]).code, 1);
    let zero = format!("sha256:{}", "0".repeat(64));
    for (place, code, why) in [
        (format!("oci-layout://{out}:v2"), 1, ":v2"),
        (format!("oci-layout://{out}@{zero}"), 1, "@sha256:000"),
        (format!("oci-layout://{out}@sha256:0"), 125, "is no digest"),
        (format!("oci-layout://{out}/none"), 125, "no such directory"),
        (
            format!("oci-layout://{out}/blobs"),
            1,
            "it is no OCI layout",
        ),
        (
            "ftp://host/x".to_owned(),
            125,
            "`ftp` is no kind of context",
        ),
    ] {
        let run = build("FROM thing\nUSER 1\n", &place);
        assert_eq!(run.code, code, "{place}: {}", run.stderr);
        assert!(run.stderr.contains(why), "{place}: {}", run.stderr);
    }
    // Somebody else's layout gives what it says it gives, and nothing of the host.
    let pruned = cx.ketch(["image", "prune", "-af"]);
    assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    base(&cx);
    let blob = dir
        .join("blobs/sha256")
        .join(digest.strip_prefix("sha256:").unwrap());
    let kept = fs::read_to_string(&blob).unwrap();
    let secret = cx.path().join("secret");
    write(&secret, &kept);
    fs::remove_file(&blob).unwrap();
    symlink(&secret, &blob).unwrap();
    let run = build("FROM thing\n", &format!("oci-layout://{out}"));
    assert_eq!(run.code, 1, "{}", run.stderr);
    fs::remove_file(&blob).unwrap();
    write(&blob, &kept.replace("mediaType", "mediatype"));
    let run = build("FROM thing\n", &format!("oci-layout://{out}"));
    assert_eq!(run.code, 1, "{}", run.stderr);
    fs::remove_file(&blob).unwrap();
    write(&blob, &kept);
    let run = build("FROM thing\nUSER 0\n", &format!("oci-layout://{out}"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(sh(&cx, "cat /from"), "layout\n");
}

#[test]
fn archives_of_urls_are_further_contexts() {
    let Some(cx) = sandbox() else { return };
    let port = serve(vec![
        ("/c.tar", archive(&[("d/f", "packed\n")])),
        ("/text", b"text".to_vec()),
    ]);
    let build = |path: &str| {
        let context = format!("more=http://127.0.0.1:{port}{path}");
        cx.ketch_with_input(
            ["build", "-t", "out", "--build-context", &context, "-"],
            b"FROM base\nCOPY --from=more d/f /f\n",
        )
    };
    let run = build("/c.tar");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(sh(&cx, "cat /f"), "packed\n");
    let run = build("/text");
    assert!(
        run.code != 0 && run.stderr.contains("it is no archive"),
        "{}",
        run.stderr
    );
}

#[test]
fn caches_go_through_a_registry_and_through_images() {
    let Some(one) = sandbox() else { return };
    let Some(two) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let Some(registry) = Registry::start(&one.path().join("registry")) else {
        return;
    };
    let host = &registry.host;
    // The same base in both.
    let (base, cache, image) = (
        format!("{host}/base:1"),
        format!("{host}/app:cache"),
        format!("{host}/app:1"),
    );
    let pushed = one.ketch(["push", "base", &base]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let context = one.path().join("context");
    write(
        &context.join("Dockerfile"),
        &format!(
            "FROM {base} AS tool\nRUN echo tool >/tool && echo more >/more\nFROM {base}\nRUN echo first >/first\nCOPY --from=tool /tool /tool\n"
        ),
    );
    let context = context.to_str().unwrap();
    let to = format!("type=registry,ref={cache},mode=max");
    let from = format!("type=registry,ref={cache}");
    // What is not there yet is an empty cache.
    let run = built(&one, context, &["--cache-from", &from, "--cache-to", &to]);
    assert_eq!(done(&run), 3, "{}", run.stderr);
    let run = built(&two, context, &["--cache-from", &from]);
    assert_eq!(done(&run), 0, "{}", run.stderr);
    assert_eq!(sh(&two, "cat /tool /first"), "tool\nfirst\n");
    // Only what the image has.
    let forget = |cx: &Sandbox| {
        assert_eq!(cx.ketch(["rmi", "-f", "out"]).code, 0);
        let pruned = cx.ketch(["builder", "prune", "-af"]);
        assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    };
    forget(&two);
    let to = format!("type=registry,ref={cache}");
    built(&one, context, &["--cache-to", &to]);
    let run = built(&two, context, &["--cache-from", &cache]);
    assert_eq!(done(&run), 1, "{}", run.stderr);
    // Within the image; without a word when there is none in it.
    forget(&two);
    let args = [
        "build",
        "-t",
        &image,
        "--push",
        "--cache-to",
        "type=inline",
        context,
    ];
    let pushed = one.ketch(args);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let from = format!("type=registry,ref={image}");
    let other = format!("type=registry,ref={base}");
    let run = built(
        &two,
        context,
        &["--cache-from", &other, "--cache-from", &from],
    );
    assert_eq!(done(&run), 1, "{}", run.stderr);
    // A registry that is away is told of and does not matter.
    let run = built(
        &two,
        context,
        &["--cache-from", "type=registry,ref=127.0.0.1:1/x"],
    );
    assert!(
        run.stderr.contains("a given cache is not used"),
        "{}",
        run.stderr
    );
    for (option, value) in [
        ("--cache-to", "type=gha"),
        ("--cache-to", "type=s3,region=x,bucket=y"),
        ("--cache-from", "type=azblob,name=x"),
        ("--cache-to", "type=registry,ref=x,compression=gzip"),
        ("--cache-to", "type=local,dest=x,src=y"),
        ("--cache-to", "type=registry,dest=x"),
        ("--cache-to", "type=inline,ref=x"),
        ("--cache-from", "type=local,src=x,mode=max"),
        ("--output", "type=local,dest=x,platform-split=false"),
        ("--output", "type=image,nmae=x"),
        ("--cache-to", "type=local"),
        ("--cache-to", "type=inline,mode=max"),
        ("--cache-from", "type=inline"),
        ("--cache-from", "type=local,src=x,y=z"),
    ] {
        let run = build(&two, context, &[option, value]);
        assert_eq!(run.code, 125, "{option} {value}");
        assert!(run.stderr.contains(option), "{}", run.stderr);
    }
    let run = build(&two, context, &["--cache-to", "type=gha"]);
    let why = "caches of type `gha` are not supported: there are local, registry and inline";
    assert!(run.stderr.contains(why), "{}", run.stderr);
}

#[test]
fn statements_stand_beside_a_plain_image() {
    let Some(cx) = sandbox() else { return };
    let Some(registry) = Registry::start(&cx.path().join("registry")) else {
        return;
    };
    let name = format!("{}/app:1", registry.host);
    let context = cx.path().join("context");
    write(
        &context.join("Dockerfile"),
        "FROM base\nARG API_TOKEN\nCOPY status /var/lib/dpkg/status\nCOPY Cargo.lock /app/\n",
    );
    write(
        &context.join("status"),
        "Package: zlib1g\nStatus: install ok installed\nVersion: 1.2\nArchitecture: amd64\n",
    );
    write(
        &context.join("Cargo.lock"),
        "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n",
    );
    let local = cx.path().join("local");
    let (dir, context) = (local.to_str().unwrap(), context.to_str().unwrap());
    let asked = |args: &[&str]| {
        let mut all = vec!["build", "-t", &name, "--build-arg", "API_TOKEN=s3cr3t"];
        all.extend(args);
        all.push(context);
        cx.ketch(all)
    };
    let run = asked(&["--push", "-o", dir, "--provenance=mode=max", "--sbom"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let sbom = json(&local.join("sbom.spdx.json"));
    let packages = sbom["predicate"]["packages"].as_array().unwrap();
    let names: Vec<_> = packages.iter().map(|package| &package["name"]).collect();
    assert_eq!(names, ["serde", "zlib1g"]);
    let provenance = fs::read_to_string(local.join("provenance.json")).unwrap();
    assert!(
        provenance.contains("pkg:docker/base?digest=sha256:"),
        "{provenance}"
    );
    assert!(
        provenance.contains("\"API_TOKEN\"") && !provenance.contains("s3cr3t"),
        "{provenance}"
    );
    // The name means an image, and the statements refer to it.
    let manifest = cx.ketch(["manifest", "inspect", &name]).stdout;
    assert!(manifest.contains("image.manifest.v1+json"), "{manifest}");
    assert!(!manifest.contains("unknown"), "{manifest}");
    let listed = cx.ketch(["image", "referrers", "--format", "json", &name]);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for referrer in listed {
        let text = referrer.to_string();
        assert!(text.contains("application/vnd.in-toto+json"), "{text}");
    }
    // Asked for once more, the same statements; nothing of them is in the store.
    let run = asked(&["--push", "--provenance=mode=max", "--sbom"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let again = cx.ketch(["image", "referrers", "--format", "json", &name]);
    let again: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again.as_array().unwrap().len(), 2);
    for args in [["--sbom"], ["--provenance=often"], ["--attest=type=x"]] {
        let run = asked(&args);
        assert_eq!(run.code, 125, "{args:?}: {}", run.stderr);
    }
}
