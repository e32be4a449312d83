//! Exit codes and hints of what goes wrong where there are no containers.

use crate::portable::{NeedsLinux, Refused};

/// The exit code that an error brings itself.
pub(crate) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    error.downcast_ref::<Refused>().map(|refused| refused.code)
}

/// What to do about it.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    let needs_linux = error.downcast_ref::<NeedsLinux>()?;
    needs_linux.hint.map(str::to_owned)
}
