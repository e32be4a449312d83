//! `ketch oci --systemd-cgroup` where systemd is the first process: root's scopes, those of an
//! ordinary user's own systemd, and nothing left of either.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Need, Vm};

const SCRIPT: &str = r#"
mkdir -p /bundles/rootfs/bin /bundles/rootfs/proc /bundles/rootfs/dev /bundles/rootfs/sys
cp /bin/busybox /bundles/rootfs/bin/
for name in sh cat sleep true head tail; do ln -s busybox /bundles/rootfs/bin/$name; done
oci() { ketch oci --systemd-cgroup "$@"; }
show() { systemctl show "$@"; }
pid_of() { ketch oci state $1 | grep '"pid"' | tr -dc 0-9; }
left() { # of a scope: systemd may not have seen yet that its group is gone
    for _ in $(seq 100); do
        test -z "$(systemctl list-units --all --plain --no-legend "$1")" && break
        sleep 0.1
    done
    systemctl list-units --all --plain --no-legend "$1"
    find /sys/fs/cgroup -name "$1"
}
holders() { cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -x '[h]old'; }

step create oci create --bundle /bundles/limits limits
step where cat /proc/$(pid_of limits)/cgroup
step members sh -c 'wc -l </sys/fs/cgroup/system.slice/ketch-limits.scope/cgroup.procs'
step holders holders
step properties show ketch-limits.scope -p MemoryMax -p MemoryLow -p CPUQuotaPerSecUSec -p CPUQuotaPeriodUSec -p CPUWeight -p TasksMax -p AllowedCPUs -p Delegate -p DevicePolicy -p Slice -p TimeoutStopUSec
step devices show ketch-limits.scope -p DeviceAllow
step files sh -c 'cd /sys/fs/cgroup/system.slice/ketch-limits.scope && cat memory.max memory.high cpu.max cpu.weight pids.max cpuset.cpus'
step start oci start limits
step view oci exec limits /bin/cat /proc/self/cgroup
step null oci exec limits /bin/sh -c 'echo x >/dev/null && head -c 3 /dev/zero >/dev/null'
step kmsg oci exec limits /bin/head -c 1 /dev/kmsg
step update oci update --memory 96m --cpu-quota 30500 limits
step reload systemctl daemon-reload
step updated sh -c 'cd /sys/fs/cgroup/system.slice/ketch-limits.scope && cat memory.max cpu.max'
step updated-properties show ketch-limits.scope -p MemoryMax -p CPUQuotaPerSecUSec
step taken oci run --bundle /bundles/taken taken
step taken-goes-on sh -c 'ketch oci state limits | grep -c running'
step pause oci pause limits
step resume oci resume limits
step kill oci delete --force limits
step left left ketch-limits.scope

step run oci run --bundle /bundles/run run
step again oci run --bundle /bundles/run run
step run-left left pre-name.scope
step detached oci run --detach --bundle /bundles/sleep nap
step detached-holders holders
step detached-delete oci delete --force nap
step oom oci run --bundle /bundles/oom oom
step oom-left left ketch-oom.scope
step missing oci run --bundle /bundles/missing missing
step missing-left left ketch-missing.scope
step refused-limit oci run --bundle /bundles/refused refused
step refused-left left ketch-refused.scope
step path oci run --bundle /bundles/path path
step annotation oci run --bundle /bundles/annotation annotation
step list ketch oci list --quiet

mkdir -p /run/user/1000 /home/user/root
chown 1000:1000 /run/user/1000 /home/user /home/user/root
chmod 700 /run/user/1000
cp -r /bundles/rootfs /home/user/rootfs
chown -R 1000:1000 /home/user
step manager systemctl start user@1000.service
cat >/bin/as-user <<'END'
#!/bin/sh
export XDG_RUNTIME_DIR=/run/user/1000 KETCH_RUN=/run/user/1000/ketch KETCH_ROOT=/home/user/root
exec su user -c "$1"
END
chmod 755 /bin/as-user
step user as-user 'systemd-run --user --scope --quiet ketch oci --systemd-cgroup run --bundle /bundles/user mine'
step user-detached as-user 'systemd-run --user --scope --quiet ketch oci --systemd-cgroup run --detach --bundle /bundles/user-nap nap'
step user-show as-user 'systemctl --user show ketch-nap.scope -p MemoryMax -p ControlGroup'
step user-delete as-user 'ketch oci delete --force nap'
step user-outside as-user 'ketch oci --systemd-cgroup run --bundle /bundles/user out'
step user-left find /sys/fs/cgroup -name 'ketch-*'
step all-holders holders
"#;

fn specification(args: &[&str], linux: &Value) -> Value {
    let mut namespaces = json!([
        {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
    ]);
    if linux["uidMappings"].is_array() {
        namespaces
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
    }
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": args, "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "/bundles/rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755"]},
        ],
        "linux": {"namespaces": namespaces},
    });
    for (key, value) in linux.as_object().unwrap() {
        spec["linux"][key] = value.clone();
    }
    spec
}

fn bundles() -> Vec<(&'static str, Value)> {
    let limits = json!({
        "memory": {"limit": 64 << 20, "reservation": 16 << 20},
        "cpu": {"shares": 2048, "quota": 20_000, "period": 50_000, "cpus": "0"},
        "pids": {"limit": 20},
        "unified": {"memory.high": "50331648"},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    let none = json!({});
    let mut annotated = specification(
        &["/bin/cat", "/proc/self/cgroup"],
        &json!({"cgroupsPath": "one-two.slice:ketch:slow"}),
    );
    annotated["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "nothing"});
    // A node that can be made and not opened.
    let kmsg = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    let mut limited = specification(
        &["/bin/sleep", "600"],
        &json!({"resources": limits, "devices": kmsg}),
    );
    limited["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 7"});
    let mapped = json!({
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "resources": {"memory": {"limit": 32 << 20}},
    });
    let of_user = |args: &[&str]| {
        let mut spec = specification(args, &mapped);
        spec["root"]["path"] = json!("/home/user/rootfs");
        spec
    };
    vec![
        ("limits", limited),
        (
            "taken",
            specification(&["/bin/true"], &json!({"cgroupsPath": ":ketch:limits"})),
        ),
        (
            "run",
            specification(
                &["/bin/cat", "/proc/self/cgroup", "/proc/1/cgroup"],
                &json!({"cgroupsPath": "one-two.slice:pre:name"}),
            ),
        ),
        ("sleep", specification(&["/bin/sleep", "600"], &none)),
        (
            "oom",
            specification(
                &["/bin/sh", "-c", "head -c 64m /dev/zero | tail"],
                &json!({"resources": {"memory": {"limit": 8 << 20, "swap": 8 << 20}}}),
            ),
        ),
        ("missing", specification(&["/bin/nothing"], &none)),
        (
            "refused",
            specification(
                &["/bin/true"],
                &json!({"resources": {"unified": {"memory.max": "much"}}}),
            ),
        ),
        (
            "path",
            specification(&["/bin/true"], &json!({"cgroupsPath": "/some/path"})),
        ),
        ("annotation", annotated),
        ("user", of_user(&["/bin/cat", "/proc/self/cgroup"])),
        ("user-nap", of_user(&["/bin/sleep", "600"])),
    ]
}

/// What the machine printed; none where it cannot be booted.
static OUTPUT: LazyLock<Option<String>> = LazyLock::new(|| {
    if !Need::Systemd.is_here() {
        return None;
    }
    let mut vm = Vm::new()?
        .systemd()
        .program("/bin/ketch", env!("CARGO_BIN_EXE_ketch"))
        .deadline(Duration::from_secs(420));
    for (name, spec) in bundles() {
        let path = format!("/bundles/{name}/config.json");
        vm = vm.file(&path, &serde_json::to_vec(&spec).unwrap(), 0o644);
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

#[track_caller]
fn assert_refused(name: &str, words: &str) {
    if let Some((code, text)) = step(name) {
        assert!(code == 1 && text.contains(words), "{name}: {code} {text}");
    }
}

#[test]
fn container_is_alone_in_a_scope_of_its_own() {
    assert_step("create", (0, ""));
    assert_step("where", (0, "0::/system.slice/ketch-limits.scope\n"));
    assert_step("members", (0, "1\n"));
    assert_step("view", (0, "0::/\n"));
    // What held the scope before is gone.
    for name in ["holders", "detached-holders", "all-holders"] {
        assert_step(name, (1, ""));
    }
}

#[test]
fn systemd_keeps_the_limits_and_the_kernel_has_them() {
    let Some((code, text)) = step("properties") else {
        return;
    };
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        lines,
        [
            "AllowedCPUs=0",
            "CPUQuotaPerSecUSec=400ms",
            "CPUQuotaPeriodUSec=50ms",
            "CPUWeight=79",
            "Delegate=yes",
            "DevicePolicy=strict",
            "MemoryLow=16777216",
            "MemoryMax=67108864",
            "Slice=system.slice",
            "TasksMax=20",
            "TimeoutStopUSec=7s",
        ]
    );
    assert_step("files", (0, "67108864\n50331648\n20000 50000\n79\n20\n0\n"));
}

#[test]
fn device_list_is_kept_and_in_force() {
    let Some((_, text)) = step("devices") else {
        return;
    };
    for line in ["/dev/char/1:3 rwm", "char-* m"] {
        assert!(text.contains(line), "{text}");
    }
    assert_step("null", (0, ""));
    let (code, text) = step("kmsg").unwrap();
    assert!(code != 0 && text.contains("not permitted"), "{code} {text}");
}

#[test]
fn changed_limits_outlast_a_reload_and_are_exact() {
    assert_step("update", (0, ""));
    assert_step("reload", (0, ""));
    let Some((_, text)) = step("updated") else {
        return;
    };
    assert!(text.starts_with("100663296\n"), "{text}");
    // 61 percent: the next larger whole one.
    assert_step(
        "updated-properties",
        (0, "CPUQuotaPerSecUSec=610ms\nMemoryMax=100663296\n"),
    );
}

#[test]
fn scope_of_another_container_is_not_taken() {
    assert_refused("taken", "ketch-limits.scope");
    assert_step("taken-goes-on", (0, "1\n"));
}

#[test]
fn scope_is_gone_when_its_container_is() {
    for name in ["kill", "pause", "resume", "detached", "detached-delete"] {
        assert_step(name, (0, ""));
    }
    for name in [
        "left",
        "run-left",
        "oom-left",
        "missing-left",
        "refused-left",
        "user-left",
    ] {
        assert_step(name, (0, ""));
    }
    assert_step("list", (0, ""));
}

#[test]
fn slice_and_name_are_those_of_the_path() {
    assert_step("run", (0, "0::/\n0::/\n"));
    // At once again: nothing of the first is in the way.
    assert_step("again", (0, "0::/\n0::/\n"));
    assert_refused("path", "slice:prefix:name");
    assert_refused("annotation", "TimeoutStopSec");
}

#[test]
fn container_that_cannot_run_leaves_no_scope() {
    let Some((code, text)) = step("missing") else {
        return;
    };
    assert!(
        code == 127 && text.contains("/bin/nothing"),
        "{code} {text}"
    );
    assert_refused("refused-limit", "memory.max");
    // The kernel has ended it for want of memory.
    let (code, text) = step("oom").unwrap();
    assert_eq!(code, 137, "{text}");
}

#[test]
fn ordinary_user_has_scopes_of_a_systemd_of_its_own() {
    assert_step("manager", (0, ""));
    assert_step("user", (0, "0::/\n"));
    assert_step("user-detached", (0, ""));
    let Some((_, text)) = step("user-show") else {
        return;
    };
    let group = "/user.slice/user-1000.slice/user@1000.service/user.slice/ketch-nap.scope";
    assert!(text.contains(&format!("ControlGroup={group}\n")), "{text}");
    assert!(text.contains("MemoryMax=33554432\n"), "{text}");
    assert_step("user-delete", (0, ""));
    assert_refused("user-outside", "systemd-run --user --scope");
}
