//! Rows of the security checklist that concern `run` and `exec`. Each test is called after its row.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags};
use testkit::{BUSYBOX, Need, Sandbox, Subordinate, UserNamespaces, swap};

use super::{KETCH, printed, remove, sandbox, shell, sleeper};

/// How often a racer gets its chance.
const RACES: usize = 40;

/// A devpts in a directory of the host, until it is dropped.
struct Terminals(CString);

impl Terminals {
    fn mount(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let options = Some(c"newinstance,ptmxmode=0666");
        rustix::mount::mount(c"devpts", &*path, c"devpts", MountFlags::empty(), options).unwrap();
        Self(path)
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        let _unmounted = rustix::mount::unmount(&*self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn s04_console_is_a_terminal_whatever_its_path_is_swapped_for() {
    let Some(cx) = sandbox() else { return };
    let canary = cx.path().join("canary");
    fs::create_dir(&canary).unwrap();
    for name in ["ptmx", "0", "console"] {
        fs::File::create(canary.join(name)).unwrap();
    }
    let dev = cx.path().join("dev");
    let pts = dev.join("pts");
    fs::create_dir_all(&pts).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, dev.join("null"), FileType::CharacterDevice, mode, null).unwrap();
    fs::File::create(dev.join("console")).unwrap();
    symlink(&canary, dev.join("link")).unwrap();
    let _terminals = Terminals::mount(&pts);
    let volume = format!("{}:/dev", dev.display());
    let script = "test -t 0 && busybox stat -L -c console:%t /dev/console";
    let mut shown = 0;
    swap(&dev.join("console"), &dev.join("link"), || {
        for _ in 0..RACES {
            let args = ["run", "-d", "-t", "--name", "other", "-v", &volume, "box"];
            let run = cx.ketch(args.into_iter().chain(["busybox", "sh", "-c", script]));
            if run.code == 0 {
                cx.ketch(["wait", "other"]);
                let seen = cx.ketch(["logs", "other"]).stdout;
                shown += usize::from(seen.contains("console:88"));
            }
            remove(&cx);
        }
    });
    let names = fs::read_dir(&canary).unwrap().count();
    assert_eq!(names, 3);
    for name in ["ptmx", "0", "console"] {
        assert_eq!(fs::metadata(canary.join(name)).unwrap().len(), 0);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(canary.to_str().unwrap()), "{mounts}");
    // What is the host's own is as it was.
    assert!(!dev.join("fd").exists() && !dev.join("zero").exists());
    assert!(shown > 0, "no start got as far as its console");
}

/// Starts a program as user `me`, in so little address space that a database of a gigabyte cannot
/// be read whole.
fn exec_as_me(cx: &Sandbox) -> std::process::Output {
    let ketch = cx.command();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -v 1200000; exec \"$@\"", "sh"])
        .arg(ketch.get_program())
        .args(["exec", "-u", "me", "other", "busybox", "id", "-u"])
        .env_clear()
        .envs(ketch.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn s10_databases_of_users_are_files_of_the_image_and_bounded() {
    let Some(cx) = sandbox() else { return };
    let secret = cx.path().join("secret");
    write(&secret, "me:x:4711:0::/:/bin/sh\n");
    sleeper(
        &cx,
        &["--cap-add", "MKNOD", "--device-cgroup-rule", "c 1:5 rwm"],
    );
    assert_eq!(exec_as_me(&cx).stdout, b"1000\n");
    let link = format!("busybox ln -s {} /etc/passwd", secret.display());
    let up = format!(
        "busybox ln -s ../../../../../..{} /etc/passwd",
        secret.display()
    );
    for (what, user) in [
        (link.as_str(), None),
        (up.as_str(), None),
        ("busybox ln -s /proc/1/root/etc/passwd /etc/passwd", None),
        ("busybox mkfifo /etc/passwd", None),
        ("busybox mknod /etc/passwd c 1 5", None),
        ("busybox mkdir /etc/passwd", None),
        ("busybox truncate -s 1G /etc/passwd", None),
        (
            "busybox yes x:x:1:1 | busybox head -c 9000000 > /etc/passwd",
            None,
        ),
        (
            "echo me:x:1000:100::/:/x > /etc/passwd; busybox rm -f /etc/group; \
          busybox mkfifo /etc/group",
            Some("1000\n"),
        ),
        (
            "echo me:x:1000:100::/:/x > /etc/passwd; busybox rm -f /etc/group; \
          busybox truncate -s 1G /etc/group",
            Some("1000\n"),
        ),
    ] {
        let script = format!("busybox rm -rf /etc/passwd; {what}");
        let made = cx.ketch(["exec", "other", "busybox", "sh", "-c", &script]);
        assert_eq!(made.code, 0, "{what}: {}", made.stderr);
        let run = exec_as_me(&cx);
        let error = String::from_utf8_lossy(&run.stderr);
        match user {
            Some(id) => assert_eq!(run.stdout, id.as_bytes(), "{what}: {error}"),
            None => {
                assert_eq!(run.status.code(), Some(125), "{what}: {error}");
                assert!(error.contains("cannot find user `me`"), "{what}: {error}");
            }
        }
    }
    remove(&cx);
}

#[expect(clippy::disallowed_methods, reason = "test code")]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn s15_control_groups_of_the_host_are_not_an_ordinary_users() {
    let needs = [Need::Root, Need::IdMapPrograms, Need::Busybox];
    let Some(cx) = Sandbox::new(KETCH, &needs) else {
        return;
    };
    let cx = cx.as_user(Subordinate::Ids, UserNamespaces::Allowed);
    let busybox = fs::read(BUSYBOX).unwrap();
    cx.image(
        "box",
        &[("bin/busybox", &busybox, 0o755)],
        &["ENV PATH=/bin"],
    );
    let script = "for dir in $(busybox find /sys/fs/cgroup -type d); do \
        busybox mkdir $dir/mine 2>/dev/null && echo made $dir; \
        (echo 0 > $dir/cgroup.procs) 2>/dev/null && echo wrote $dir; done; \
        busybox awk '$2 ~ \"^/sys/fs/cgroup\" && $4 !~ \"^ro\" {print}' /proc/mounts; echo end";
    for options in [
        &[][..],
        &["--cgroupns=host"],
        &["--privileged"],
        &["--security-opt", "writable-cgroups=true"],
        &["--cap-add", "SYS_ADMIN"],
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend_from_slice(options);
        args.extend(["box", "/bin/busybox", "sh", "-c", script]);
        let run = cx.ketch(args);
        assert_eq!(run.stdout, "end\n", "{options:?}: {}", run.stderr);
    }
}

/// The memory of a process that nobody shares, in KiB.
fn private_kib(pid: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// The monitor of the container: the parent of its first process.
fn monitor(cx: &Sandbox) -> String {
    let pid = cx.ketch(["inspect", "--format", "{{.State.Pid}}", "other"]);
    let status = fs::read_to_string(format!("/proc/{}/status", pid.stdout.trim())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    parent.unwrap().to_owned()
}

#[test]
fn s45_callers_that_vanish_leave_nothing_and_cost_nothing() {
    const CALLERS: usize = 1000;
    const AT_ONCE: usize = 20;
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch([
        "run",
        "-d",
        "-i",
        "--name",
        "other",
        "box",
        "busybox",
        "sh",
        "-c",
        "while busybox sleep 0.01; do echo line; done",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let monitor = monitor(&cx);
    for _ in 0..CALLERS / AT_ONCE {
        let callers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                cx.command()
                    .args(["attach", "other"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut caller in callers {
            // It may have ended because its input has.
            let _ended = caller.kill();
            caller.wait().unwrap();
        }
    }
    // The monitor answers, and has kept neither memory nor descriptors of them.
    assert!(cx.ketch(["logs", "other"]).stdout.contains("line"));
    let private = private_kib(&monitor);
    assert!(private < 16 << 10, "{private} KiB");
    let open = fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().count();
    assert!(open < 40, "{open} descriptors");
    remove(&cx);
}

#[test]
fn s45_programs_whose_output_nobody_reads_end_with_their_callers() {
    const CALLERS: usize = 50;
    let Some(cx) = sandbox() else { return };
    sleeper(&cx, &[]);
    let monitor = monitor(&cx);
    let mut callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let dd = ["dd", "if=/dev/zero", "bs=1048576", "count=1024"];
            cx.command()
                .args(["exec", "other", "busybox"])
                .args(dd)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for caller in &mut callers {
        // It has begun to write, and gets no further than its pipe.
        let output = caller.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut [0; 1]).unwrap();
        let private = private_kib(&caller.id().to_string());
        assert!(private < 16 << 10, "{private} KiB");
    }
    let private = private_kib(&monitor);
    assert!(private < 16 << 10, "{private} KiB");
    for mut caller in callers {
        drop(caller.stdout.take());
        assert_eq!(caller.wait().unwrap().code(), Some(128 + 13));
    }
    let left = cx.ketch(["exec", "other", "busybox", "pidof", "dd"]);
    assert_eq!(left.stdout, "", "{}", left.stderr);
    remove(&cx);
}

#[test]
fn s45_shared_memory_is_bounded() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox dd if=/dev/zero of=/dev/shm/x bs=1048576 count=200 2>&1 | busybox grep -c 'No space'; \
        busybox du -m /dev/shm/x | busybox cut -f1";
    assert_eq!(printed(&cx, &[], script), "1\n64");
    assert_eq!(printed(&cx, &["--shm-size=2m"], script), "1\n2");
    assert_eq!(shell(&cx, &["--ipc=none"], "echo x > /dev/shm/x").code, 1);
}
