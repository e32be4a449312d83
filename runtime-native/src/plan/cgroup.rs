//! Which control groups a container gets and what is written there: v1 (also hybrid) and v2 with
//! the cgroupfs driver.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use oci_spec::runtime::{LinuxResources, Spec};
use runtime::{CgroupPlan, CgroupWrite};

use super::{Options, PlanError, c_string};

/// Where cgroupfs is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The directory of ketch's own that holds all containers' groups.
const PARENT: &str = "ketch";

/// The v1 hierarchies that every container enters where they are mounted.
const LEGACY: [&str; 8] = [
    "cpu",
    "cpuacct",
    "cpu,cpuacct",
    "memory",
    "pids",
    "freezer",
    "devices",
    "blkio",
];

/// The controllers that are switched on for containers on v2.
const UNIFIED: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];

/// The control groups of this host, as far as this user may use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// None can be made: not mounted, or not this user's.
    None,
    /// v2 alone.
    Unified,
    /// v1, with or without a v2 hierarchy beside it.
    Legacy {
        /// Directories below `/sys/fs/cgroup` that are v1 hierarchies.
        controllers: Vec<String>,
        /// The v2 hierarchy beside them, without controllers: for `cgroup.kill` and the freezer.
        unified: bool,
    },
}

/// Looks at `/sys/fs/cgroup`.
#[must_use]
pub fn detect() -> Hierarchy {
    let root = Path::new(ROOT);
    if !is_writable(root) {
        return Hierarchy::None;
    }
    if root.join("cgroup.controllers").exists() {
        return Hierarchy::Unified;
    }
    let controllers: Vec<String> = LEGACY
        .into_iter()
        .filter(|name| {
            // `cpu` is a link to `cpu,cpuacct` where both are one hierarchy.
            let dir = root.join(name);
            fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir())
                && dir.join("cgroup.procs").exists()
        })
        .map(str::to_owned)
        .collect();
    if controllers.is_empty() {
        return Hierarchy::None;
    }
    let unified = root.join("unified/cgroup.procs").exists();
    Hierarchy::Legacy {
        controllers,
        unified,
    }
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::accessat(
        rustix::fs::CWD,
        dir,
        rustix::fs::Access::WRITE_OK,
        rustix::fs::AtFlags::EACCESS,
    )
    .is_ok()
}

/// Plans the groups of one container.
pub(super) fn plan(spec: &Spec, options: &Options<'_>) -> Result<CgroupPlan, PlanError> {
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone());
    let resources = resources.unwrap_or_default();
    if options.user_namespace.is_some() || *options.hierarchy == Hierarchy::None {
        refuse_limits(&resources)?;
        return Ok(CgroupPlan::default());
    }
    match options.hierarchy {
        Hierarchy::None => Ok(CgroupPlan::default()),
        Hierarchy::Unified => unified(&resources, options.id),
        Hierarchy::Legacy {
            controllers,
            unified,
        } => legacy(&resources, controllers, *unified, options.id),
    }
}

/// A limit that nobody can enforce must not be promised.
fn refuse_limits(resources: &LinuxResources) -> Result<(), PlanError> {
    let memory = resources
        .memory()
        .as_ref()
        .and_then(oci_spec::runtime::LinuxMemory::limit);
    let cpu = resources.cpu().as_ref();
    let pids = resources.pids().as_ref();
    let option = if memory.is_some() {
        "--memory"
    } else if cpu.is_some_and(|cpu| cpu.quota().is_some() || cpu.shares().is_some()) {
        "--cpus"
    } else if pids.is_some() {
        "--pids-limit"
    } else {
        return Ok(());
    };
    Err(PlanError::Unavailable {
        option: option.to_owned(),
        why: format!("no control group below `{ROOT}` is writable for this user"),
    })
}

/// Collects one container's writes.
struct Writes {
    list: Vec<CgroupWrite>,
}

impl Writes {
    fn add(&mut self, path: &str, value: impl Into<String>, option: &str) -> Result<(), PlanError> {
        self.list.push(CgroupWrite {
            path: c_string(path)?,
            value: value.into(),
            option: option.to_owned(),
        });
        Ok(())
    }
}

fn legacy(
    resources: &LinuxResources,
    controllers: &[String],
    unified: bool,
    id: &str,
) -> Result<CgroupPlan, PlanError> {
    let mut plan = CgroupPlan::default();
    let mut names: Vec<&str> = controllers.iter().map(String::as_str).collect();
    let cpuset = resources
        .cpu()
        .as_ref()
        .filter(|c| c.cpus().is_some() || c.mems().is_some());
    if cpuset.is_some() {
        names.push("cpuset");
        plan.parent_writes = cpuset_parent()?;
    }
    for name in names {
        let parent = format!("{ROOT}/{name}/{PARENT}");
        plan.make.push(c_string(&format!("{parent}/{id}"))?);
        plan.enter
            .push(c_string(&format!("{parent}/{id}/cgroup.procs"))?);
        plan.parents.push(c_string(&parent)?);
    }
    if unified {
        let parent = format!("{ROOT}/unified/{PARENT}");
        let dir = c_string(&format!("{parent}/{id}"))?;
        plan.parents.push(c_string(&parent)?);
        plan.make.push(dir.clone());
        plan.clone_into = Some(dir.clone());
        plan.kill = Some(dir);
    }
    plan.oom_counter = oom_file(controllers, id)?;
    plan.writes = legacy_writes(resources, controllers, id)?;
    Ok(plan)
}

fn oom_file(controllers: &[String], id: &str) -> Result<Option<CString>, PlanError> {
    let memory = controllers.iter().any(|name| name == "memory");
    memory
        .then(|| c_string(&format!("{ROOT}/memory/{PARENT}/{id}/memory.oom_control")))
        .transpose()
}

/// A new v1 cpuset has no processor and no memory node, and nobody can enter it: copied down.
fn cpuset_parent() -> Result<Vec<CgroupWrite>, PlanError> {
    let mut writes = Writes { list: Vec::new() };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(format!("{ROOT}/cpuset/{file}")).unwrap_or_default();
        writes.add(
            &format!("{ROOT}/cpuset/{PARENT}/{file}"),
            value.trim(),
            "the cpuset",
        )?;
    }
    Ok(writes.list)
}

fn legacy_writes(
    resources: &LinuxResources,
    controllers: &[String],
    id: &str,
) -> Result<Vec<CgroupWrite>, PlanError> {
    let mut writes = Writes { list: Vec::new() };
    let has = |name: &str| {
        controllers
            .iter()
            .any(|c| c.split(',').any(|part| part == name))
    };
    let need = |name: &str, option: &str| {
        has(name)
            .then_some(())
            .ok_or_else(|| PlanError::Unavailable {
                option: option.to_owned(),
                why: format!("this host has no `{name}` controller"),
            })
    };
    let dir = |name: &str| format!("{ROOT}/{name}/{PARENT}/{id}");
    if has("devices") {
        device_rules(resources, &dir("devices"), &mut writes)?;
    }
    if let Some(memory) = resources.memory() {
        let dir = dir("memory");
        if let Some(limit) = memory.reservation() {
            need("memory", "--memory-reservation")?;
            writes.add(
                &format!("{dir}/memory.soft_limit_in_bytes"),
                limit.to_string(),
                "--memory-reservation",
            )?;
        }
        if let Some(limit) = memory.limit() {
            need("memory", "--memory")?;
            writes.add(
                &format!("{dir}/memory.limit_in_bytes"),
                limit.to_string(),
                "--memory",
            )?;
        }
        if let Some(limit) = memory.swap() {
            // Swap accounting is a boot option: without it there is no such file.
            if Path::new(&format!("{ROOT}/memory/memory.memsw.limit_in_bytes")).exists() {
                writes.add(
                    &format!("{dir}/memory.memsw.limit_in_bytes"),
                    limit.to_string(),
                    "--memory-swap",
                )?;
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        let dir = dir("cpu");
        for (value, file, option) in [
            (
                cpu.shares().map(|v| v.to_string()),
                "cpu.shares",
                "--cpu-shares",
            ),
            (
                cpu.period().map(|v| v.to_string()),
                "cpu.cfs_period_us",
                "--cpu-period",
            ),
            (
                cpu.quota().map(|v| v.to_string()),
                "cpu.cfs_quota_us",
                "--cpus",
            ),
        ] {
            if let Some(value) = value {
                need("cpu", option)?;
                writes.add(&format!("{dir}/{file}"), value, option)?;
            }
        }
        if cpu.cpus().is_some() || cpu.mems().is_some() {
            legacy_cpuset(cpu, id, &mut writes)?;
        }
    }
    if let Some(pids) = resources.pids() {
        need("pids", "--pids-limit")?;
        let value = pids_value(pids.limit());
        writes.add(&format!("{}/pids.max", dir("pids")), value, "--pids-limit")?;
    }
    Ok(writes.list)
}

fn legacy_cpuset(
    cpu: &oci_spec::runtime::LinuxCpu,
    id: &str,
    writes: &mut Writes,
) -> Result<(), PlanError> {
    let asked = [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")];
    for (value, file) in asked {
        let value = match value {
            Some(value) => value.clone(),
            None => fs::read_to_string(format!("{ROOT}/cpuset/{file}")).unwrap_or_default(),
        };
        let option = if file == "cpuset.cpus" {
            "--cpuset-cpus"
        } else {
            "--cpuset-mems"
        };
        writes.add(
            &format!("{ROOT}/cpuset/{PARENT}/{id}/{file}"),
            value.trim(),
            option,
        )?;
    }
    Ok(())
}

/// The device list as an allow-list: first nothing, then what the specification names.
fn device_rules(
    resources: &LinuxResources,
    dir: &str,
    writes: &mut Writes,
) -> Result<(), PlanError> {
    for rule in resources.devices().iter().flatten() {
        let number = |value: Option<i64>| value.map_or_else(|| "*".to_owned(), |v| v.to_string());
        let kind = rule.typ();
        let kind = kind.as_ref().map_or("a", |kind| kind.as_str());
        let access = rule.access().as_deref().unwrap_or("rwm");
        let file = if rule.allow() {
            "devices.allow"
        } else {
            "devices.deny"
        };
        let value = match kind {
            "a" => "a".to_owned(),
            kind => format!(
                "{kind} {}:{} {access}",
                number(rule.major()),
                number(rule.minor())
            ),
        };
        writes.add(&format!("{dir}/{file}"), value, "the device list")?;
    }
    Ok(())
}

fn unified(resources: &LinuxResources, id: &str) -> Result<CgroupPlan, PlanError> {
    let parent = format!("{ROOT}/{PARENT}");
    let dir = format!("{parent}/{id}");
    let available = fs::read_to_string(format!("{ROOT}/cgroup.controllers")).unwrap_or_default();
    let available: Vec<&str> = available.split_whitespace().collect();
    let enable: Vec<String> = UNIFIED
        .into_iter()
        .filter(|name| available.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    let mut parents = Writes { list: Vec::new() };
    for level in [ROOT, &parent] {
        let file = format!("{level}/cgroup.subtree_control");
        parents.add(&file, enable.join(" "), "the controllers")?;
    }
    let group = c_string(&dir)?;
    Ok(CgroupPlan {
        parents: vec![c_string(&parent)?],
        parent_writes: parents.list,
        make: vec![group.clone()],
        enter: Vec::new(),
        clone_into: Some(group.clone()),
        writes: unified_writes(resources, &available, &dir)?,
        oom_counter: Some(c_string(&format!("{dir}/memory.events"))?),
        kill: Some(group),
    })
}

fn unified_writes(
    resources: &LinuxResources,
    available: &[&str],
    dir: &str,
) -> Result<Vec<CgroupWrite>, PlanError> {
    let mut writes = Writes { list: Vec::new() };
    let mut add = |controller: &str, file: &str, value: String, option: &str| {
        if !available.contains(&controller) {
            return Err(PlanError::Unavailable {
                option: option.to_owned(),
                why: format!("this host has no `{controller}` controller"),
            });
        }
        writes.add(&format!("{dir}/{file}"), value, option)
    };
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.reservation() {
            add(
                "memory",
                "memory.low",
                limit_text(limit),
                "--memory-reservation",
            )?;
        }
        if let Some(limit) = memory.limit() {
            add("memory", "memory.max", limit_text(limit), "--memory")?;
            if let Some(swap) = memory.swap() {
                // v1 counts memory and swap together, v2 swap alone.
                let swap = if swap < 0 {
                    swap
                } else {
                    (swap - limit).max(0)
                };
                if Path::new(ROOT).join("memory.swap.max").exists() || swap_is_counted() {
                    add(
                        "memory",
                        "memory.swap.max",
                        limit_text(swap),
                        "--memory-swap",
                    )?;
                }
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares() {
            add(
                "cpu",
                "cpu.weight",
                weight(shares).to_string(),
                "--cpu-shares",
            )?;
        }
        if let Some(quota) = cpu.quota() {
            let period = cpu.period().unwrap_or(100_000);
            let quota = if quota <= 0 {
                "max".to_owned()
            } else {
                quota.to_string()
            };
            add("cpu", "cpu.max", format!("{quota} {period}"), "--cpus")?;
        }
        if let Some(cpus) = cpu.cpus() {
            add("cpuset", "cpuset.cpus", cpus.clone(), "--cpuset-cpus")?;
        }
        if let Some(mems) = cpu.mems() {
            add("cpuset", "cpuset.mems", mems.clone(), "--cpuset-mems")?;
        }
    }
    if let Some(pids) = resources.pids() {
        add("pids", "pids.max", pids_value(pids.limit()), "--pids-limit")?;
    }
    Ok(writes.list)
}

/// The root group has no `memory.swap.max`; any group below it has when swap is accounted.
fn swap_is_counted() -> bool {
    let Ok(entries) = fs::read_dir(ROOT) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.path().join("memory.swap.max").exists())
}

fn limit_text(bytes: i64) -> String {
    if bytes < 0 {
        "max".to_owned()
    } else {
        bytes.to_string()
    }
}

fn pids_value(limit: i64) -> String {
    if limit <= 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

/// Shares of v1 (2 to 262144) to the weight of v2 (1 to 10000), as the runtimes agreed
/// (runtime-spec `config-linux.md#cpu`, note on `shares`).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_of_shares_covers_the_range() {
        assert_eq!(
            (weight(0), weight(2), weight(1024), weight(262_144)),
            (1, 1, 39, 10_000)
        );
    }

    #[test]
    fn legacy_makes_one_group_in_each_hierarchy() {
        let controllers = ["memory".to_owned(), "pids".to_owned()];
        let plan = legacy(&LinuxResources::default(), &controllers, true, "abc").unwrap();
        assert_eq!(plan.make.len(), 3);
        assert_eq!(plan.enter.len(), 2);
        assert!(plan.clone_into.is_some());
    }
}
