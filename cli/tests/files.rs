//! The files of containers from outside: `cp`, `diff`, `export`, `commit`, of both kinds of
//! container, running and not, for root and for ordinary users.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use testkit::{BUSYBOX, Need, Run, Sandbox, Subordinate, UserNamespaces};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

const WASM_FILES: &[u8] = include_bytes!("../../fixtures/guests/built/files.wasm");

/// A sandbox with the image `box`: a shell and a few files.
fn with_box() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    make_box(&cx);
    Some(cx)
}

fn make_box(cx: &Sandbox) {
    let busybox = std::fs::read(BUSYBOX).unwrap();
    let files = [
        ("bin/busybox", busybox.as_slice(), 0o755),
        ("etc/motd", b"hello\n".as_slice(), 0o644),
        ("dir/a", b"a".as_slice(), 0o640),
        ("dir/sub/b", b"b".as_slice(), 0o644),
        ("gone", b"x".as_slice(), 0o644),
    ];
    let changes = ["CMD [\"/bin/busybox\", \"sleep\", \"600\"]"];
    cx.image("box", &files, &changes);
}

#[track_caller]
fn ok(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

/// A container named `c`: one that waits, and one that runs.
fn both(cx: &Sandbox, mut check: impl FnMut(&str)) {
    ok(&cx.ketch(["create", "--name", "waits", "box"]));
    check("waits");
    ok(&cx.ketch(["run", "-d", "--name", "runs", "box"]));
    check("runs");
    ok(&cx.ketch(["rm", "-f", "runs", "waits"]));
}

fn host_file(cx: &Sandbox, name: &str, bytes: &[u8]) -> String {
    use std::io::Write;
    let path = cx.path().join(name);
    std::fs::File::create(&path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
    path.to_str().unwrap().to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The regular files of an archive, and everything else with an empty content.
fn untar(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        (path, String::from_utf8_lossy(&text).into_owned())
    });
    entries.collect()
}

/// What `ketch` writes to standard output, as bytes.
fn bytes_of(cx: &Sandbox, args: &[&str]) -> Vec<u8> {
    let output = cx.command().args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output.stdout
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // The writer refuses `..`, which is what some of these are about.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn cp_follows_the_rules_of_cp_in_both_directions() {
    let Some(cx) = with_box() else { return };
    let out = cx.path().join("out");
    both(&cx, |name| {
        std::fs::create_dir(&out).unwrap();
        let at = |path: &str| format!("{name}:{path}");
        let host = |path: &str| out.join(path).to_str().unwrap().to_owned();
        // A file gets the destination's name, or goes into a directory.
        ok(&cx.ketch(["cp", &at("/etc/motd"), &host("new")]));
        ok(&cx.ketch(["cp", &at("etc/motd"), &host(".")]));
        assert_eq!(
            (read(out.join("new")), read(out.join("motd"))),
            ("hello\n".into(), "hello\n".into())
        );
        // A directory gets the name, goes into one, or its contents do.
        ok(&cx.ketch(["cp", &at("/dir"), &host("copy")]));
        ok(&cx.ketch(["cp", &at("/dir"), &host(".")]));
        ok(&cx.ketch(["cp", &at("/dir/."), &host(".")]));
        for path in ["copy/sub/b", "dir/sub/b", "sub/b"] {
            assert_eq!(read(out.join(path)), "b", "{path}");
        }
        assert_eq!(
            out.join("copy/a").metadata().unwrap().permissions().mode() & 0o777,
            0o640
        );
        // And back: what was copied can be read by the container.
        ok(&cx.ketch(["cp", &host("copy"), &at("/back")]));
        ok(&cx.ketch(["cp", &host("copy/."), &at("/etc")]));
        ok(&cx.ketch(["cp", &host("new"), &at("/gone")]));
        let all = untar(&bytes_of(&cx, &["cp", &at("/"), "-"]));
        for (path, text) in [
            ("back/sub/b", "b"),
            ("etc/sub/b", "b"),
            ("etc/a", "a"),
            ("gone", "hello\n"),
        ] {
            assert_eq!(all[path], text, "{path}");
        }
        std::fs::remove_dir_all(&out).unwrap();
    });
}

#[test]
fn cp_refuses_what_cp_refuses_and_changes_nothing() {
    let Some(cx) = with_box() else { return };
    let file = host_file(&cx, "file", b"x");
    let dir = cx.path().join("tree");
    std::fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    both(&cx, |name| {
        let at = |path: &str| format!("{name}:{path}");
        let table = [
            (at("/nothing"), file.clone(), "no such file or directory"),
            (at("/etc/motd/"), file.clone(), "no directory"),
            (at("/dir"), file.clone(), "no directory"),
            (file.clone(), at("/none/x"), "no such file or directory"),
            (file.clone(), at("/none/"), "no such directory"),
            (dir.to_owned(), at("/etc/motd"), "no directory"),
            (
                format!("{file}.none"),
                at("/etc"),
                "no such file or directory",
            ),
            (file.clone(), at("/etc/motd/"), "no directory"),
        ];
        for (from, to, why) in table {
            let run = cx.ketch(["cp", &from, &to]);
            assert_eq!(run.code, 1, "{from} {to}");
            assert!(run.stderr.contains(why), "{from} {to}: {}", run.stderr);
        }
        assert_eq!(read(&file), "x");
    });
    for args in [["a", "b"], ["one:/a", "two:/b"], ["-", "-"]] {
        assert_eq!(cx.ketch(["cp", args[0], args[1]]).code, 125);
    }
    let run = cx.ketch(["cp", "missing:/a", &file]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("no such container: missing"),
        "{}",
        run.stderr
    );
}

#[test]
fn cp_streams_archives_also_compressed_ones() {
    let Some(cx) = with_box() else { return };
    both(&cx, |name| {
        let at = |path: &str| format!("{name}:{path}");
        let plain = archive(&[("one/two", b"deep"), ("top", b"flat")]);
        ok(&cx.ketch_with_input(["cp", "-", &at("/dir")], &plain));
        let packed = zstd::encode_all(archive(&[("packed", b"zstd")]).as_slice(), 1).unwrap();
        ok(&cx.ketch_with_input(["cp", "-", &at("/dir")], &packed));
        let files = untar(&bytes_of(&cx, &["cp", &at("/dir"), "-"]));
        let expected = [
            ("dir/one/two", "deep"),
            ("dir/top", "flat"),
            ("dir/packed", "zstd"),
            ("dir/a", "a"),
        ];
        for (path, text) in expected {
            assert_eq!(files[path], text, "{path}");
        }
        assert!(files.contains_key("dir/sub/"), "{files:?}");
        let run = cx.ketch_with_input(["cp", "-", &at("/etc/motd")], &plain);
        assert_eq!(run.code, 1, "{}", run.stderr);
    });
}

#[test]
fn cp_keeps_owners_only_when_it_is_told_to() {
    let Some(cx) = with_box() else { return };
    let file = host_file(&cx, "mine", b"x");
    std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4755)).unwrap();
    both(&cx, |name| {
        let at = |path: &str| format!("{name}:{path}");
        ok(&cx.ketch(["cp", &file, &at("/plain")]));
        ok(&cx.ketch(["cp", "-a", &file, &at("/kept")]));
        let stream = bytes_of(&cx, &["cp", &at("/"), "-"]);
        let mut owners = BTreeMap::new();
        for entry in tar::Archive::new(stream.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            owners.insert(entry.path().unwrap().to_str().unwrap().to_owned(), owner);
        }
        assert_eq!((owners["plain"], owners["kept"]), ((0, 0), (1234, 4321)));
        let out = cx.path().join(format!("out-{name}"));
        let target = out.to_str().unwrap();
        ok(&cx.ketch(["cp", &at("/kept"), target]));
        let meta = out.metadata().unwrap();
        // Nobody gets root's rights by a file of a container.
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o755));
        ok(&cx.ketch(["cp", "-a", &at("/kept"), target]));
        let meta = out.metadata().unwrap();
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o7777),
            (1234, 4321, 0o4755)
        );
    });
}

#[test]
fn links_of_a_container_lead_nowhere_else() {
    let Some(cx) = with_box() else { return };
    let secret = host_file(&cx, "secret", b"of the host");
    let canary = cx.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    both(&cx, |name| {
        let at = |path: &str| format!("{name}:{path}");
        let links = cx.path().join("links");
        std::fs::create_dir(&links).unwrap();
        symlink(&secret, links.join("file")).unwrap();
        symlink(&canary, links.join("dir")).unwrap();
        symlink("../../../../../../..", links.join("up")).unwrap();
        ok(&cx.ketch(["cp", links.to_str().unwrap(), &at("/links")]));
        // A link is copied as one, and followed within the container only.
        let out = cx.path().join("out");
        ok(&cx.ketch(["cp", &at("/links/file"), out.to_str().unwrap()]));
        assert_eq!(std::fs::read_link(&out).unwrap(), Path::new(&secret));
        std::fs::remove_file(&out).unwrap();
        assert_eq!(
            cx.ketch(["cp", "-L", &at("/links/file"), out.to_str().unwrap()])
                .code,
            1
        );
        assert!(!out.exists());
        let through = format!("/links/up{secret}");
        assert_eq!(
            cx.ketch(["cp", &at(&through), out.to_str().unwrap()]).code,
            1
        );
        // What is copied through a link lands in the container, or nowhere.
        let run = cx.ketch(["cp", &secret, &at("/links/dir/new")]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        ok(&cx.ketch(["cp", &secret, &at("/links/up/landed")]));
        ok(&cx.ketch(["cp", &at("/landed"), out.to_str().unwrap()]));
        let hostile = archive(&[("links/dir/../../../../../../escaped", b"x")]);
        assert_eq!(cx.ketch_with_input(["cp", "-", &at("/")], &hostile).code, 1);
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
        std::fs::remove_file(&out).unwrap();
        std::fs::remove_dir_all(&links).unwrap();
    });
}

/// CVE-2018-15664 and its kind: the container swaps a component while it is resolved.
#[test]
fn container_that_swaps_directories_for_links_gets_nothing_of_the_host() {
    let Some(cx) = with_box() else { return };
    let canary = cx.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    let secret = host_file(&cx, "canary/secret", b"of the host");
    let swap = format!(
        "b='/bin/busybox'; $b mkdir -p /w/d{0}; cd /w; echo inside > new; $b mv new d{0}/secret; \
         while :; do $b mv d x; $b ln -s / d; $b rm d; $b mv x d; $b usleep 10000; done",
        canary.display()
    );
    ok(&cx.ketch([
        "run",
        "-d",
        "--name",
        "racer",
        "box",
        "/bin/busybox",
        "sh",
        "-c",
        &swap,
    ]));
    let from = format!("racer:/w/d{}/secret", canary.display());
    let to = format!("racer:/w/d{}/new", canary.display());
    let out = cx.path().join("out");
    let (mut seen, mut refused) = (0, None);
    for _ in 0..200 {
        let run = cx.ketch(["cp", "-L", &from, out.to_str().unwrap()]);
        if run.code == 0 {
            seen += 1;
            assert_eq!(read(&out), "inside\n");
        } else {
            refused = Some(run);
        }
        cx.ketch(["cp", &secret, &to]);
    }
    assert!(seen > 0, "{refused:?}");
    let names: Vec<_> = std::fs::read_dir(&canary)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(read(&secret), "of the host");
    ok(&cx.ketch(["rm", "-f", "racer"]));
}

/// CVE-2019-14271 and its kind: the engine runs or loads nothing that the container brings.
#[test]
fn programs_and_libraries_of_a_container_are_never_used() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let busybox = std::fs::read(BUSYBOX).unwrap();
    let script = b"#!/bin/busybox sh\n/bin/busybox touch /ran\n".as_slice();
    let hostile = [
        "usr/bin/unpigz",
        "usr/bin/xz",
        "usr/bin/gzip",
        "usr/bin/zstd",
        "usr/bin/tar",
        "bin/tar",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "usr/lib/x86_64-linux-gnu/libnss_files.so.2",
    ];
    let mut files = vec![("bin/busybox", busybox.as_slice(), 0o755)];
    files.extend(hostile.map(|path| (path, script, 0o755)));
    cx.image(
        "box",
        &files,
        &["CMD [\"/bin/busybox\", \"sleep\", \"600\"]"],
    );
    both(&cx, |name| {
        let plain = archive(&[("file", b"x")]);
        let packed = zstd::encode_all(plain.as_slice(), 1).unwrap();
        let target = format!("{name}:/");
        ok(&cx.ketch_with_input(["cp", "-", &target], &packed));
        let files = untar(&bytes_of(&cx, &["cp", &target, "-"]));
        assert_eq!(files["file"], "x");
        assert!(!files.contains_key("ran"));
        ok(&cx.ketch(["diff", name]));
        assert!(!untar(&bytes_of(&cx, &["export", name])).contains_key("ran"));
    });
}

#[test]
fn cp_to_a_read_only_root_is_refused_and_to_a_volume_in_it_not() {
    let Some(cx) = with_box() else { return };
    let file = host_file(&cx, "file", b"x");
    for command in [&["create"][..], &["run", "-d"]] {
        let mut args = command.to_vec();
        args.extend(["--name", "ro", "--read-only", "-v", "data:/data", "box"]);
        ok(&cx.ketch(args));
        let run = cx.ketch(["cp", &file, "ro:/etc/x"]);
        assert_eq!(run.code, 1);
        assert!(
            run.stderr.contains("read-only file system"),
            "{}",
            run.stderr
        );
        ok(&cx.ketch(["cp", &file, "ro:/data/x"]));
        ok(&cx.ketch(["rm", "-f", "ro"]));
        let place = cx
            .ketch(["volume", "inspect", "-f", "{{.Mountpoint}}", "data"])
            .stdout;
        assert_eq!(read(Path::new(place.trim()).join("x")), "x");
        ok(&cx.ketch(["volume", "rm", "data"]));
    }
}

#[test]
fn cp_over_a_mounted_file_changes_its_content() {
    let Some(cx) = with_box() else { return };
    let file = host_file(&cx, "hosts", b"127.0.0.1 other\n");
    ok(&cx.ketch(["run", "-d", "--name", "box1", "box"]));
    ok(&cx.ketch(["cp", &file, "box1:/etc/hosts"]));
    let run = cx.ketch(["exec", "box1", "/bin/busybox", "cat", "/etc/hosts"]);
    assert_eq!(run.stdout, "127.0.0.1 other\n");
    ok(&cx.ketch(["rm", "-f", "box1"]));
}

#[test]
fn devices_and_sockets_do_not_reach_the_host() {
    let Some(cx) = with_box() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "box1", "box"]));
    let out = cx.path().join("dev");
    let run = cx.ketch(["cp", "box1:/dev", out.to_str().unwrap()]);
    ok(&run);
    assert!(
        run.stderr.contains("left out `dev/null`: it is a device"),
        "{}",
        run.stderr
    );
    assert!(out.join("shm").is_dir() && !out.join("null").exists());
    ok(&cx.ketch(["rm", "-f", "box1"]));
}

const CHANGES: &str = "b=/bin/busybox; echo new > /new; echo more >> /etc/motd; $b rm /gone; \
     $b rm -r /dir; $b mkdir /dir; echo c > /dir/c";

#[test]
fn diff_names_what_was_added_changed_and_deleted() {
    let Some(cx) = with_box() else { return };
    let unchanged = cx.ketch(["create", "--name", "fresh", "box"]);
    ok(&unchanged);
    assert_eq!(cx.ketch(["diff", "fresh"]).stdout, "");
    ok(&cx.ketch([
        "run",
        "--name",
        "box1",
        "box",
        "/bin/busybox",
        "sh",
        "-c",
        CHANGES,
    ]));
    let expected = "C /dir\nD /dir/a\nA /dir/c\nD /dir/sub\nC /etc\nC /etc/motd\nD /gone\nA /new\n";
    assert_eq!(cx.ketch(["diff", "box1"]).stdout, expected);
    assert_eq!(cx.ketch(["container", "diff", "box1"]).stdout, expected);
    assert_eq!(cx.ketch(["diff", "missing"]).code, 1);
}

#[test]
fn export_is_what_the_container_sees_without_its_volumes() {
    let Some(cx) = with_box() else { return };
    let script = format!("{CHANGES}; echo v > /data/v; exec /bin/busybox sleep 600");
    let args = [
        "run",
        "-d",
        "--name",
        "box1",
        "-v",
        "data:/data",
        "box",
        "/bin/busybox",
        "sh",
        "-c",
        &script,
    ];
    ok(&cx.ketch(args));
    while cx
        .ketch(["exec", "box1", "/bin/busybox", "cat", "/data/v"])
        .code
        != 0
    {}
    let check = |bytes: &[u8]| {
        let files = untar(bytes);
        assert_eq!(
            (files["new"].as_str(), files["dir/c"].as_str()),
            ("new\n", "c\n")
        );
        assert_eq!(files["etc/motd"], "hello\nmore\n");
        assert!(files.contains_key("data/") && !files.contains_key("data/v"));
        assert!(!files.contains_key("gone") && !files.contains_key("dir/a"));
    };
    check(&bytes_of(&cx, &["export", "box1"]));
    ok(&cx.ketch(["kill", "box1"]));
    ok(&cx.ketch(["wait", "box1"]));
    let path = cx.path().join("c.tar");
    ok(&cx.ketch(["export", "-o", path.to_str().unwrap(), "box1"]));
    check(&std::fs::read(path).unwrap());
    // The archive makes an image again.
    let bytes = bytes_of(&cx, &["export", "box1"]);
    ok(&cx.ketch_with_input(["import", "-", "again"], &bytes));
    let run = cx.ketch(["run", "--rm", "again", "/bin/busybox", "cat", "/new"]);
    assert_eq!(run.stdout, "new\n", "{}", run.stderr);
}

#[test]
fn commit_makes_an_image_of_the_changes() {
    let Some(cx) = with_box() else { return };
    let args = [
        "run",
        "-d",
        "--name",
        "box1",
        "-e",
        "COLOUR=blue",
        "-l",
        "a=b",
        "-w",
        "/dir",
        "-u",
        "7:8",
        "--expose",
        "80",
        "box",
        "/bin/busybox",
        "sleep",
        "600",
    ];
    ok(&cx.ketch(args));
    ok(&cx.ketch([
        "exec",
        "-u",
        "0",
        "box1",
        "/bin/busybox",
        "sh",
        "-c",
        CHANGES,
    ]));
    let run = cx.ketch([
        "commit",
        "-a",
        "Ada",
        "-m",
        "why",
        "-c",
        "LABEL x=y",
        "-c",
        "CMD [\"/bin/busybox\", \"cat\", \"/new\"]",
        "box1",
        "made:1",
    ]);
    ok(&run);
    assert!(cx.ketch(["ps"]).stdout.contains("Up "), "it goes on");
    let format = "{{.Config.User}} {{.Config.WorkingDir}} {{index .Config.Labels \"a\"}}{{index .Config.Labels \"x\"}} \
         {{json .Config.Cmd}} {{.Author}} {{.Comment}} {{len .RootFS.Layers}} {{json .Config.Env}} {{json .Config.ExposedPorts}}";
    let record = cx
        .ketch(["image", "inspect", "-f", format, "made:1"])
        .stdout;
    assert!(
        record.starts_with("7:8 /dir by [\"/bin/busybox\",\"cat\",\"/new\"] Ada why 2 "),
        "{record}"
    );
    assert!(
        record.contains("COLOUR=blue") && record.contains("80/tcp") && !record.contains("HOSTNAME"),
        "{record}"
    );
    ok(&cx.ketch(["rm", "-f", "box1"]));
    assert_eq!(cx.ketch(["run", "--rm", "made:1"]).stdout, "new\n");
    let list = cx
        .ketch(["run", "--rm", "made:1", "/bin/busybox", "ls", "/", "/dir"])
        .stdout;
    assert!(
        !list.contains("gone") && list.contains("c\n") && !list.contains("sub"),
        "{list}"
    );
    let history = cx
        .ketch([
            "history",
            "--format",
            "{{.CreatedBy}}|{{.Comment}}",
            "made:1",
        ])
        .stdout;
    assert!(
        history.starts_with("/bin/busybox sleep 600|why\n"),
        "{history}"
    );
}

#[test]
fn commit_of_the_same_files_at_a_fixed_time_is_the_same_image() {
    let Some(cx) = with_box() else { return };
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        ok(&cx.ketch([
            "run",
            "--name",
            name,
            "box",
            "/bin/busybox",
            "sh",
            "-c",
            CHANGES,
        ]));
        let run = cx
            .command()
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .args(["commit", name])
            .output()
            .unwrap();
        assert!(run.status.success());
        ids.push(String::from_utf8(run.stdout).unwrap());
    }
    assert_eq!(ids[0], ids[1]);
    let created = cx
        .ketch(["image", "inspect", "-f", "{{.Created}}", ids[0].trim()])
        .stdout;
    assert_eq!(created, "2023-11-14T22:13:20Z\n");
    let run = cx.ketch(["commit", "-c", "RUN ls", "one"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    // Without changes there is no further layer.
    ok(&cx.ketch(["create", "--name", "fresh", "box"]));
    let id = cx.ketch(["commit", "fresh"]).stdout;
    let layers = cx
        .ketch([
            "image",
            "inspect",
            "-f",
            "{{len .RootFS.Layers}}",
            id.trim(),
        ])
        .stdout;
    assert_eq!(layers, "1\n");
}

#[test]
fn files_of_a_wasm_container_are_as_those_of_any_other() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let files = [
        ("app.wasm", WASM_FILES, 0o644),
        ("text", b"old".as_slice(), 0o644),
    ];
    cx.image("app", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
    ok(&cx.ketch(["run", "--name", "box1", "app", "write", "/new", "text"]));
    assert_eq!(cx.ketch(["diff", "box1"]).stdout, "A /new\n");
    let out = cx.path().join("out");
    ok(&cx.ketch(["cp", "box1:/new", out.to_str().unwrap()]));
    assert!(read(&out).contains("text"));
    let file = host_file(&cx, "file", b"copied");
    ok(&cx.ketch(["cp", &file, "box1:/text"]));
    assert_eq!(untar(&bytes_of(&cx, &["export", "box1"]))["text"], "copied");
    ok(&cx.ketch(["commit", "box1", "made"]));
    let run = cx.ketch(["run", "--rm", "made", "read", "/text"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("copied"), "{}", run.stdout);
    let runtime = cx
        .ketch(["image", "inspect", "-f", "{{.Runtime.Name}}", "made"])
        .stdout;
    assert_eq!(runtime, "wasm\n");
}

#[test]
fn ordinary_users_files_are_copied_compared_exported_and_committed() {
    for ids in [Subordinate::None, Subordinate::Ids] {
        let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox, Need::IdMapPrograms])
        else {
            return;
        };
        let cx = cx.as_user(ids, UserNamespaces::Allowed);
        make_box(&cx);
        let home = cx.path().join("user");
        let file = host_file(&cx, "user/file", b"mine");
        both(&cx, |name| {
            let at = |path: &str| format!("{name}:{path}");
            ok(&cx.ketch(["cp", &file, &at("/etc/x")]));
            let out = home.join("out");
            ok(&cx.ketch(["cp", &at("/etc/x"), out.to_str().unwrap()]));
            assert_eq!(read(&out), "mine");
            assert_eq!(
                out.metadata().unwrap().uid(),
                home.metadata().unwrap().uid()
            );
            std::fs::remove_file(&out).unwrap();
            let changed = cx.ketch(["diff", name]).stdout;
            assert!(changed.contains("A /etc/x"), "{changed}");
            assert_eq!(untar(&bytes_of(&cx, &["export", name]))["etc/x"], "mine");
            let image = cx.ketch(["commit", name]);
            ok(&image);
            let run = cx.ketch([
                "run",
                "--rm",
                image.stdout.trim(),
                "/bin/busybox",
                "cat",
                "/etc/x",
            ]);
            assert_eq!(run.stdout, "mine", "{}", run.stderr);
        });
    }
}
