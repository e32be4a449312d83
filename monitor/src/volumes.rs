//! What volume drivers have mounted for the container: given back when it has ended, or could not be
//! started.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Runs the container, then gives back what drivers have mounted for it, by their record.
pub(crate) fn around<T>(record: Option<&CStr>, run: impl FnOnce() -> T) -> T {
    let Some(record) = record.map(|path| Path::new(OsStr::from_bytes(path.to_bytes()))) else {
        return run();
    };
    // Read before: the run directory of a container that vanishes goes with it.
    let mounted = volume::mounted(record).unwrap_or_default();
    let result = run();
    // The end is reported already; what a driver does not take stays in the record for the next
    // start of the container.
    drop(volume::give_back(record, mounted));
    result
}
