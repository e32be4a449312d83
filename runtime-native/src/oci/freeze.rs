//! `pause` and `resume`.

use super::{Container, OciError, Status};

/// Stops all processes of a container where they are.
///
/// # Errors
/// [`OciError::Status`] for one that does not run; when the kernel cannot freeze it.
pub fn pause(container: &Container) -> Result<(), OciError> {
    let status = container.status();
    if !matches!(status, Status::Running | Status::Created) {
        return Err(OciError::Status {
            verb: "pause",
            id: container.id().to_owned(),
            status,
        });
    }
    Ok(container.group(&container.spec()?)?.freeze()?)
}

/// Lets them go on.
///
/// # Errors
/// [`OciError::Status`] for one that is not paused; when the kernel cannot thaw it.
pub fn resume(container: &Container) -> Result<(), OciError> {
    let status = container.status();
    if status != Status::Paused {
        return Err(OciError::Status {
            verb: "resume",
            id: container.id().to_owned(),
            status,
        });
    }
    Ok(container.group(&container.spec()?)?.thaw()?)
}
