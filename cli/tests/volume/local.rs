//! Volumes of the local driver.

use crate::{done, refused, sandbox, shell};

#[test]
fn new_volume_is_filled_from_the_image_and_keeps_what_is_written() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch([
        "run",
        "--rm",
        "-v",
        "data:/data",
        "files",
        "write",
        "/data/new",
        "text",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for (file, text) in [("seed", "from the image"), ("new", "text")] {
        let path = format!("/data/{file}");
        let run = cx.ketch(["run", "--rm", "-v", "data:/data:ro", "files", "read", &path]);
        assert!(
            run.stdout.contains(text),
            "{file}: {} {}",
            run.stdout,
            run.stderr
        );
    }
    let data = cx.path().join("root/volumes/data/data/seed");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(data).unwrap());
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn volume_without_copy_stays_empty() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch([
        "run",
        "--rm",
        "-v",
        "bare:/data:nocopy",
        "files",
        "read",
        "/data/seed",
    ]);
    assert_ne!(run.code, 0);
}

#[test]
fn volume_in_use_is_not_removed_and_anonymous_ones_go_with_their_container() {
    let Some(cx) = sandbox() else { return };
    let made = cx.ketch([
        "create",
        "--name",
        "one",
        "-v",
        "data:/data",
        "-v",
        "/other",
        "files",
    ]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(cx.ketch(["volume", "ls", "-q"]).stdout.lines().count(), 2);
    let run = cx.ketch(["volume", "rm", "data"]);
    assert!(
        run.code == 1 && run.stderr.contains("in use by one"),
        "{}",
        run.stderr
    );
    assert_eq!(cx.ketch(["rm", "-v", "one"]).code, 0);
    assert_eq!(cx.ketch(["volume", "ls", "-q"]).stdout, "data\n");
    assert_eq!(cx.ketch(["volume", "rm", "data"]).code, 0);
    assert_eq!(
        cx.ketch([
            "run", "--rm", "-v", "/other", "files", "write", "/other/x", "y"
        ])
        .code,
        0
    );
    assert_eq!(cx.ketch(["volume", "ls", "-q"]).stdout, "");
}

#[test]
fn volumes_from_shares_what_another_container_has() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(
        cx.ketch([
            "run",
            "--name",
            "one",
            "-v",
            "/shared",
            "files",
            "write",
            "/shared/x",
            "y"
        ])
        .code,
        0
    );
    let run = cx.ketch([
        "run",
        "--rm",
        "--volumes-from",
        "one:ro",
        "files",
        "read",
        "/shared/x",
    ]);
    assert!(run.stdout.contains('y'), "{}", run.stderr);
    let run = cx.ketch([
        "run",
        "--rm",
        "--volumes-from",
        "one:ro",
        "files",
        "write",
        "/shared/x",
        "z",
    ]);
    assert_ne!(run.code, 0);
}

#[test]
fn tmpfs_has_its_size_and_unknown_mount_keys_are_refused() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch([
        "run",
        "--rm",
        "--tmpfs",
        "/t:size=64k",
        "files",
        "write",
        "/t/x",
        "y",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = cx.ketch([
        "run",
        "--rm",
        "--mount",
        "type=volume,src=data,dst=/d,subpath=x",
        "files",
        "read",
        "/",
    ]);
    assert!(
        run.code == 125 && run.stderr.contains("`subpath`"),
        "{}",
        run.stderr
    );
    assert_eq!(cx.ketch(["volume", "ls", "-q"]).stdout, "");
}

#[test]
fn failed_creation_leaves_no_volume() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch([
        "run",
        "--network",
        "nowhere",
        "-v",
        "data:/data",
        "files",
        "read",
        "/",
    ]);
    assert_eq!(run.code, 125, "{}", run.stderr);
    assert_eq!(cx.ketch(["volume", "ls", "-q"]).stdout, "");
}

#[test]
fn volume_is_exported_and_imported_with_owners_links_and_attributes() {
    let Some(cx) = sandbox() else { return };
    let made = shell(
        &cx,
        "-v one:/v",
        "cd /v && /busybox mkdir -p a/b && echo text >a/file && /busybox ln a/file a/same \
         && /busybox ln -s /etc link && /busybox chown 7:8 a/file && /busybox chmod 4711 a/file",
    );
    assert_eq!(made.code, 0, "{}", made.stderr);
    let archive = cx.path().join("one.tar");
    done(&cx, &format!("volume export -o {} one", archive.display()));
    done(&cx, "volume create two");
    done(&cx, &format!("volume import two {}", archive.display()));
    let seen = shell(
        &cx,
        "-v two:/v:ro",
        "cd /v && /busybox stat -c '%u %g %a %h' a/file && /busybox readlink link && /busybox cat a/same",
    );
    assert_eq!(seen.stdout, "7 8 4711 2\n/etc\ntext\n", "{}", seen.stderr);
    // By standard output and standard input as well, and what is no archive is refused.
    let bytes = std::fs::read(&archive).unwrap();
    let run = cx.ketch_with_input(["volume", "import", "two", "-"], &bytes);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = cx.ketch_with_input(["volume", "import", "two", "-"], b"no archive at all");
    assert_eq!(run.code, 1, "{}", run.stderr);
    refused(&cx, "volume export none", "no such volume: none");
}

#[test]
fn archive_cannot_write_outside_of_its_volume() {
    let Some(cx) = sandbox() else { return };
    done(&cx, "volume create data");
    let canary = cx.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "way", &canary).unwrap();
    let mut file = tar::Header::new_gnu();
    file.set_size(1);
    file.set_mode(0o644);
    archive
        .append_data(&mut file, "way/out", &b"x"[..])
        .unwrap();
    let bytes = archive.into_inner().unwrap();
    let run = cx.ketch_with_input(["volume", "import", "data", "-"], &bytes);
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
}

#[test]
fn options_of_the_local_driver_mount_directories_memory_and_file_systems() {
    let Some(cx) = sandbox() else { return };
    let dir = cx.path().join("dir");
    let (low, upper, work) = (dir.join("low"), dir.join("upper"), dir.join("work"));
    for part in [&low, &upper, &work] {
        std::fs::create_dir_all(part).unwrap();
    }
    let path = |path: &std::path::Path| path.display().to_string();
    done(
        &cx,
        &format!(
            "volume create -o type=none -o o=bind -o device={} bound",
            path(&dir)
        ),
    );
    done(
        &cx,
        "volume create -o type=tmpfs -o device=tmpfs -o o=size=64k,mode=1770 memory",
    );
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        path(&low),
        path(&upper),
        path(&work)
    );
    done(
        &cx,
        &format!("volume create -o type=overlay -o device=overlay -o o={layers} over"),
    );
    for (volume, script) in [
        ("bound", "echo x >/v/made"),
        (
            "memory",
            "/busybox stat -c %a /v | /busybox grep -q 1770 && ! /busybox dd if=/dev/zero of=/v/x bs=1k count=100",
        ),
        ("over", "echo y >/v/written"),
    ] {
        let run = shell(&cx, &format!("-v {volume}:/v"), script);
        assert_eq!(run.code, 0, "{volume}: {}", run.stderr);
    }
    assert!(dir.join("made").exists() && upper.join("written").exists());
    for (args, says) in [
        (
            "volume create -o type=ext5 -o device=/dev/none x1",
            "no file system `ext5`",
        ),
        (
            "volume create -o o=bind -o device=/gone/away x2",
            "no such file or directory",
        ),
        ("volume create -o size=1g x3", "volume option `size`"),
        ("volume create -o type=nfs x4", "name no device"),
        ("volume create bad/name", "cannot name a volume"),
        (
            "volume create -o type=tmpfs -o device=tmpfs bound",
            "exists with other options",
        ),
        ("volume rm none", "no such volume: none"),
        (
            "run -v /gone/away:/v files read /",
            "no such file or directory",
        ),
        (
            "run -v relative/path:/v files read /",
            "no such file or directory",
        ),
        ("run -v data:v files read /", "must be absolute"),
        (
            "run -v data:/v -v data:/v files read /",
            "cannot mount twice",
        ),
    ] {
        refused(&cx, args, says);
    }
    assert!(!std::path::Path::new("/gone").exists());
}
