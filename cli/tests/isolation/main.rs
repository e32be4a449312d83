//! The options of `run`, `create` and `exec` that decide what stands between a container and the
//! host, through the real processes: each asked of the container itself.

#![expect(clippy::unwrap_used, reason = "test code")]

mod devices;
mod hostile;
mod init;
mod limits;
mod namespaces;
mod privileges;
mod refusals;

use testkit::{BUSYBOX, Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A sandbox with the image `box`: busybox with a shell, and users.
fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    let busybox = std::fs::read(BUSYBOX).unwrap();
    let files = [
        ("bin/busybox", busybox.as_slice(), 0o755),
        ("bin/sh", busybox.as_slice(), 0o755),
        (
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\n".as_slice(),
            0o644,
        ),
        ("etc/group", b"audio:x:29:\n".as_slice(), 0o644),
    ];
    cx.image("box", &files, &["ENV PATH=/bin"]);
    Some(cx)
}

/// Runs a shell command of busybox's applets in a container with these options.
fn shell(cx: &Sandbox, options: &[&str], script: &str) -> Run {
    let mut args = vec!["run", "--rm"];
    args.extend_from_slice(options);
    args.extend(["box", "busybox", "sh", "-c", script]);
    cx.ketch(args)
}

/// What it prints, when it succeeds.
fn printed(cx: &Sandbox, options: &[&str], script: &str) -> String {
    let run = shell(cx, options, script);
    assert_eq!(run.code, 0, "{options:?}: {}", run.stderr);
    run.stdout.trim_end().to_owned()
}

/// A container `other` that sleeps.
fn sleeper(cx: &Sandbox, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", "other"];
    args.extend_from_slice(options);
    args.extend(["box", "busybox", "sleep", "1000"]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

fn remove(cx: &Sandbox) {
    assert_eq!(cx.ketch(["rm", "-f", "other"]).code, 0);
}
