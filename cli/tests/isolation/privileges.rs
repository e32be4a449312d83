//! Capabilities, filters, hidden paths, users.

use super::{printed, remove, sandbox, shell, sleeper};

const BOUNDING: &str = "busybox grep CapBnd /proc/self/status | busybox cut -f2";
const SECCOMP: &str = "busybox grep ^Seccomp: /proc/self/status | busybox cut -f2";

#[test]
fn capabilities_are_added_and_taken_away() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(printed(&cx, &[], BOUNDING), "00000000a80425fb");
    assert_eq!(
        printed(&cx, &["--cap-drop", "all"], BOUNDING),
        "0000000000000000"
    );
    let some = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "cap_chown",
        "--cap-add",
        "KILL",
    ];
    assert_eq!(printed(&cx, &some, BOUNDING), "0000000000000021");
    let run = shell(&cx, &["--cap-add", "NONSENSE"], "true");
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("`NONSENSE` is not a capability"),
        "{}",
        run.stderr
    );
}

#[test]
fn privileged_container_has_devices_and_nothing_hidden() {
    let Some(cx) = sandbox() else { return };
    let script = format!(
        "{BOUNDING}; {SECCOMP}; busybox test -w /proc/sysrq-trigger; \
        busybox grep -c ' /proc/' /proc/mounts; busybox ls /dev/kmsg"
    );
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    let ours = ours
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:\t"))
        .unwrap();
    let expected = format!("{ours}\n0\n0\n/dev/kmsg");
    let run = shell(&cx, &["--privileged"], &script);
    assert_eq!(run.stdout.trim_end(), expected, "{}", run.stderr);
    // Nothing of that without it.
    let run = shell(
        &cx,
        &[],
        "busybox ls /dev/kmsg; busybox grep -c ' /proc/' /proc/mounts",
    );
    assert!(run.stderr.contains("No such file"), "{}", run.stderr);
    assert_ne!(run.stdout.trim_end(), "0");
}

#[test]
fn filter_is_dockers_another_or_none() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(printed(&cx, &[], SECCOMP), "2");
    let none = ["--security-opt", "seccomp=unconfined"];
    assert_eq!(printed(&cx, &none, SECCOMP), "0");
    let profile = cx.path().join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],
        "action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
    write(&profile, text);
    let option = format!("seccomp={}", profile.display());
    let run = shell(&cx, &["--security-opt", &option], "busybox mkdir /x");
    assert!(
        run.stderr.contains("Function not implemented"),
        "{}",
        run.stderr
    );
    write(&profile, r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#);
    let run = shell(&cx, &["--security-opt", &option], "true");
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("SCMP_ACT_NONSENSE"), "{}", run.stderr);
}

#[expect(clippy::disallowed_methods, reason = "test code")]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn capability_that_is_added_opens_its_calls_in_the_filter() {
    let Some(cx) = sandbox() else { return };
    let mount = "busybox mount -t tmpfs none /mnt && echo mounted";
    let prepare = format!("busybox mkdir /mnt; {mount}");
    assert_ne!(shell(&cx, &[], &prepare).code, 0);
    assert_eq!(
        printed(&cx, &["--cap-add", "SYS_ADMIN"], &prepare),
        "mounted"
    );
}

#[test]
fn system_paths_can_be_shown() {
    let Some(cx) = sandbox() else { return };
    let count = "busybox grep -c -e ' /proc/' -e ' /sys/firmware' /proc/mounts";
    let run = shell(&cx, &["--security-opt", "systempaths=unconfined"], count);
    assert_eq!(run.stdout, "0\n");
}

#[test]
fn control_groups_can_be_made_writable() {
    let Some(cx) = sandbox() else { return };
    let options =
        "busybox awk '$2 ~ \"^/sys/fs/cgroup/\" {print $4}' /proc/mounts | busybox grep -c ^rw";
    let run = shell(&cx, &[], options);
    assert_eq!(run.stdout, "0\n");
    let run = shell(&cx, &["--security-opt", "writable-cgroups=true"], options);
    assert_ne!(run.stdout, "0\n");
}

#[test]
fn no_new_privileges_and_groups_are_the_programs() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox grep NoNewPrivs /proc/self/status | busybox cut -f2; busybox id -G";
    let options = [
        "--security-opt",
        "no-new-privileges",
        "--user",
        "me",
        "--group-add",
        "audio",
        "--group-add",
        "4711",
    ];
    assert_eq!(printed(&cx, &options, script), "1\n100 29 4711");
    let run = shell(&cx, &["--group-add", "nobodys"], "true");
    assert!(run.stderr.contains("group `nobodys`"), "{}", run.stderr);
}

#[test]
fn program_of_exec_has_the_containers_rights_or_all() {
    let Some(cx) = sandbox() else { return };
    sleeper(
        &cx,
        &[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "KILL",
            "--security-opt",
            "seccomp=unconfined",
        ],
    );
    let script = format!("{BOUNDING}; {SECCOMP}");
    let run = cx.ketch(["exec", "other", "busybox", "sh", "-c", &script]);
    assert_eq!(run.stdout, "0000000000000020\n0\n", "{}", run.stderr);
    let run = cx.ketch([
        "exec",
        "--privileged",
        "other",
        "busybox",
        "sh",
        "-c",
        BOUNDING,
    ]);
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(ours.contains(run.stdout.trim()), "{}", run.stderr);
    let file = cx.path().join("env");
    write(&file, "# words\nA=1\nB=2\n");
    let file = file.to_str().unwrap();
    let run = cx.ketch([
        "exec",
        "--env-file",
        file,
        "-e",
        "B=3",
        "other",
        "busybox",
        "env",
    ]);
    assert!(
        run.stdout.contains("A=1\n") && run.stdout.contains("B=3\n"),
        "{}",
        run.stdout
    );
    remove(&cx);
}
