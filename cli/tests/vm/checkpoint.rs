//! `ketch oci checkpoint` and `restore` on a kernel that criu knows.

use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::json;
use testkit::{CRIU, Need, Vm};

const SCRIPT: &str = r#"
mkdir /disk && mount -t ext4 /dev/vda /disk && cd /disk
mkdir -p bundle/rootfs/bin bundle/data
cp /bin/busybox bundle/rootfs/bin/
for name in sh cat sleep true mv; do ln -s busybox bundle/rootfs/bin/$name; done
cp /config.json bundle/config.json
echo outside >bundle/data/file
oci() { ketch oci "$@"; }
# What the container has counted to; it counts in a variable of its shell alone.
count() { cat bundle/rootfs/count 2>/dev/null; }
later() { # than a count
    for i in $(seq 300); do
        test "$(count)" -gt "$1" 2>/dev/null && return 0
        sleep 0.1
    done
    echo "still $(count)"; return 1
}
status() { ketch oci state counter | grep -o '"status": "[a-z]*"'; }
number() { test "$(cat pid)" = "$(ketch oci state counter | grep '"pid"' | tr -dc 0-9)"; }
first() { # count that is written again
    for i in $(seq 300); do
        test -s bundle/rootfs/count && break
        sleep 0.1
    done
    test "$before" -gt 3 && test "$(count)" -ge "$before"
}
log() { grep -h Error /disk/*/*.log | head; }

step check criu check
step run sh -c 'ketch oci run --detach --bundle bundle counter </dev/null >/dev/null 2>&1'
step counts later 3
step pre-dump oci checkpoint --pre-dump --image-path pre counter
step pre-dump-goes-on status
step leave oci checkpoint --leave-running --image-path left --work-path left-work counter
step leave-goes-on status
step parent oci checkpoint --leave-running --image-path full --parent-path ../pre counter
step no-parent oci checkpoint --image-path none --parent-path ../nothing counter
step still status
step lazy oci checkpoint --lazy-pages --image-path lazy counter
step dump oci checkpoint --image-path saved counter
step stopped status
before=$(count)
rm bundle/rootfs/count
step delete oci delete counter
step restore oci restore --detach --bundle bundle --image-path saved --pid-file pid counter
step logs log
step running status
step number number
# A shell that had begun again would count from nothing.
step not-from-nothing first
step continues later $((before + 3))
step group sh -c 'cat /proc/$(cat pid)/cgroup'
step view oci exec counter /bin/cat /proc/self/cgroup
step data oci exec counter /bin/cat /data/file
step pause oci pause counter
step resume oci resume counter
step again oci checkpoint --image-path twice counter
step again-delete oci delete counter
step again-restore oci restore --detach --bundle bundle --image-path twice counter
step taken oci restore --detach --bundle bundle --image-path twice counter
step end oci delete --force counter
step bad oci restore --detach --bundle bundle --image-path nowhere counter
step left find /sys/fs/cgroup/ketch -mindepth 1 -type d
step list oci list --quiet
"#;

/// The matches and targets of iptables.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// What the machine printed; none where it cannot be booted.
static OUTPUT: LazyLock<Option<String>> = LazyLock::new(|| {
    if !Need::Criu.is_here() {
        return None;
    }
    let script = "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; \
                  sleep 0.05; done";
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["ro"]},
            {"destination": "/data", "source": "/disk/bundle/data", "options": ["bind"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"}, {"type": "cgroup"},
            ],
            "resources": {"memory": {"limit": 64 << 20}},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"],
        },
    });
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(256 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .arg("-q")
        .arg(disk.path())
        .status();
    assert!(made.unwrap().success());
    let mut vm = Vm::new()?
        .program("/bin/ketch", env!("CARGO_BIN_EXE_ketch"))
        .program("/usr/sbin/criu", CRIU)
        // What criu calls; busybox's have not all that it asks of them.
        .program("/bin/tar", "/usr/bin/tar")
        .program("/bin/gzip", "/usr/bin/gzip")
        .program("/bin/ip", "/usr/sbin/ip")
        .file("/config.json", &serde_json::to_vec(&spec).unwrap(), 0o644)
        .disk(disk.path())
        .deadline(Duration::from_secs(420));
    // It holds the network up while it looks at it, and saves what is being tracked.
    for name in [
        "iptables-save",
        "iptables-restore",
        "ip6tables-save",
        "ip6tables-restore",
    ] {
        let path = format!("/usr/sbin/{name}");
        vm = vm.program(&path, &path);
    }
    for entry in std::fs::read_dir(XTABLES).unwrap() {
        let path = entry.unwrap().path();
        vm = vm.file(
            path.to_str().unwrap(),
            &std::fs::read(&path).unwrap(),
            0o644,
        );
    }
    for module in [
        "inet_diag",
        "tcp_diag",
        "udp_diag",
        "unix_diag",
        "netlink_diag",
        "af_packet_diag",
        "nft_compat",
        "xt_mark",
        "nf_conntrack_netlink",
    ] {
        vm = vm.module(module);
    }
    let run = vm.run(&format!("{}{SCRIPT}", crate::STEPS));
    assert_eq!(run.code, 0, "{run}");
    Some(run.output)
});

fn step(name: &str) -> Option<(i32, &'static str)> {
    crate::step(OUTPUT.as_deref(), name)
}

#[track_caller]
fn assert_step(name: &str, expected: (i32, &str)) {
    if let Some(found) = step(name) {
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn criu_works_on_this_kernel() {
    let Some((code, text)) = step("check") else {
        return;
    };
    assert_eq!(code, 0, "{text}");
}

#[test]
fn container_that_is_left_running_goes_on() {
    for name in ["run", "counts", "pre-dump", "leave", "parent"] {
        assert_step(name, (0, ""));
    }
    for name in ["pre-dump-goes-on", "leave-goes-on", "still"] {
        assert_step(name, (0, "\"status\": \"running\"\n"));
    }
}

#[test]
fn restored_container_goes_on_where_it_was() {
    assert_step("dump", (0, ""));
    assert_step("stopped", (0, "\"status\": \"stopped\"\n"));
    assert_step("delete", (0, ""));
    let Some((code, text)) = step("restore") else {
        return;
    };
    let (_, logs) = step("logs").unwrap();
    assert_eq!((code, text), (0, ""), "{logs}");
    assert_step("running", (0, "\"status\": \"running\"\n"));
    assert_step("number", (0, ""));
    assert_step("continues", (0, ""));
    assert_step("not-from-nothing", (0, ""));
}

#[test]
fn restored_container_is_one_like_any_other() {
    assert_step("group", (0, "0::/ketch/counter\n"));
    assert_step("view", (0, "0::/\n"));
    assert_step("data", (0, "outside\n"));
    for name in [
        "pause",
        "resume",
        "again",
        "again-delete",
        "again-restore",
        "end",
    ] {
        assert_step(name, (0, ""));
    }
}

#[test]
fn what_cannot_be_done_is_refused_and_leaves_nothing() {
    for (name, words) in [
        ("no-parent", "--parent-path"),
        ("lazy", "--lazy-pages"),
        ("taken", "exists already"),
        ("bad", "criu"),
    ] {
        let Some((code, text)) = step(name) else {
            return;
        };
        assert!(code != 0 && text.contains(words), "{name}: {code} {text}");
    }
    assert_step("left", (0, ""));
    assert_step("list", (0, ""));
}
