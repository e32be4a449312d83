//! Volumes and mounts through the real processes.
#![expect(clippy::unwrap_used, reason = "test code")]

mod driver;
mod local;
mod mounts;
mod races;

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A sandbox with the image `files`: a program that reads and writes, and `/data/seed`.
fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    let program = include_bytes!("../../../fixtures/guests/built/files.x86_64").as_slice();
    let busybox = std::fs::read(testkit::BUSYBOX).unwrap();
    cx.image(
        "files",
        &[
            ("files", program, 0o755),
            ("busybox", &busybox, 0o755),
            ("data/seed", b"from the image\n", 0o640),
        ],
        &["ENTRYPOINT [\"/files\"]"],
    );
    Some(cx)
}

/// Runs a command line whose words have no spaces, which must succeed.
#[track_caller]
fn done(cx: &Sandbox, args: &str) -> String {
    let run = cx.ketch(args.split(' '));
    assert_eq!(run.code, 0, "{args}: {}", run.stderr);
    run.stdout
}

/// A shell's words in a container with these mounts.
fn shell(cx: &Sandbox, options: &str, script: &str) -> Run {
    let mut args = vec!["run", "--rm"];
    args.extend(options.split(' ').filter(|word| !word.is_empty()));
    args.extend(["--entrypoint", "/busybox", "files", "sh", "-c", script]);
    cx.ketch(args)
}

/// A request that is refused in one line which says this.
#[track_caller]
fn refused(cx: &Sandbox, args: &str, says: &str) {
    let run = cx.ketch(args.split(' '));
    assert!(run.code == 125 || run.code == 1, "{args}: {run:?}");
    assert!(run.stderr.contains(says), "{args}: {}", run.stderr);
    assert_eq!(
        run.stderr.matches("error:").count(),
        1,
        "{args}: {}",
        run.stderr
    );
}
