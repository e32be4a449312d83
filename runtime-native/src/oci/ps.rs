//! `ps`: the processes of a container.

use super::{Container, OciError};

/// The numbers of all processes, as the host sees them, sorted.
///
/// # Errors
/// When the control group cannot be read.
pub fn processes(container: &Container) -> Result<Vec<i32>, OciError> {
    let mut pids = container.group(&container.spec()?)?.processes()?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}
