//! Other programs and the same images: umoci unpacks what ketch unpacks, skopeo and Docker read what
//! ketch wrote, and the other way round.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{Need, Sandbox};

use crate::support::{KETCH, Registry, Tree, docker_archive, ketch, needed, run, tree};

/// A layer that is being made.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn put(mut self, path: &str, kind: tar::EntryType, mode: u32, link: &str, body: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_600_000_000 + u64::from(mode));
        header.set_uid(1000 + u64::from(mode % 7));
        header.set_gid(3_000_000);
        header.set_size(body.len() as u64);
        if kind == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        let done = match link {
            "" => self.0.append_data(&mut header, path, body),
            link => self.0.append_link(&mut header, path, link),
        };
        done.unwrap();
        self
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.put(path, tar::EntryType::Directory, mode, "", b"")
    }

    fn file(self, path: &str, mode: u32, body: &[u8]) -> Self {
        self.put(path, tar::EntryType::Regular, mode, "", body)
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.put(path, tar::EntryType::Symlink, 0o777, target, b"")
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.put(path, tar::EntryType::Link, 0o644, target, b"")
    }

    fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{name}");
        self.0
            .append_pax_extensions([(key.as_str(), value)])
            .unwrap();
        self
    }

    fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Two layers with everything that images have.
fn layers() -> Vec<Vec<u8>> {
    let long = "a-name-of-some-length/".repeat(12);
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let lower = Layer::new()
        .dir("etc", 0o755)
        .file("etc/kept", 0o640, b"kept")
        .file("etc/changed", 0o644, b"before")
        .file("etc/gone", 0o644, b"gone")
        .dir("hidden", 0o700)
        .file("hidden/below", 0o644, b"below")
        .dir("removed", 0o755)
        .file("removed/inner", 0o644, b"x")
        .file("set", 0o4755, b"#!/bin/sh\n")
        .dir("tmp", 0o1777)
        .file("one", 0o600, b"linked")
        .hardlink("two", "one")
        .symlink("absolute", "/etc/kept")
        .symlink("dangling", "nowhere")
        .put("pipe", tar::EntryType::Fifo, 0o622, "", b"")
        .put("null", tar::EntryType::Char, 0o666, "", b"")
        .xattr("user.a", b"value")
        .file("attribute", 0o644, b"x")
        .xattr("security.capability", &capability)
        .file("capable", 0o755, b"x")
        .dir("was-directory", 0o755)
        .file("was-directory/x", 0o644, b"x")
        .file("was-file", 0o644, b"x")
        .file(&format!("{long}deep"), 0o644, b"deep")
        .file("large", 0o644, &vec![7; 300_000])
        .file("empty", 0o644, b"")
        .dir("implied", 0o711)
        .end();
    let upper = Layer::new()
        .file("etc/changed", 0o600, b"after")
        .file("etc/.wh.gone", 0o644, b"")
        .file("hidden/.wh..wh..opq", 0o644, b"")
        .file("hidden/new", 0o644, b"new")
        .file(".wh.removed", 0o644, b"")
        .file("was-directory", 0o644, b"now a file")
        .dir("was-file", 0o755)
        .file("was-file/x", 0o644, b"x")
        .file("implied/added", 0o644, b"added")
        .end();
    vec![lower, upper]
}

/// The files as umoci unpacks them.
fn by_umoci(dir: &Path, archive: &Path) -> Tree {
    let layout = dir.join("layout");
    fs::create_dir(&layout).unwrap();
    let (layout, bundle) = (layout.to_str().unwrap(), dir.join("bundle"));
    run("tar", &["-xf", archive.to_str().unwrap(), "-C", layout]);
    let image = format!("{layout}:1");
    run(
        "umoci",
        &["unpack", "--image", &image, bundle.to_str().unwrap()],
    );
    tree(&bundle.join("rootfs"))
}

/// Without what is no fact of the image: the root itself, which no layer describes.
fn described(mut tree: Tree) -> Tree {
    tree.remove(Path::new(""));
    tree
}

#[test]
fn umoci_unpacks_the_same_files() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    if needed("umoci").is_none() {
        return;
    }
    let archive = cx.path().join("image.tar");
    docker_archive(&archive, "peer:1", &layers());
    let mut seen = Vec::new();
    for form in ["directory", "auto"] {
        let ketch = |args: &[&str]| {
            let done = cx.command().env("KETCH_LAYERS", form).args(args).output();
            let done = done.unwrap();
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{args:?}: {text}");
            String::from_utf8(done.stdout).unwrap()
        };
        ketch(&["load", "-i", archive.to_str().unwrap()]);
        let mounted = PathBuf::from(ketch(&["image", "mount", "peer:1"]).trim());
        seen.push((form, described(tree(&mounted))));
        let saved = cx.path().join("saved.tar");
        ketch(&["save", "-o", saved.to_str().unwrap(), "peer:1"]);
        ketch(&["image", "unmount", "peer:1"]);
        ketch(&["rmi", "peer:1"]);
    }
    let peer = described(by_umoci(cx.path(), &cx.path().join("saved.tar")));
    for (form, own) in &seen {
        let paths = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(own), paths(&peer), "{form}");
        for (path, line) in own {
            assert_eq!(line, &peer[path], "{form}: {}", path.display());
        }
    }
}

/// A registry and an image in the store.
fn with_image() -> Option<(Sandbox, Registry)> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let registry = Registry::start(&cx.path().join("registry"))?;
    let archive = cx.path().join("image.tar");
    docker_archive(&archive, "peer:1", &layers());
    ketch(&cx, &["load", "-i", archive.to_str().unwrap()]);
    Some((cx, registry))
}

/// The digest of the manifest that a name means in the store.
fn digest(cx: &Sandbox, name: &str) -> String {
    let format = "{{.Descriptor.digest}}";
    let text = ketch(cx, &["image", "inspect", "--format", format, name]);
    text.trim().to_owned()
}

#[test]
fn skopeo_reads_what_ketch_pushed_and_saved_and_writes_what_ketch_pulls() {
    let Some((cx, registry)) = with_image() else {
        return;
    };
    if needed("skopeo").is_none() {
        return;
    }
    let host = &registry.host;
    ketch(&cx, &["push", "peer:1", &format!("{host}/ours:1")]);
    let ours = format!("docker://{host}/ours:1");
    let inspected = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &ours,
        ],
    );
    assert_eq!(inspected.trim(), digest(&cx, "peer:1"));
    // Through skopeo and back, byte for byte.
    let theirs = format!("docker://{host}/theirs:1");
    let options = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = |from: &str, to: &str| {
        let mut args = vec!["copy", "-q"];
        if to.starts_with("docker://") {
            // It compresses otherwise what it sends.
            args.push("--preserve-digests");
        }
        args.extend(options);
        args.extend([from, to]);
        run("skopeo", &args);
    };
    copy(&ours, &theirs);
    ketch(&cx, &["pull", "-q", &format!("{host}/theirs:1")]);
    assert_eq!(
        digest(&cx, &format!("{host}/theirs:1")),
        digest(&cx, "peer:1")
    );
    // An archive of ours is both kinds of archive.
    let saved = cx.path().join("saved.tar");
    let saved = saved.to_str().unwrap();
    ketch(&cx, &["save", "-o", saved, "peer:1"]);
    copy(
        &format!("oci-archive:{saved}:1"),
        &format!("docker://{host}/oci:1"),
    );
    ketch(&cx, &["pull", "-q", &format!("{host}/oci:1")]);
    assert_eq!(digest(&cx, &format!("{host}/oci:1")), digest(&cx, "peer:1"));
    let back = cx.path().join("back.tar");
    let back = back.to_str().unwrap();
    copy(
        &format!("docker-archive:{saved}"),
        &format!("docker-archive:{back}:back:1"),
    );
    ketch(&cx, &["load", "-i", back]);
    let id = |name: &str| ketch(&cx, &["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(id("back:1"), id("peer:1"));
}

/// A Docker daemon of our own, with its own state and without networks.
struct Dockerd {
    child: Child,
    socket: String,
}

impl Dockerd {
    fn start(dir: &Path) -> Option<Self> {
        needed("dockerd")?;
        let socket = format!("unix://{}/docker.sock", dir.display());
        let option = |name: &str| format!("--{name}={}/{name}", dir.display());
        let child = Command::new("dockerd")
            .args([option("data-root"), option("exec-root"), option("pidfile")])
            .arg(format!("--host={socket}"))
            .args(["--bridge=none", "--iptables=false", "--storage-driver=vfs"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let docker = Self { child, socket };
        let end = Instant::now() + Duration::from_secs(60);
        while !docker
            .command(&["version"])
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < end, "dockerd does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(docker)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(&self.socket).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let done = self.command(args).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "docker {args:?}: {text}");
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        run("kill", &[&self.child.id().to_string()]);
        self.child.wait().unwrap();
    }
}

#[test]
fn docker_pulls_what_ketch_pushed_and_loads_what_it_saved_and_the_other_way_round() {
    let Some((cx, registry)) = with_image() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let Some(docker) = Dockerd::start(dir.path()) else {
        return;
    };
    let host = &registry.host;
    let (ours, theirs) = (format!("{host}/ours:1"), format!("{host}/theirs:1"));
    ketch(&cx, &["push", "peer:1", &ours]);
    docker.run(&["pull", "-q", &ours]);
    let id = |name: &str| {
        let text = ketch(&cx, &["image", "inspect", "--format", "{{.Id}}", name]);
        text.trim().to_owned()
    };
    let docker_id = |name: &str| {
        let text = docker.run(&["image", "inspect", "--format", "{{.Id}}", name]);
        text.trim().to_owned()
    };
    assert_eq!(docker_id(&ours), id("peer:1"));
    docker.run(&["tag", &ours, &theirs]);
    docker.run(&["push", "-q", &theirs]);
    ketch(&cx, &["pull", "-q", &theirs]);
    assert_eq!(id(&theirs), id("peer:1"));
    // Archives.
    let (saved, back) = (cx.path().join("saved.tar"), cx.path().join("back.tar"));
    let (saved, back) = (saved.to_str().unwrap(), back.to_str().unwrap());
    ketch(&cx, &["save", "-o", saved, "peer:1"]);
    docker.run(&["rmi", "-f", &docker_id(&ours)]);
    docker.run(&["load", "-q", "-i", saved]);
    assert_eq!(docker_id("peer:1"), id("peer:1"));
    docker.run(&["tag", "peer:1", "back:1"]);
    docker.run(&["save", "-o", back, "back:1"]);
    ketch(&cx, &["load", "-i", back]);
    assert_eq!(id("back:1"), id("peer:1"));
}
