//! Files of v2 by name (runtime-spec v1.2 `config-linux.md#unified`).

use oci_spec::runtime::LinuxResources;

use crate::cgroup::limits::{Limits, not_in};
use crate::plan::PlanError;

const FIELD: &str = "linux.resources.unified";

pub(super) fn legacy(resources: &LinuxResources, _out: &mut Limits<'_>) -> Result<(), PlanError> {
    match resources.unified().iter().flatten().next() {
        None => Ok(()),
        Some((file, _)) => Err(not_in("cgroup v1", &format!("{FIELD} `{file}`"))),
    }
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let mut files: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    files.sort_unstable();
    for (file, value) in files {
        let is_name = file.contains('.') && !file.starts_with('.') && !file.contains('/');
        // What moves processes or controllers would undo what the runtime has set up.
        let is_ours = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
        if !is_name || is_ours.contains(&file.as_str()) {
            return Err(PlanError::Unknown {
                field: FIELD,
                value: file.clone(),
            });
        }
        for line in value.lines() {
            out.set(file, line, &format!("{FIELD} `{file}`"))?;
        }
    }
    Ok(())
}
