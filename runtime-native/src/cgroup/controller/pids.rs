//! The number of processes and threads.

use std::io;

use oci_spec::runtime::LinuxResources;

use crate::cgroup::group::Group;
use crate::cgroup::limits::Limits;
use crate::cgroup::read;
use crate::plan::PlanError;

const LIMIT: &str = "linux.resources.pids.limit (--pids-limit)";

/// What a group holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Processes and threads.
    pub current: u64,
    /// The limit.
    pub limit: Option<u64>,
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out)
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out)
}

/// The file has the same name and form in both versions. A negative number is no limit; 0, which
/// would keep the init itself out, means 1 as to runc.
fn both(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    match resources.pids().map(|pids| pids.limit()) {
        None => Ok(()),
        // A group without the controller has no limit already.
        Some(limit) if limit < 0 && !out.has_controller("pids") => Ok(()),
        Some(limit) if limit < 0 => out.set("pids.max", "max", LIMIT),
        Some(limit) => out.set("pids.max", limit.max(1), LIMIT),
    }
}

/// What the group holds; none without the controller.
pub(in crate::cgroup) fn stats(group: &Group) -> io::Result<Option<PidsStats>> {
    let Some(current) = group.file("pids.current").filter(|file| file.exists()) else {
        return Ok(None);
    };
    Ok(Some(PidsStats {
        limit: read::limit(&current.with_file_name("pids.max"))?,
        current: read::number(&current)?,
    }))
}
