//! A disk that is too small: one line says so, nothing half-made stays, and what was asked for
//! succeeds once there is room.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");
const ROOM_KIB: u32 = 64 * 1024;

/// A disk that holds the store's own files and a small image.
const SMALL_KIB: u32 = 4 * 1024;

fn sandbox() -> Option<Sandbox> {
    Some(Sandbox::new(KETCH, &[Need::Root])?.on_disk_of_kib(SMALL_KIB))
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Bytes that no compression makes smaller (xorshift).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn args_guest() -> &'static [u8] {
    include_bytes!("../../fixtures/guests/built/args.x86_64")
}

/// An archive of an image with 12 MiB in it, saved by a store with room; the compressed layer fits
/// the small disk in neither form.
fn large_archive() -> Option<Vec<u8>> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let noise = noise(12 << 20);
    let rootfs = tar(&[("args", args_guest()), ("noise", &noise)]);
    let run = cx.ketch_with_input(["import", "-", "large"], &rootfs);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let file = cx.path().join("large.tar");
    let run = cx.ketch(["save", "-o", file.to_str().unwrap(), "large"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    Some(std::fs::read(file).unwrap())
}

/// One line that says what is wrong, and an exit code of a failure of ours.
#[track_caller]
fn assert_no_space(run: &Run) {
    assert!([1, 125].contains(&run.code), "{}: {}", run.code, run.stderr);
    let mut errors = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_default().to_lowercase();
    assert!(error.starts_with("error: cannot"), "{}", run.stderr);
    assert!(error.contains("no space left on device"), "{}", run.stderr);
    assert_eq!(errors.next(), None, "{}", run.stderr);
}

/// Nothing is being made, nothing is being removed, and no image or layer is there.
#[track_caller]
fn assert_store_is_empty(cx: &Sandbox) {
    assert_eq!(cx.ketch(["images", "-q"]).stdout, "");
    let files = cx.disk_files();
    for dir in ["tmp/", "trash/", "layers/", "content/sha256/"] {
        let left: Vec<&String> = files.iter().filter(|file| file.starts_with(dir)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn import_on_a_full_disk_leaves_nothing_and_succeeds_with_room() {
    let Some(cx) = sandbox() else { return };
    let noise = noise(12 << 20);
    let rootfs = tar(&[("args", args_guest()), ("noise", &noise)]);
    let import = || cx.ketch_with_input(["import", "-", "large"], &rootfs);
    assert_no_space(&import());
    assert_store_is_empty(&cx);
    cx.resize_disk_to_kib(ROOM_KIB);
    assert_eq!(import().code, 0);
    let run = cx.ketch(["run", "--rm", "large", "/args", "7"]);
    assert_eq!(run.code, 7, "{}", run.stderr);
}

#[test]
fn load_on_a_full_disk_leaves_nothing_and_succeeds_with_room() {
    let Some(archive) = large_archive() else {
        return;
    };
    let Some(cx) = sandbox() else { return };
    let load = || cx.ketch_with_input(["load"], &archive);
    assert_no_space(&load());
    assert_store_is_empty(&cx);
    cx.resize_disk_to_kib(ROOM_KIB);
    let loaded = load();
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    let run = cx.ketch(["run", "--rm", "large", "/args", "7"]);
    assert_eq!(run.code, 7, "{}", run.stderr);
}

/// The layer is small as it comes and large when the first container unpacks it.
#[test]
fn layer_that_does_not_fit_when_unpacked_leaves_no_part_of_it() {
    let Some(cx) = sandbox() else { return };
    let zeros = vec![0; 12 << 20];
    let plain = tar(&[("args", args_guest()), ("zeros", &zeros)]);
    let rootfs = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let imported = cx.ketch_with_input(["import", "-", "large"], &rootfs);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let before = cx.disk_files();
    let run = || cx.ketch(["run", "--rm", "large", "/args", "7"]);
    let failed = run();
    assert_no_space(&failed);
    assert_eq!(failed.code, 125);
    assert_eq!(cx.disk_files(), before);
    cx.resize_disk_to_kib(ROOM_KIB);
    assert_eq!(run().code, 7);
}

#[test]
fn create_and_run_on_a_full_disk_leave_no_container_and_succeed_with_room() {
    let Some(cx) = sandbox() else { return };
    cx.image("guests", &[("args", args_guest(), 0o755)], &[]);
    // What is in use already is all there is.
    cx.resize_disk_to_kib(cx.disk_used_kib());
    let before = cx.disk_files();
    for command in ["create", "run"] {
        let run = cx.ketch([command, "--name", "one", "guests", "/args", "7"]);
        assert_no_space(&run);
        assert_eq!(run.code, 125, "{}", run.stderr);
        assert_eq!(cx.disk_files(), before);
        assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
    }
    cx.resize_disk_to_kib(ROOM_KIB);
    let run = cx.ketch(["run", "--name", "one", "guests", "/args", "7"]);
    assert_eq!(run.code, 7, "{}", run.stderr);
}

#[test]
fn disk_that_fills_up_between_create_and_start_stops_the_start_only() {
    let Some(cx) = sandbox() else { return };
    let sleep = include_bytes!("../../fixtures/guests/built/sleep.x86_64").as_slice();
    cx.image("guests", &[("sleep", sleep, 0o755)], &[]);
    let created = cx.ketch(["create", "--name", "one", "guests", "/sleep", "600"]);
    assert_eq!(created.code, 0, "{}", created.stderr);
    cx.resize_disk_to_kib(cx.disk_used_kib());
    assert_no_space(&cx.ketch(["start", "one"]));
    // What nobody could record is not left running.
    assert_eq!(groups_of(created.stdout.trim()), Vec::<PathBuf>::new());
    assert!(!cx.ketch(["ps"]).stdout.contains("one"));
    cx.resize_disk_to_kib(ROOM_KIB);
    assert!(cx.ketch(["ps", "-a"]).stdout.contains("one"));
    assert_eq!(cx.ketch(["start", "one"]).code, 0);
    assert!(cx.ketch(["ps"]).stdout.contains("one"));
    assert_eq!(cx.ketch(["rm", "-f", "one"]).code, 0);
}

/// The container's control groups in any hierarchy.
fn groups_of(id: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let parents = hierarchies.map(|entry| entry.path()).chain([root.into()]);
    parents
        .map(|parent| parent.join("ketch").join(id))
        .filter(|group| group.exists())
        .collect()
}
