//! Builds that end before they are done: the user stops them, or the disk is full.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{BUSYBOX, Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");
const ROOM_KIB: u32 = 64 * 1024;

fn base(cx: &Sandbox) {
    let busybox = fs::read(BUSYBOX).unwrap();
    cx.image("base", &[("bin/sh", &busybox, 0o755)], &[]);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn cached(run: &Run) -> usize {
    let lines = run.stderr.lines();
    lines
        .filter(|line| line.starts_with('#') && line.contains("CACHED"))
        .count()
}

#[test]
fn interrupted_build_stops_its_steps_and_keeps_what_was_done() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    base(&cx);
    let context = cx.path().join("context");
    fs::create_dir(&context).unwrap();
    let dockerfile = context.join("Dockerfile");
    let kept = "FROM base\nRUN echo kept >/kept\n";
    write(
        &dockerfile,
        &format!(
            "{kept}RUN echo one is up; while :; do :; done\nFROM base\nRUN echo two is up; while :; do :; done\nCOPY --from=0 /kept /\n"
        ),
    );
    let mut command = cx.command();
    let mut child = command
        .args(["build", "--progress=plain", "--network=none", "-t", "out"])
        .arg(&context)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut up = 0;
    while up < 2 {
        // A build that ends before both are up ends the lines.
        let line = lines.next().unwrap().unwrap();
        let is_output = line.contains("is up") && !line.contains("RUN");
        up += usize::from(is_output);
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{rest:?}");
    let told = rest
        .iter()
        .any(|line| line.contains("the build was stopped"));
    assert!(told, "{rest:?}");
    // No step, and nothing half-made, is left.
    let root = cx.path().join("root");
    assert_eq!(names(&root.join("containers")), ["names"]);
    assert_eq!(names(&root.join("tmp")), Vec::<String>::new());
    assert_eq!(cx.ketch(["image", "inspect", "out"]).code, 1);
    write(&dockerfile, kept);
    let context = context.to_str().unwrap();
    let run = cx.ketch(["build", "--progress=plain", "--network=none", context]);
    assert_eq!((run.code, cached(&run)), (0, 2), "{}", run.stderr);
}

#[test]
fn full_disk_fails_the_step_and_names_nothing() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let cx = cx.on_disk_of_kib(16 * 1024);
    base(&cx);
    let context = cx.path().join("context");
    fs::create_dir(&context).unwrap();
    let file = fs::File::create(context.join("big")).unwrap();
    file.set_len(24 << 20).unwrap();
    let context = context.to_str().unwrap();
    let build = |dockerfile: &str| {
        write(&Path::new(context).join("Dockerfile"), dockerfile);
        let args = ["build", "--progress=plain", "--network=none", "-t", "out"];
        cx.ketch(args.into_iter().chain([context]))
    };
    // Unpacks the base.
    assert_eq!(build("FROM base\nRUN echo x >/x\n").code, 0);
    assert_eq!(cx.ketch(["rmi", "-f", "out"]).code, 0);
    let in_work = |files: Vec<String>| -> Vec<String> {
        let is_work = |file: &String| file.starts_with("tmp/") || file.starts_with("layers/");
        files.into_iter().filter(is_work).collect()
    };
    let before = in_work(cx.disk_files());
    let copy = "FROM base\nRUN echo x >/x\nCOPY big /big\n";
    let write_it = "FROM base\nRUN echo x >/x\nRUN while echo 0123456789012345678901234567890123456789012345678901234567890123456789; do :; done >/big; exit 3\n";
    let failed = build(copy);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let text = failed.stderr.to_lowercase();
    assert!(
        text.contains("dockerfile:3:1: cannot carry out copy"),
        "{text}"
    );
    assert!(text.contains("no space left on device"), "{text}");
    let failed = build(write_it);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(
        failed
            .stderr
            .contains("Dockerfile:3:1: the command ended with exit code"),
        "{}",
        failed.stderr
    );
    assert_eq!(cx.ketch(["image", "inspect", "out"]).code, 1);
    assert_eq!(in_work(cx.disk_files()), before);
    cx.resize_disk_to_kib(ROOM_KIB);
    let run = build(copy);
    assert_eq!((run.code, cached(&run)), (0, 2), "{}", run.stderr);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file, which nobody else reads"
)]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}
