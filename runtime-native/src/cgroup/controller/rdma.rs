//! Remote direct memory access.

use std::collections::BTreeMap;
use std::io;

use oci_spec::runtime::{LinuxRdma, LinuxResources};

use crate::cgroup::group::Group;
use crate::cgroup::limits::Limits;
use crate::cgroup::read;
use crate::plan::PlanError;

const LIMIT: &str = "linux.resources.rdma";

/// What a group uses of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaStats {
    /// Handles in use.
    pub handles: u64,
    /// Objects in use.
    pub objects: u64,
    /// The limit of handles.
    pub handle_limit: Option<u64>,
    /// The limit of objects.
    pub object_limit: Option<u64>,
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out)
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out)
}

/// The file has the same name and form in both versions.
fn both(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let mut devices: Vec<(&String, &LinuxRdma)> = resources.rdma().iter().flatten().collect();
    devices.sort_unstable_by_key(|(name, _)| *name);
    for (name, limit) in devices {
        let mut line = name.clone();
        if let Some(handles) = limit.hca_handles() {
            line.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limit.hca_objects() {
            line.push_str(&format!(" hca_object={objects}"));
        }
        out.set("rdma.max", line, LIMIT)?;
    }
    Ok(())
}

/// What the group uses, by device; empty without the controller.
pub(in crate::cgroup) fn stats(group: &Group) -> io::Result<BTreeMap<String, RdmaStats>> {
    let Some(file) = group.file("rdma.current") else {
        return Ok(BTreeMap::new());
    };
    let current = read::text(&file)?.unwrap_or_default();
    let max = read::text(&file.with_file_name("rdma.max"))?.unwrap_or_default();
    Ok(devices(&current, &max))
}

fn devices(current: &str, max: &str) -> BTreeMap<String, RdmaStats> {
    let number = |values: &BTreeMap<&str, &str>, key: &str| {
        let value = values.get(key);
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let mut devices: BTreeMap<String, RdmaStats> = BTreeMap::new();
    for (name, values) in read::nested(current) {
        let device = devices.entry(name.to_owned()).or_default();
        device.handles = number(&values, "hca_handle").unwrap_or(0);
        device.objects = number(&values, "hca_object").unwrap_or(0);
    }
    for (name, values) in read::nested(max) {
        let device = devices.entry(name.to_owned()).or_default();
        device.handle_limit = number(&values, "hca_handle");
        device.object_limit = number(&values, "hca_object");
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_join_use_and_limit() {
        let devices = devices(
            "mlx4_0 hca_handle=2 hca_object=20\n",
            "mlx4_0 hca_handle=3 hca_object=max\n",
        );
        let expected = RdmaStats {
            handles: 2,
            objects: 20,
            handle_limit: Some(3),
            object_limit: None,
        };
        assert_eq!(devices.get("mlx4_0"), Some(&expected));
    }
}
