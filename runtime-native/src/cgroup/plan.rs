//! From a specification's resources to a [`CgroupPlan`].

use std::path::Path;

use oci_spec::runtime::{LinuxResources, Spec};
use runtime::{CgroupPlan, CgroupWrite};

use super::controller;
use super::group::Group;
use super::hierarchy::{Hierarchy, ROOT, is_always_entered};
use super::limits::{self, Collected};
use crate::owner;
use crate::plan::{Options, PlanError, c_string};

/// The controllers that are switched on for containers on v2, where the host has them.
const UNIFIED: [&str; 7] = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb", "rdma"];

/// Plans the groups of one container.
pub(crate) fn plan(spec: &Spec, options: &Options<'_>) -> Result<CgroupPlan, PlanError> {
    let linux = spec.linux().as_ref();
    let mut resources = linux
        .and_then(|linux| linux.resources().clone())
        .unwrap_or_default();
    if options.user_namespace.is_some() || is_ordinary(&resources, options.hierarchy) {
        // In a user namespace no device node can be made or opened, and no filter attached.
        resources.set_devices(None);
    }
    if let Some(control_group) = options.scope {
        let group = Group::of_scope(control_group);
        let collected = limits::collect(&group, &resources)?;
        return scope(&group, collected);
    }
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let group = Group::new(options.hierarchy, path, options.id)?;
    let collected = limits::collect(&group, &resources)?;
    match options.hierarchy {
        Hierarchy::None => Ok(CgroupPlan::default()),
        Hierarchy::Unified { base } => unified(&group, base, collected),
        Hierarchy::Legacy {
            controllers,
            unified,
        } => legacy(&group, controllers, *unified, collected),
    }
}

/// Whether the device list is that of an ordinary user: its container has a user namespace in any
/// case. On v1 the list is refused or taken by the files' owner.
fn is_ordinary(resources: &LinuxResources, hierarchy: &Hierarchy) -> bool {
    let has_list = resources.devices().iter().flatten().next().is_some();
    has_list && matches!(hierarchy, Hierarchy::Unified { .. }) && owner::uid() != 0
}

fn legacy(
    group: &Group,
    controllers: &[String],
    unified: bool,
    collected: Collected,
) -> Result<CgroupPlan, PlanError> {
    let mut plan = CgroupPlan::default();
    let is_used = |name: &str| {
        let dir = format!("{ROOT}/{name}/");
        let mut writes = collected.writes.iter();
        writes.any(|write| write.path.to_bytes().starts_with(dir.as_bytes()))
    };
    for name in controllers {
        if is_always_entered(name) || is_used(name) {
            let dir = format!("{ROOT}/{name}/{}", group.path());
            plan.enter.push(c_string(&format!("{dir}/tasks"))?);
            plan.make.push(c_string(&dir)?);
            for parent in parents(&format!("{ROOT}/{name}"), group.path()) {
                plan.parents.push(c_string(&parent)?);
            }
        }
    }
    if let Some(files) = controller::cpuset_inherited(group.hierarchy()) {
        let name = group.hierarchy().legacy_dir("cpuset").unwrap_or("cpuset");
        for parent in parents(&format!("{ROOT}/{name}"), group.path()) {
            for (file, value) in &files {
                let write = parent_write(&format!("{parent}/{file}"), value, "the cpuset")?;
                plan.parent_writes.push(write);
            }
        }
    }
    if unified {
        let root = format!("{ROOT}/unified");
        for parent in parents(&root, group.path()) {
            plan.parents.push(c_string(&parent)?);
        }
        let dir = c_string(&format!("{root}/{}", group.path()))?;
        plan.make.push(dir.clone());
        plan.clone_into = Some(dir.clone());
        plan.kill = Some(dir);
    }
    fill(&mut plan, group, collected)?;
    Ok(plan)
}

fn unified(group: &Group, base: &str, collected: Collected) -> Result<CgroupPlan, PlanError> {
    let root = format!("{ROOT}{base}");
    let available = limits::available(base);
    let parents = parents(&root, group.path());
    let mut plan = CgroupPlan::default();
    for level in std::iter::once(&root).chain(&parents) {
        // One controller a write: one that cannot be had must not take the others with it.
        for name in UNIFIED
            .iter()
            .filter(|name| available.iter().any(|a| a == *name))
        {
            let file = format!("{level}/cgroup.subtree_control");
            let option = format!("the controller `{name}`");
            plan.parent_writes
                .push(parent_write(&file, &format!("+{name}"), &option)?);
        }
    }
    for parent in &parents {
        plan.parents.push(c_string(parent)?);
    }
    let dir = c_string(&format!("{root}/{}", group.path()))?;
    plan.make.push(dir.clone());
    plan.clone_into = Some(dir.clone());
    plan.kill = Some(dir);
    fill(&mut plan, group, collected)?;
    Ok(plan)
}

/// systemd makes the group, hands it the controllers and takes it away.
fn scope(group: &Group, collected: Collected) -> Result<CgroupPlan, PlanError> {
    let mut plan = CgroupPlan::default();
    if let Some(dir) = group.unified_dir() {
        let dir = c_string(&dir)?;
        plan.clone_into = Some(dir.clone());
        plan.kill = Some(dir);
    }
    fill(&mut plan, group, collected)?;
    Ok(plan)
}

fn fill(plan: &mut CgroupPlan, group: &Group, collected: Collected) -> Result<(), PlanError> {
    let file = |path: Option<std::path::PathBuf>| {
        path.map(|path| c_string(&path.to_string_lossy()))
            .transpose()
    };
    plan.oom_counter = file(group.oom_file())?;
    plan.freezer = file(group.legacy_freezer())?;
    plan.writes = collected.writes;
    plan.device_filter = collected.device_filter;
    Ok(())
}

fn parent_write(file: &str, value: &str, option: &str) -> Result<CgroupWrite, PlanError> {
    Ok(CgroupWrite {
        path: c_string(file)?,
        value: value.to_owned(),
        option: option.to_owned(),
        otherwise: None,
    })
}

/// The directories between a hierarchy's root and a group, parents first.
fn parents(root: &str, path: &str) -> Vec<String> {
    let mut parents: Vec<String> = Path::new(path)
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
        .map(|parent| format!("{root}/{}", parent.display()))
        .collect();
    parents.reverse();
    parents
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxPidsBuilder, LinuxResourcesBuilder};

    use super::*;

    fn legacy_plan(names: &[&str], resources: &LinuxResources) -> Result<CgroupPlan, PlanError> {
        let controllers: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let hierarchy = Hierarchy::Legacy {
            controllers: controllers.clone(),
            unified: true,
        };
        let group = Group::new(&hierarchy, None, "abc")?;
        let collected = limits::collect(&group, resources)?;
        legacy(&group, &controllers, true, collected)
    }

    #[test]
    fn legacy_makes_one_group_in_each_hierarchy_that_is_used() {
        let plan = legacy_plan(&["hugetlb", "memory", "pids"], &LinuxResources::default());
        let plan = plan.unwrap();
        assert_eq!((plan.make.len(), plan.enter.len()), (3, 2));
        assert!(plan.clone_into.is_some());
    }

    #[test]
    fn limit_without_its_controller_is_refused_by_name() {
        let pids = LinuxPidsBuilder::default().limit(5).build().unwrap();
        let resources = LinuxResourcesBuilder::default().pids(pids).build().unwrap();
        let error = legacy_plan(&["memory"], &resources)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--pids-limit") && error.contains("`pids`"),
            "{error}"
        );
    }

    #[test]
    fn parents_are_made_from_the_root_downwards() {
        let parents = parents("/sys/fs/cgroup", "a/b/c");
        assert_eq!(parents, ["/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b"]);
    }
}
