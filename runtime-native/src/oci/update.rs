//! `update`: other limits for a container.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Container, OciError, Status};
use crate::systemd;

/// Changes the limits that `resources` names.
///
/// # Errors
/// [`OciError::Status`] for a stopped container; a limit that cannot be had.
pub fn update(container: &Container, resources: &LinuxResources) -> Result<(), OciError> {
    let status = container.status();
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(OciError::Status {
            verb: "update",
            id: container.id().to_owned(),
            status,
        });
    }
    let group = container.group(&container.spec()?)?;
    // First the kernel: what it refuses systemd must not keep.
    group.update(resources)?;
    if let Some(scope) = &container.record.scope {
        let dir = format!("/sys/fs/cgroup{}", scope.control_group);
        systemd::change(&scope.unit, Path::new(&dir), resources)?;
        // systemd has written what it could say, which is less exact.
        group.update(resources)?;
    }
    Ok(())
}
