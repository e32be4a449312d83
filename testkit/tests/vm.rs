//! The virtual machine itself.

use testkit::Vm;

#[test]
fn vm_gives_the_scripts_output_and_status_on_pure_cgroup_v2() {
    let Some(vm) = Vm::new() else { return };
    let run = vm
        .file("/etc/motd", b"from the host\n", 0o644)
        .run("cat /etc/motd; cat /sys/fs/cgroup/cgroup.controllers; grep overlay /proc/filesystems; exit 42");
    assert_eq!(run.code, 42, "{run}");
    for part in ["from the host\n", "memory", "pids", "overlay"] {
        assert!(run.output.contains(part), "{part}: {run}");
    }
}
