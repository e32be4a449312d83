//! `list`: all containers of a root.

use super::{OciError, Root, State, state};

/// The states of all containers, by id. One that vanishes meanwhile is not among them.
///
/// # Errors
/// When the root cannot be read.
pub fn list(root: &Root) -> Result<Vec<State>, OciError> {
    let ids = root.ids()?;
    let state = |id: &String| state(&root.open(id).ok()?).ok();
    Ok(ids.iter().filter_map(state).collect())
}
