//! Containers where control groups are v2 alone, and for an ordinary user whom a group is delegated
//! to.

use std::sync::LazyLock;
use std::time::Duration;

use testkit::Vm;

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../../fixtures/guests/built/", $name)).as_slice()
    };
}

const SCRIPT: &str = r#"
groups() { find /sys/fs/cgroup$1/ketch -mindepth 1 -type d; }
group_of() {
    ketch run -d --network none --name "$1" guests /sleep 600 >/dev/null &&
    cat /proc/$(ketch inspect "$1" | grep '"Pid"' | tr -dc 0-9)/cgroup &&
    ketch rm -f "$1"
}

mkdir -p /box/bin /box/tmp
cp /bin/busybox /box/bin/
for name in sh cat mknod sleep tty head; do ln -s busybox /box/bin/$name; done
tar c -C /box . | quietly ketch import - box
tar c -C /guests . | quietly ketch import - guests

step hello ketch run --rm --network none -e NAME=Ada hello
step hello-wasm ketch run --rm --network none --platform wasi/wasm -e NAME=Ada hello
step memory ketch run --rm --network none --memory 32m box /bin/cat /sys/fs/cgroup/memory.max
step oom ketch run --network none --name hog --memory 16m guests /memory 64
step oom-inspect ketch inspect hog
step oom-rm ketch rm hog
step cpus ketch run --rm --network none --cpus 0.5 box /bin/cat /sys/fs/cgroup/cpu.max
step pids ketch run --rm --network none --pids-limit 7 box /bin/cat /sys/fs/cgroup/pids.max
step fork ketch run --rm --network none --pids-limit 4 box /bin/sh -c 'for i in 1 2 3 4 5 6; do sleep 600 & done'
step view ketch run --rm --network none box /bin/cat /proc/self/cgroup
step group group_of nap
step mknod ketch run --rm --network none box /bin/sh -c 'mknod /tmp/disk b 254 0; head -c 1 /tmp/disk'
step mknod-log ketch run --rm --network none box /bin/sh -c 'mknod /tmp/log c 1 11; head -c 1 /tmp/log'
step host-disk sh -c 'head -c 1 /dev/vda >/dev/null'
step null ketch run --rm --network none box /bin/sh -c 'echo text >/dev/null && head -c 3 /dev/zero >/dev/null'
step left groups

# What systemd does for a user: a group that belongs to the user, without processes of its own.
echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/user/session /home/user
for dir in user user/session; do
    for file in . cgroup.procs cgroup.subtree_control; do
        chown 1000:1000 /sys/fs/cgroup/$dir/$file
    done
done
chown 1000:1000 /home/user
cat >/bin/as-user <<'END'
#!/bin/sh
echo $$ >/sys/fs/cgroup/user/session/cgroup.procs
exec su user -c "$1"
END
chmod 755 /bin/as-user
export KETCH_ROOT=/home/user/root KETCH_RUN=/home/user/run
step user-import as-user 'tar c -C /box . | ketch import - box'
step user-memory as-user 'ketch run --rm --network none --memory 32m box /bin/cat /sys/fs/cgroup/memory.max'
step user-pids as-user 'ketch run --rm --network none --pids-limit 7 box /bin/cat /sys/fs/cgroup/pids.max'
step user-view as-user 'ketch run --rm --network none box /bin/cat /proc/self/cgroup'
step user-left groups /user
"#;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";

/// What the machine printed; none where it cannot be booted.
static OUTPUT: LazyLock<Option<String>> = LazyLock::new(|| {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1024 * 1024).unwrap();
    let run = Vm::new()?
        .program("/bin/ketch", env!("CARGO_BIN_EXE_ketch"))
        .file("/guests/memory", guest!("memory.x86_64"), 0o755)
        .file("/guests/sleep", guest!("sleep.x86_64"), 0o755)
        .file("/etc/passwd", PASSWD.as_bytes(), 0o644)
        .file("/etc/group", b"root:x:0:\nuser:x:1000:\n", 0o644)
        .disk(disk.path())
        .deadline(Duration::from_secs(300))
        .run(&format!("{}{SCRIPT}", crate::STEPS));
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
fn hello_of_both_kinds_runs() {
    let Some((code, linux)) = step("hello") else {
        return;
    };
    assert!(code == 0 && linux.starts_with("Hello, Ada!"), "{linux}");
    let (code, wasm) = step("hello-wasm").unwrap();
    assert!(code == 0 && wasm.contains("wasm sandbox"), "{wasm}");
}

#[test]
fn limits_are_in_force() {
    assert_step("memory", (0, "33554432\n"));
    assert_step("cpus", (0, "50000 100000\n"));
    assert_step("pids", (0, "7\n"));
    let Some((_, text)) = step("fork") else {
        return;
    };
    assert!(text.contains("can't fork"), "{text}");
}

#[test]
fn container_over_its_memory_limit_is_137_and_inspect_says_why() {
    let Some((code, text)) = step("oom") else {
        return;
    };
    assert_eq!(code, 137, "{text}");
    let (_, inspect) = step("oom-inspect").unwrap();
    assert!(inspect.contains("\"OOMKilled\": true"), "{inspect}");
    assert_step("oom-rm", (0, "hog\n"));
}

#[test]
fn container_is_born_in_its_own_group_and_sees_nothing_above_it() {
    assert_step("view", (0, "0::/\n"));
    let Some((code, text)) = step("group") else {
        return;
    };
    assert!(code == 0 && text.starts_with("0::/ketch/"), "{text}");
}

#[test]
fn device_outside_the_list_can_be_made_and_not_read() {
    assert_step("host-disk", (0, ""));
    for name in ["mknod", "mknod-log"] {
        let Some((code, text)) = step(name) else {
            return;
        };
        assert!(
            code == 1 && text.contains("Operation not permitted") && text.contains("head"),
            "{name}: {code} {text}"
        );
    }
    assert_step("null", (0, ""));
}

#[test]
fn groups_are_gone_when_their_containers_are() {
    assert_step("left", (0, ""));
    assert_step("user-left", (0, ""));
}

#[test]
fn ordinary_user_has_limits_in_a_delegated_group() {
    assert_step("user-memory", (0, "33554432\n"));
    assert_step("user-pids", (0, "7\n"));
    assert_step("user-view", (0, "0::/\n"));
}
