//! The host's namespaces, another container's, and users of a container's own.

use std::fs;

use super::{printed, remove, sandbox, shell, sleeper};

fn link(path: &str) -> String {
    fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn namespaces_of_the_host_are_shared_when_asked_for() {
    let Some(cx) = sandbox() else { return };
    for (option, file) in [
        ("--pid=host", "pid"),
        ("--ipc=host", "ipc"),
        ("--uts=host", "uts"),
        ("--cgroupns=host", "cgroup"),
        ("--network=host", "net"),
    ] {
        let script = format!("busybox readlink /proc/self/ns/{file}");
        let host = link(&format!("/proc/self/ns/{file}"));
        assert_eq!(printed(&cx, &[option], &script), host, "{option}");
        let own = ["--network=none"];
        assert_ne!(printed(&cx, &own, &script), host, "{option}");
    }
    let name = rustix::system::uname();
    let name = name.nodename().to_str().unwrap();
    assert_eq!(
        printed(&cx, &["--uts=host"], "busybox hostname; echo $HOSTNAME"),
        format!("{name}\n{name}")
    );
    let run = shell(&cx, &["--uts=host", "--hostname", "x"], "true");
    assert_eq!(run.code, 125, "{}", run.stderr);
}

#[test]
fn processes_of_a_container_end_with_it_although_the_host_sees_them() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox sleep 4711 & echo $!";
    let run = shell(&cx, &["--pid=host"], script);
    let pid: i32 = run.stdout.trim().parse().unwrap();
    let path = format!("/proc/{pid}/cmdline");
    let left = fs::read_to_string(path).unwrap_or_default();
    assert!(!left.contains("4711"), "{left}");
}

#[test]
fn processes_of_another_container_are_seen() {
    let Some(cx) = sandbox() else { return };
    sleeper(&cx, &[]);
    let script = "busybox cat /proc/1/cmdline | busybox tr '\\0' ' '";
    let seen = printed(&cx, &["--pid=container:other"], script);
    assert_eq!(seen, "busybox sleep 1000");
    remove(&cx);
    let run = shell(&cx, &["--pid=container:other"], "true");
    assert!(
        run.stderr.contains("no such container: other"),
        "{}",
        run.stderr
    );
}

#[test]
fn shared_memory_of_another_container_is_the_same() {
    let Some(cx) = sandbox() else { return };
    sleeper(&cx, &["--ipc=shareable"]);
    assert_eq!(
        shell(&cx, &["--ipc=container:other"], "echo here > /dev/shm/note").code,
        0
    );
    let run = cx.ketch(["exec", "other", "busybox", "cat", "/dev/shm/note"]);
    assert_eq!(run.stdout, "here\n", "{}", run.stderr);
    let theirs = cx.ketch(["exec", "other", "busybox", "readlink", "/proc/self/ns/ipc"]);
    let script = "busybox readlink /proc/self/ns/ipc";
    assert_eq!(
        printed(&cx, &["--ipc=container:other"], script),
        theirs.stdout.trim()
    );
    remove(&cx);
    sleeper(&cx, &[]);
    let run = shell(&cx, &["--ipc=container:other"], "true");
    assert!(run.stderr.contains("--ipc shareable"), "{}", run.stderr);
    remove(&cx);
    let run = shell(
        &cx,
        &["--ipc=none"],
        "busybox grep -c /dev/shm /proc/mounts",
    );
    assert_eq!(run.stdout, "0\n");
}

#[test]
fn users_of_its_own_own_the_image_and_nothing_of_the_host() {
    let Some(cx) = sandbox() else { return };
    let volume = cx.path().join("host");
    fs::create_dir(&volume).unwrap();
    let mount = format!("{}:/host", volume.display());
    let script = "busybox stat -c %u:%g /bin/busybox /etc/hosts; busybox head -1 /proc/self/uid_map; \
        echo x > /new && busybox chown 1000 /new && busybox stat -c %u /new; \
        echo y > /host/file || echo refused";
    let out = printed(&cx, &["--userns=auto", "-v", &mount], script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["0:0", "0:0"], "{out}");
    let map: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!((map[0], map[2]), ("0", "65536"), "{out}");
    assert!(map[1].parse::<u32>().unwrap() > 1_000_000, "{out}");
    assert_eq!(lines[3..], ["1000", "refused"], "{out}");
}

#[test]
fn two_containers_with_users_of_their_own_have_different_ones() {
    let Some(cx) = sandbox() else { return };
    sleeper(&cx, &["--userns=auto:size=1000"]);
    let run = cx.ketch(["exec", "other", "busybox", "cat", "/proc/self/uid_map"]);
    assert!(
        run.stdout.trim_end().ends_with(" 1000"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    let mine = printed(
        &cx,
        &["--userns=auto:size=1000"],
        "busybox cat /proc/self/uid_map",
    );
    assert_ne!(mine, run.stdout.trim_end());
    remove(&cx);
}

#[test]
fn kept_ids_are_the_same_in_a_namespace_of_their_own() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox readlink /proc/self/ns/user; busybox stat -c %u /bin/busybox; \
        busybox awk '{print $1, $2, $3}' /proc/self/uid_map";
    let out = printed(&cx, &["--userns=keep-id"], script);
    let lines: Vec<&str> = out.lines().collect();
    assert_ne!(lines[0], link("/proc/self/ns/user"));
    assert_eq!(lines[1..], ["0", "0 0 4294967295"]);
}

#[test]
fn kernel_parameters_are_the_containers() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax";
    let options = [
        "--network=none",
        "--sysctl",
        "net.ipv4.ip_default_ttl=42",
        "--sysctl",
        "kernel.msgmax=4096",
    ];
    assert_eq!(printed(&cx, &options, script), "42\n4096");
    let run = shell(&cx, &["--sysctl", "kernel.panic=1"], "true");
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("kernel.panic"), "{}", run.stderr);
    let run = shell(
        &cx,
        &["--network=host", "--sysctl", "net.ipv4.ip_default_ttl=42"],
        "true",
    );
    assert_eq!(run.code, 125);
}
