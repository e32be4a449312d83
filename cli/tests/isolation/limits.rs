//! Limits of processes and of the control group.

use testkit::{Need, Sandbox};

use super::{KETCH, printed, sandbox, shell};

#[test]
fn limits_of_processes_are_set() {
    let Some(cx) = sandbox() else { return };
    let options = [
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "500",
    ];
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; busybox cat /proc/self/oom_score_adj";
    assert_eq!(printed(&cx, &options, script), "100\n200\n0\n500");
}

#[test]
fn limit_that_this_process_cannot_give_is_named() {
    let Some(cx) = sandbox() else { return };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    // Whoever has CAP_SYS_RESOURCE can raise any limit but above the system's own.
    let may_raise = u64::from_str_radix(held, 16).unwrap() & 1 << 24 != 0;
    let run = shell(&cx, &["--ulimit", "nofile=99999999"], "true");
    assert_eq!(run.code, 125, "{may_raise}");
    assert!(run.stderr.contains("`nofile`"), "{}", run.stderr);
}

#[test]
fn shared_memory_has_the_size_that_was_asked_for() {
    let Some(cx) = sandbox() else { return };
    let script = "busybox df -k /dev/shm | busybox awk 'NR==2 {print $2}'";
    assert_eq!(printed(&cx, &[], script), "65536");
    assert_eq!(printed(&cx, &["--shm-size=1m"], script), "1024");
}

/// Reads a control file of the container, of v1 or v2.
fn control(legacy: &str, unified: &str) -> String {
    format!(
        "busybox cat /sys/fs/cgroup/{legacy} 2>/dev/null || busybox cat /sys/fs/cgroup/{unified}"
    )
}

#[test]
fn limits_of_the_group_are_in_its_files() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::MemoryCgroup]).and(sandbox()) else {
        return;
    };
    let options = [
        "--cpuset-cpus=0",
        "--cpu-period=50000",
        "--cpu-quota=25000",
        "--memory=64m",
        "--memory-reservation=32m",
        "--memory-swap=96m",
        "--cpu-shares=512",
    ];
    let script = [
        control("cpuset/cpuset.cpus", "cpuset.cpus"),
        control("cpu/cpu.cfs_quota_us", "cpu.max"),
        control("memory/memory.limit_in_bytes", "memory.max"),
        control("memory/memory.soft_limit_in_bytes", "memory.low"),
    ]
    .join("; ");
    let out = printed(&cx, &options, &script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "0");
    assert!(["25000", "25000 50000"].contains(&lines[1]), "{out}");
    assert_eq!(lines[2..], ["67108864", "33554432"], "{out}");
}

#[test]
fn group_lies_where_it_was_asked_for() {
    let Some(cx) = sandbox() else { return };
    let name = cx.path().file_name().unwrap().to_str().unwrap().to_owned();
    let parent = format!("/{name}");
    let options = ["--cgroup-parent", &parent, "--cgroupns=host"];
    let out = printed(&cx, &options, "busybox cat /proc/self/cgroup");
    assert!(out.contains(&format!(":/{name}/")), "{out}");
    // The parent is whoever asked for it; nobody else removes it.
    for dir in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let group = dir.path().join(&name);
        if group.is_dir() {
            // The container's own group below it goes after its end was reported.
            let gone = (0..500).any(|_| {
                let removed = std::fs::remove_dir(&group).is_ok();
                if !removed {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                removed
            });
            assert!(gone, "{}", group.display());
        }
    }
    let group = std::path::Path::new("/sys/fs/cgroup").join(&name);
    assert!(!group.exists() || std::fs::remove_dir(group).is_ok());
}
