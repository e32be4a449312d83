//! Control groups of the real kernel, through the interface that front ends use. The same tests run
//! on this machine's control groups, whatever they are, and in a virtual machine with v2 alone.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, Spec,
};
use runtime::{CgroupPlan, RootChange, RootfsPlan};
use runtime_native::cgroup::{self, CgroupError, Group, Hierarchy, detect};
use runtime_native::plan::{Options, PlanError, plan};

const MIB: i64 = 1024 * 1024;

/// A group with limits, removed when dropped.
struct Container {
    plan: CgroupPlan,
    group: Group,
}

fn plan_of(
    hierarchy: &Hierarchy,
    id: &str,
    resources: LinuxResources,
) -> Result<CgroupPlan, PlanError> {
    let mut spec = Spec::default();
    spec.linux_mut()
        .as_mut()
        .unwrap()
        .set_resources(Some(resources));
    let options = Options {
        rootfs: RootfsPlan::Directory {
            path: c"/".to_owned(),
            readonly: false,
        },
        id,
        hierarchy,
        scope: None,
        user_namespace: None,
        wasm: None,
        create_cwd: false,
        seccomp: None,
        bundle: "",
        root_change: RootChange::Pivot,
        preserve_descriptors: 0,
        init: None,
    };
    Ok(plan(&spec, options)?.cgroup)
}

/// A group with these limits; none where this user may make no group.
fn container(name: &str, resources: LinuxResources) -> Option<Container> {
    let hierarchy = detect();
    if hierarchy == Hierarchy::None {
        testkit::skip("needs a control group that can be written");
        return None;
    }
    let id = format!("test-{name}-{}", std::process::id());
    let plan = plan_of(&hierarchy, &id, resources).unwrap();
    cgroup::create(&plan).unwrap_or_else(|failure| panic!("{}", failure.message));
    let group = Group::new(&hierarchy, None, &id).unwrap();
    Some(Container { plan, group })
}

impl Drop for Container {
    fn drop(&mut self) {
        cgroup::kill(&self.plan).unwrap();
        cgroup::remove(&self.plan).unwrap();
    }
}

/// A shell that waits for a line before it does anything.
struct Shell {
    child: Child,
    output: BufReader<ChildStdout>,
    pid: i32,
}

impl Shell {
    /// Starts it and moves it into the group.
    fn enter(container: &Container, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read line; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        for tasks in &container.plan.enter {
            write(Path::new(tasks.to_str().unwrap()), &pid.to_string());
        }
        if let Some(dir) = &container.plan.clone_into {
            let procs = Path::new(dir.to_str().unwrap()).join("cgroup.procs");
            write(&procs, &pid.to_string());
        }
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, pid }
    }

    fn go(&mut self) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"go\n")
            .unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "a control file")]
fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}

fn memory(bytes: i64) -> LinuxResources {
    let memory = LinuxMemoryBuilder::default().limit(bytes).swap(bytes);
    let memory = memory.build().unwrap();
    let resources = LinuxResourcesBuilder::default().memory(memory);
    resources.build().unwrap()
}

fn pids(limit: i64) -> LinuxResources {
    let pids = LinuxPidsBuilder::default().limit(limit).build().unwrap();
    let resources = LinuxResourcesBuilder::default().pids(pids);
    resources.build().unwrap()
}

fn cpus(list: &str) -> LinuxResources {
    let cpu = LinuxCpuBuilder::default().cpus(list).build().unwrap();
    let resources = LinuxResourcesBuilder::default().cpu(cpu);
    resources.build().unwrap()
}

#[test]
fn group_is_removed_with_the_groups_that_the_container_made_below_it() {
    let Some(container) = container("remove", LinuxResources::default()) else {
        return;
    };
    let dirs: Vec<PathBuf> = container
        .plan
        .make
        .iter()
        .map(|dir| PathBuf::from(dir.to_str().unwrap()))
        .collect();
    for dir in &dirs {
        fs::create_dir_all(dir.join("own/deeper")).unwrap();
    }
    let shell = Shell::enter(&container, "exit 0");
    let below = dirs.last().unwrap().join("own/deeper/cgroup.procs");
    write(&below, &shell.pid.to_string());
    assert!(container.group.processes().unwrap().contains(&shell.pid));
    container.group.kill().unwrap();
    assert!(!shell.end().success());
    drop(container);
    assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
}

#[test]
fn stats_count_processes_memory_and_time() {
    let Some(container) = container("stats", memory(64 * MIB)) else {
        return;
    };
    container.group.update(&pids(20)).unwrap();
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read line";
    let mut shell = Shell::enter(&container, script);
    shell.go();
    assert_eq!(shell.line(), "done\n");
    let stats = container.group.stats().unwrap();
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (1, Some(20)));
    let memory = stats.memory.unwrap();
    assert_eq!(memory.limit, Some(64 * 1024 * 1024));
    assert!(memory.usage > 0 && !memory.detail.is_empty());
    assert!(stats.cpu.unwrap().usage_ns > 0);
    assert!(stats.io.is_some());
    if matches!(container.group.hierarchy(), Hierarchy::Unified { .. }) {
        assert!(stats.cpu_pressure.is_some() && stats.memory_pressure.is_some());
    }
    shell.go();
    shell.end();
}

#[test]
fn stats_of_a_group_that_is_gone_are_empty() {
    let Some(container) = container("gone", LinuxResources::default()) else {
        return;
    };
    let group = container.group.clone();
    drop(container);
    assert!(group.processes().unwrap().is_empty());
    assert_eq!(group.stats().unwrap().pids, None);
    assert!(!group.is_frozen().unwrap());
    group.kill().unwrap();
}

#[test]
fn quota_throttles() {
    // So little that a machine under load gives more as well.
    let cpu = LinuxCpuBuilder::default().quota(1_000).period(200_000_u64);
    let resources = LinuxResourcesBuilder::default().cpu(cpu.build().unwrap());
    let Some(container) = container("quota", resources.build().unwrap()) else {
        return;
    };
    let mut shell = Shell::enter(&container, "while true; do :; done");
    shell.go();
    // The kernel counts a period in which the quota was used up; it takes 200 ms at the least.
    while container
        .group
        .stats()
        .unwrap()
        .cpu
        .unwrap()
        .throttled_periods
        == 0
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    container.group.kill().unwrap();
    shell.end();
}

#[test]
fn frozen_group_stands_still_and_can_be_killed() {
    let Some(container) = container("freeze", LinuxResources::default()) else {
        return;
    };
    let mut shell = Shell::enter(&container, "echo on; read line");
    container.group.freeze().unwrap();
    assert!(container.group.is_frozen().unwrap());
    shell.go();
    container.group.thaw().unwrap();
    assert!(!container.group.is_frozen().unwrap());
    assert_eq!(shell.line(), "on\n");
    container.group.freeze().unwrap();
    cgroup::kill(&container.plan).unwrap();
    assert!(!shell.end().success());
}

#[test]
fn memory_limit_rises_and_falls_with_its_swap() {
    let Some(container) = container("memory", memory(32 * MIB)) else {
        return;
    };
    for size in [64 * MIB, 16 * MIB, 128 * MIB] {
        container.group.update(&memory(size)).unwrap();
        let stats = container.group.stats().unwrap().memory.unwrap();
        assert_eq!(stats.limit, u64::try_from(size).ok());
    }
    container.group.update(&memory(-1)).unwrap();
    let stats = container.group.stats().unwrap().memory.unwrap();
    assert_eq!(stats.limit, None);
}

#[test]
fn refused_update_names_the_field_and_changes_nothing() {
    let Some(container) = container("refused", memory(32 * MIB)) else {
        return;
    };
    let mut resources = memory(64 * MIB);
    resources.set_cpu(cpus("4000").cpu().clone());
    let error = container.group.update(&resources).unwrap_err();
    assert!(matches!(&error, CgroupError::Set { .. }), "{error}");
    assert!(error.to_string().contains("--cpuset-cpus"), "{error}");
    let stats = container.group.stats().unwrap().memory.unwrap();
    assert_eq!(stats.limit, Some(32 * 1024 * 1024));
}

#[test]
fn limit_below_what_is_in_use_is_refused_when_asked_to_check() {
    let Some(container) = container("usage", memory(64 * MIB)) else {
        return;
    };
    // A group that a process moves into is charged for new pages only.
    let script = "x=$(head -c 200000 /dev/zero | tr '\\0' x); echo on; read line";
    let mut shell = Shell::enter(&container, script);
    shell.go();
    assert_eq!(shell.line(), "on\n");
    let memory = LinuxMemoryBuilder::default().limit(1);
    let memory = memory.check_before_update(true).build().unwrap();
    let resources = LinuxResourcesBuilder::default().memory(memory);
    let error = container.group.update(&resources.build().unwrap());
    assert!(matches!(
        error,
        Err(CgroupError::BelowUsage { limit: 1, .. })
    ));
    shell.go();
    shell.end();
}

#[test]
fn process_over_the_memory_limit_is_killed_and_counted() {
    let Some(container) = container("oom", memory(16 * MIB)) else {
        return;
    };
    let script = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    let mut shell = Shell::enter(&container, script);
    shell.go();
    assert!(!shell.end().success());
    assert!(container.group.oom_kills() > 0);
    assert_eq!(
        cgroup::oom_kills(&container.plan),
        container.group.oom_kills()
    );
}

#[test]
fn cpuset_holds_for_the_process() {
    let Some(container) = container("cpuset", cpus("0")) else {
        return;
    };
    let shell = Shell::enter(&container, "exit 0");
    let status = fs::read_to_string(format!("/proc/{}/status", shell.pid)).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    container.group.kill().unwrap();
    shell.end();
}

/// A node of `/dev/kmsg`, which can be read by root without a device list.
const KERNEL_LOG: (u32, u32) = (1, 11);

#[test]
fn device_outside_the_list_cannot_be_read_and_a_default_one_can() {
    let deny = LinuxDeviceCgroupBuilder::default().allow(false).build();
    let devices = LinuxResourcesBuilder::default().devices(vec![deny.unwrap()]);
    let Some(container) = container("devices", devices.build().unwrap()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (major, minor) = KERNEL_LOG;
    let script = format!(
        "cd {} && mknod log c {major} {minor} && mknod zero c 1 5 &&
         dd if=zero of=/dev/null bs=1 count=1 && echo made && exec dd if=log bs=4096 count=1 2>&1",
        dir.path().display()
    );
    let mut shell = Shell::enter(&container, &script);
    shell.go();
    assert_eq!(shell.line(), "made\n");
    let said = shell.line();
    assert!(said.contains("Operation not permitted"), "{said}");
    assert!(!shell.end().success());
    // The same node, outside the group.
    let read = Command::new("dd")
        .arg(format!("if={}", dir.path().join("log").display()))
        .args(["of=/dev/null", "bs=4096", "count=1"])
        .stderr(Stdio::null())
        .status();
    assert!(read.unwrap().success());
}

#[test]
fn device_list_of_a_running_container_is_replaced() {
    let rule = |allow: bool| LinuxDeviceCgroupBuilder::default().allow(allow);
    let (major, minor) = KERNEL_LOG;
    let list = |rules| {
        let resources = LinuxResourcesBuilder::default().devices(rules);
        resources.build().unwrap()
    };
    let denied = list(vec![rule(false).build().unwrap()]);
    let Some(container) = container("replace", denied) else {
        return;
    };
    let log = rule(true).typ(oci_spec::runtime::LinuxDeviceType::C);
    let log = log.major(major).minor(minor).access("rm").build().unwrap();
    let allowed = list(vec![rule(false).build().unwrap(), log]);
    container.group.update(&allowed).unwrap();
    let mut shell = Shell::enter(
        &container,
        "exec dd if=/dev/kmsg of=/dev/null bs=4096 count=1 2>/dev/null",
    );
    shell.go();
    assert!(shell.end().success());
}

#[test]
fn file_of_v2_by_name_is_set_there_and_refused_on_v1() {
    let hierarchy = detect();
    let files = [("memory.high".to_owned(), (8 * MIB).to_string())];
    let resources = LinuxResourcesBuilder::default().unified(
        files
            .into_iter()
            .collect::<std::collections::HashMap<_, _>>(),
    );
    let resources = resources.build().unwrap();
    if let Hierarchy::Unified { .. } = hierarchy {
        let Some(container) = container("unified", resources) else {
            return;
        };
        let dir = container.plan.clone_into.clone().unwrap();
        let file = Path::new(dir.to_str().unwrap()).join("memory.high");
        assert_eq!(
            fs::read_to_string(file).unwrap().trim(),
            (8 * MIB).to_string()
        );
    } else {
        let error = plan_of(&hierarchy, "unified", resources).unwrap_err();
        assert!(error.to_string().contains("unified"), "{error}");
    }
}

/// In the virtual machine this is the only test that does not run.
#[test]
fn vm_with_pure_cgroup_v2_passes_the_same_tests() {
    let Some(vm) = testkit::Vm::new() else { return };
    let tests = std::env::current_exe().unwrap();
    let run = vm
        .program("/bin/tests", tests)
        .run("KETCH_TEST_REQUIRE=all tests --test-threads=2 --skip vm_ && ls /sys/fs/cgroup/ketch | grep test-");
    // The list of what is left must be empty: `grep` finds nothing.
    assert_eq!(run.code, 1, "{run}");
    assert!(run.output.contains("test result: ok"), "{run}");
}
