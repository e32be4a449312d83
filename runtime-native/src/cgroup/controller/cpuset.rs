//! Which processors and memory nodes.

use std::fs;

use oci_spec::runtime::LinuxResources;

use crate::cgroup::hierarchy::{Hierarchy, ROOT};
use crate::cgroup::limits::Limits;
use crate::plan::PlanError;

const CPUS: &str = "linux.resources.cpu.cpus (--cpuset-cpus)";
const MEMS: &str = "linux.resources.cpu.mems (--cpuset-mems)";

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out)
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out)
}

/// The files have the same names and forms in both versions.
fn both(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(cpu) = resources.cpu() else {
        return Ok(());
    };
    if let Some(cpus) = cpu.cpus().as_ref().filter(|list| !list.is_empty()) {
        out.set("cpuset.cpus", cpus, CPUS)?;
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|list| !list.is_empty()) {
        out.set("cpuset.mems", mems, MEMS)?;
    }
    Ok(())
}

/// A new v1 cpuset has no processor and no memory node, and nobody can enter it: what has to be
/// written to a group of all containers, so that those below it inherit the root's. None on v2.
pub(in crate::cgroup) fn inherited(hierarchy: &Hierarchy) -> Option<Vec<(&'static str, String)>> {
    let name = hierarchy.legacy_dir("cpuset")?;
    let root = |file: &str| {
        let text = fs::read_to_string(format!("{ROOT}/{name}/{file}")).unwrap_or_default();
        text.trim().to_owned()
    };
    Some(vec![
        ("cpuset.cpus", root("cpuset.cpus")),
        ("cpuset.mems", root("cpuset.mems")),
        ("cgroup.clone_children", "1".to_owned()),
    ])
}
