//! What cannot be had is refused by name, before anything is made.

use testkit::{Need, Sandbox};

use super::{KETCH, sandbox, shell};

#[test]
fn wrong_values_are_refused_as_docker_refuses_them() {
    let Some(cx) = sandbox() else { return };
    for (options, words) in [
        (
            &["--security-opt", "nonsense"][..],
            "--security-opt `nonsense`",
        ),
        (&["--security-opt", "label=nonsense"], "label"),
        (&["--pid", "container:"], "--pid"),
        (&["--ipc", "nonsense"], "--ipc"),
        (&["--uts", "container:x"], "--uts"),
        (&["--userns", "nonsense"], "--userns"),
        (&["--ulimit", "nofile=2:1"], "--ulimit"),
        (&["--ulimit", "nonsense=1"], "--ulimit"),
        (&["--sysctl", "nonsense"], "--sysctl"),
        (&["--oom-score-adj", "1001"], "--oom-score-adj"),
        (&["--cpu-shares", "1"], "--cpu-shares"),
        (&["--cpu-period", "5"], "--cpu-period"),
        (&["--cpu-quota", "5"], "--cpu-quota"),
        (&["--cpu-quota", "5000", "--cpus", "0.5"], "--cpu-quota"),
        (&["--cpuset-cpus", "4000"], "--cpuset-cpus `4000`"),
        (&["--cpuset-mems", "x"], "--cpuset-mems"),
        (&["--memory-swap", "64m"], "--memory-swap"),
        (
            &["--memory", "64m", "--memory-swap", "32m"],
            "--memory-swap",
        ),
        (
            &["--memory", "64m", "--memory-reservation", "65m"],
            "--memory-reservation",
        ),
        (&["--blkio-weight", "5"], "--blkio-weight"),
        (
            &["--device-read-bps", "/dev/null:1mb"],
            "not a block device",
        ),
        (&["--device-write-iops", "x:1"], "--device-write-iops"),
        (&["--device", "relative"], "--device"),
        (&["--device-cgroup-rule", "c 1:3"], "--device-cgroup-rule"),
        (&["--shm-size", "big"], "--shm-size"),
        (&["--cgroup-parent", "../x"], ".."),
        (&["--userns", "auto", "--privileged"], "--userns"),
        (&["--userns", "auto:size=0"], "--userns"),
    ] {
        let run = shell(&cx, options, "true");
        assert_eq!(run.code, 125, "{options:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{options:?}: {}", run.stderr);
    }
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn label_without_its_module_is_refused() {
    let Some(cx) = sandbox() else { return };
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for (option, module, word) in [
        ("apparmor=some-profile", "apparmor", "AppArmor"),
        ("label=type:some_t", "selinux", "SELinux"),
    ] {
        if lsm.contains(module) {
            continue;
        }
        let run = shell(&cx, &["--security-opt", option], "true");
        assert_eq!(run.code, 125);
        assert!(run.stderr.contains(word), "{}", run.stderr);
    }
    for option in ["apparmor=unconfined", "label=disable"] {
        assert_eq!(shell(&cx, &["--security-opt", option], "true").code, 0);
    }
}

#[test]
fn wasm_container_refuses_what_a_guest_cannot_have() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    for options in [
        &["--privileged"][..],
        &["--cap-add", "KILL"],
        &["--security-opt", "seccomp=unconfined"],
        &["--security-opt", "systempaths=unconfined"],
        &["--device", "/dev/kmsg"],
        &["--device-cgroup-rule", "c 1:3 r"],
        &["--pid", "host"],
        &["--ipc", "host"],
        &["--uts", "host"],
        &["--cgroupns", "host"],
        &["--userns", "auto"],
        &["--shm-size", "1m"],
        &["--init"],
    ] {
        let mut args = vec!["run", "--rm", "--platform", "wasi/wasm"];
        args.extend_from_slice(options);
        args.push("hello");
        let run = cx.ketch(args);
        assert_eq!(run.code, 125, "{options:?}");
        assert!(
            run.stderr.contains(options[0]),
            "{options:?}: {}",
            run.stderr
        );
    }
    let taken = [
        "--cap-drop",
        "ALL",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "500",
        "--security-opt",
        "no-new-privileges",
    ];
    let mut args = vec!["run", "--rm", "--platform", "wasi/wasm"];
    args.extend_from_slice(&taken);
    args.push("hello");
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
