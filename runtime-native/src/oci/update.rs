//! `update`: other limits for a container.

use oci_spec::runtime::LinuxResources;

use super::{Container, OciError, Status};

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
    Ok(container.group(&container.spec()?)?.update(resources)?)
}
