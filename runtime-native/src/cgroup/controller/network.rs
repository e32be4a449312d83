//! The class and the priorities of network packets: v1 only, v2 leaves them to BPF programs.

use oci_spec::runtime::LinuxResources;

use crate::cgroup::limits::{Limits, not_in};
use crate::plan::PlanError;

const CLASS: &str = "linux.resources.network.classID";
const PRIORITIES: &str = "linux.resources.network.priorities";

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    if let Some(class) = network.class_id() {
        out.set("net_cls.classid", class, CLASS)?;
    }
    for priority in network.priorities().iter().flatten() {
        let line = format!("{} {}", priority.name(), priority.priority());
        out.set("net_prio.ifpriomap", line, PRIORITIES)?;
    }
    Ok(())
}

pub(super) fn unified(resources: &LinuxResources, _out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    if network.class_id().is_some_and(|class| class != 0) {
        return Err(not_in("cgroup v2", CLASS));
    }
    if network
        .priorities()
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        return Err(not_in("cgroup v2", PRIORITIES));
    }
    Ok(())
}
