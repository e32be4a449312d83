//! Commands of images against a registry: parts of indexes, modules, progress, lists, space.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::{Need, Sandbox};

use crate::support::{KETCH, Registry, docker_archive, ketch};

const MODULE: &[u8] = include_bytes!("../../../fixtures/guests/built/args.wasm");

/// A registry that has `hello` with all its platforms, and a store without anything.
fn with_hello() -> Option<(Sandbox, Registry, String)> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let registry = Registry::start(&cx.path().join("registry"))?;
    let name = format!("{}/hello:1", registry.host);
    let other = Sandbox::new(KETCH, &[Need::Root])?;
    ketch(&other, &["image", "inspect", "hello"]);
    ketch(&other, &["push", "hello", &name]);
    Some((cx, registry, name))
}

/// The files of compiled modules.
fn compiled(cx: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![cx.path().join("root/compiled")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn platform_that_was_not_pulled_is_fetched_by_run() {
    let Some((cx, registry, name)) = with_hello() else {
        return;
    };
    ketch(&cx, &["pull", "-q", &name]);
    let greeting = ketch(&cx, &["run", "--rm", &name]);
    assert!(!greeting.contains("wasm sandbox"), "{greeting}");
    let run = cx.ketch([
        "run",
        "--rm",
        "--pull",
        "never",
        "--platform",
        "wasi/wasm",
        &name,
    ]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("not there for platform wasi/wasm"));
    let greeting = ketch(&cx, &["run", "--rm", "--platform", "wasi/wasm", &name]);
    assert!(greeting.contains("wasm sandbox"), "{greeting}");
    // One name, two images now; one of them goes without the other.
    ketch(&cx, &["rmi", "--platform", "wasi/wasm", &name]);
    ketch(&cx, &["run", "--rm", &name]);
    // What nobody has is said as that.
    let run = cx.ketch(["run", "--rm", "--platform", "linux/s390x", &name]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("linux/s390x"), "{}", run.stderr);
    drop(registry);
    let run = cx.ketch(["run", "--rm", "--platform", "linux/s390x", &name]);
    assert!(
        run.stderr.contains("not there for platform linux/s390x"),
        "{}",
        run.stderr
    );
}

#[test]
fn module_is_compiled_by_the_pull() {
    let Some((cx, registry, name)) = with_hello() else {
        return;
    };
    ketch(&cx, &["pull", "-q", &name]);
    assert_eq!(
        compiled(&cx),
        [""; 0],
        "a Linux image has nothing to compile"
    );
    ketch(&cx, &["pull", "-q", "--platform", "wasi/wasm", &name]);
    let before = compiled(&cx);
    assert!(!before.is_empty());
    ketch(&cx, &["run", "--rm", "--platform", "wasi/wasm", &name]);
    assert_eq!(compiled(&cx), before, "the run found it");
    // A module that is a blob of its own.
    let file = cx.path().join("args.wasm");
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/guests/built/args.wasm"),
        &file,
    )
    .unwrap();
    assert_eq!(fs::read(&file).unwrap(), MODULE);
    let artifact = format!("{}/args:1", registry.host);
    ketch(&cx, &["push", file.to_str().unwrap(), &artifact]);
    ketch(&cx, &["rmi", &artifact]);
    let before = compiled(&cx).len();
    ketch(&cx, &["pull", "-q", &artifact]);
    let after = compiled(&cx);
    assert!(after.len() > before);
    ketch(&cx, &["run", "--rm", &artifact, "a"]);
    assert_eq!(compiled(&cx), after);
}

#[test]
fn wrapped_component_and_module_have_the_documents_of_the_artifact() {
    let Some(cx) = Sandbox::new(KETCH, &[]) else {
        return;
    };
    let file = cx.path().join("args.wasm");
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/guests/built/args.wasm"),
        &file,
    )
    .unwrap();
    ketch(
        &cx,
        &["image", "wrap", "-t", "wrapped", file.to_str().unwrap()],
    );
    let manifest: Value =
        serde_json::from_str(&ketch(&cx, &["manifest", "inspect", "wrapped"])).unwrap();
    // What wkg and runwasi look at (tag-runtime `wasm-oci-artifact`).
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let digest = manifest["config"]["digest"].as_str().unwrap();
    let content = cx.path().join("root/content/sha256");
    let config = fs::read(content.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["os"], "wasip1");
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["component"], Value::Null);
}

#[test]
fn progress_as_json_has_a_beginning_and_an_end_of_every_blob() {
    let Some((cx, _registry, name)) = with_hello() else {
        return;
    };
    let run = cx.ketch(["pull", "--progress", "json", &name]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines: Vec<Value> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |task: &str, status: &str| {
        let such = lines
            .iter()
            .filter(|line| line["task"] == task && line["status"] == status);
        let mut digests: Vec<_> = such.map(|line| line["digest"].to_string()).collect();
        digests.sort();
        digests
    };
    assert!(of("downloading", "begin").len() >= 2, "{}", run.stderr);
    assert_eq!(of("downloading", "begin"), of("downloading", "downloaded"));
    assert_eq!(of("unpacking", "begin"), of("unpacking", "unpacked"));
    assert!(!of("unpacking", "begin").is_empty());
    let run = cx.ketch(["pull", "--progress", "json", &name]);
    assert!(
        !run.stderr.contains("\"begin\",\"task\":\"unpacking\""),
        "{}",
        run.stderr
    );
}

#[test]
fn tags_and_referrers_of_a_registry_are_listed() {
    let Some((cx, registry, name)) = with_hello() else {
        return;
    };
    let host = &registry.host;
    ketch(&cx, &["pull", "-q", &name]);
    ketch(&cx, &["push", &name, &format!("{host}/hello:two")]);
    let tags = ketch(&cx, &["image", "tags", &format!("{host}/hello")]);
    // In the registry's own order.
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "two"]);
    let none = ketch(&cx, &["image", "referrers", "--format", "json", &name]);
    assert_eq!(none, "[]\n");
    let run = cx.ketch(["image", "tags", &format!("{host}/absent")]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("not found"), "{}", run.stderr);
}

#[test]
fn files_look_the_same_in_both_forms_of_layers() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let busybox = fs::read(testkit::BUSYBOX).unwrap();
    let files: [(&str, &[u8], u32); 3] = [
        ("bin/sh", &busybox, 0o755),
        ("f", b"from the image\n", 0o644),
        ("d/g", b"x", 0o600),
    ];
    cx.image("box", &files, &[]);
    // A file keeps its number when it is changed, and is found by a walk that stays on one file system.
    let script = "before=$(stat -c %i /f); echo more >>/f; [ $before = $(stat -c %i /f) ] && echo one number
        find / -xdev -name g; cat /f; ln /f /h && rm /f && cat /h; stat -c %a /d/g; rm -r /d; ls /d";
    let mut seen = Vec::new();
    for form in ["directory", "auto"] {
        let mut command = cx.command();
        command.env("KETCH_LAYERS", form);
        let done = command.args(["run", "--rm", "box", "/bin/sh", "-c", script]);
        let done = done.output().unwrap();
        seen.push(String::from_utf8(done.stdout).unwrap());
    }
    let expected = "one number\n/d/g\nfrom the image\nmore\nfrom the image\nmore\n600\n";
    assert_eq!(seen, [expected, expected]);
}

#[test]
fn container_of_before_a_boot_finds_its_layers_again() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let busybox = fs::read(testkit::BUSYBOX).unwrap();
    cx.image("box", &[("bin/sh", &busybox, 0o755)], &[]);
    ketch(
        &cx,
        &[
            "create",
            "--name",
            "old",
            "box",
            "/bin/sh",
            "-c",
            "echo alive",
        ],
    );
    // What a boot does to the run directory.
    let run = cx.path().join("run");
    for entry in fs::read_dir(run.join("layers")).into_iter().flatten() {
        let path = entry.unwrap().path();
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    let done = Command::new("rm")
        .arg("-rf")
        .arg(run.join("layers"))
        .status();
    assert!(done.unwrap().success());
    assert_eq!(ketch(&cx, &["start", "-a", "old"]), "alive\n");
}

/// What `du` counts below paths.
fn du(paths: &[&Path]) -> u64 {
    let mut command = Command::new("du");
    let done = command.args(["-s", "-c", "-B1"]).args(paths).output();
    let text = String::from_utf8(done.unwrap().stdout).unwrap();
    let last = text.lines().last().unwrap();
    last.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn disk_usage_agrees_with_du_in_both_forms_of_layers() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let layers: Vec<Vec<u8>> = (0..2_u8)
        .map(|layer| {
            let mut tar = tar::Builder::new(Vec::new());
            for file in 0..200 {
                let mut header = tar::Header::new_gnu();
                header.set_size(9000);
                header.set_mode(0o644);
                let body = vec![layer; 9000];
                let path = format!("{layer}/{file}");
                tar.append_data(&mut header, path, body.as_slice()).unwrap();
            }
            tar.into_inner().unwrap()
        })
        .collect();
    let archive = cx.path().join("image.tar");
    docker_archive(&archive, "app", &layers);
    for form in ["directory", "auto"] {
        let run = |args: &[&str]| {
            let mut command = cx.command();
            let done = command.env("KETCH_LAYERS", form).args(args).output();
            let done = done.unwrap();
            assert!(done.status.success(), "{args:?}");
            String::from_utf8(done.stdout).unwrap()
        };
        run(&["load", "-i", archive.to_str().unwrap()]);
        let line = run(&["system", "df", "-v", "--format", "json"]);
        let shown: Value = serde_json::from_str(&line).unwrap();
        let root = cx.path().join("root");
        let (content, layers) = (root.join("content/sha256"), root.join("layers"));
        let all = du(&[&content, &layers]);
        let own = fs::read_dir(&layers).unwrap().count() as u64;
        let size = shown["Images"][0]["Size"].as_u64().unwrap();
        // The two directories, and a record of a block beside each layer.
        let around = 4096 * (2 + own);
        assert!(size <= all && all - size <= around, "{form}: {size} {all}");
        assert_eq!(shown["Total"].as_u64().unwrap(), size, "{form}");
        run(&["rmi", "app"]);
    }
}

#[test]
fn save_at_a_fixed_time_gives_the_same_bytes() {
    let Some(cx) = Sandbox::new(KETCH, &[]) else {
        return;
    };
    ketch(&cx, &["image", "inspect", "hello"]);
    let save = |epoch: Option<&str>, platform: &[&str]| {
        let mut command = cx.command();
        command.args(["save"]).args(platform).arg("hello");
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        let done = command.output().unwrap();
        (done.status.success(), done.stdout)
    };
    let one = save(Some("1700000000"), &[]);
    assert!(one.0 && one == save(Some("1700000000"), &[]));
    assert!(one.1 != save(None, &[]).1);
    assert!(!save(Some("yesterday"), &[]).0);
    let part = save(None, &["--platform", "wasi/wasm"]);
    assert!(part.0 && part.1.len() < save(None, &[]).1.len());
    assert!(!save(None, &["--platform", "linux/s390x"]).0);
}
