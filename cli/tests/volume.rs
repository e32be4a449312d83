//! Volumes through the real processes.

use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A sandbox with the image `files`: a program that reads and writes, and `/data/seed`.
fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let program = include_bytes!("../../fixtures/guests/built/files.x86_64").as_slice();
    cx.image(
        "files",
        &[
            ("files", program, 0o755),
            ("data/seed", b"from the image\n", 0o640),
        ],
        &["ENTRYPOINT [\"/files\"]"],
    );
    Some(cx)
}

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
