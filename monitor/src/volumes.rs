//! What volume drivers have mounted for the container: given back when it has ended, or could not be
//! started.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::MonitorPlan;

/// Runs the container, then gives back what drivers have mounted for it.
pub(crate) fn around<T>(plan: &MonitorPlan, run: impl FnOnce() -> T) -> T {
    let record = plan.volumes.as_ref();
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
