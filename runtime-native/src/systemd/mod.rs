//! Control groups that systemd makes: a transient scope for each container, asked for over D-Bus
//! (`org.freedesktop.systemd1(5)`). Runs in front ends; `ketch-init` sees a group like any other.
//!
//! ```text
//! name       `slice:prefix:name` of the specification -> slice and scope
//! property   resources -> properties that systemd keeps
//! annotation `org.systemd.property.*` -> further properties
//! scope      the talk with systemd: start, change, stop
//! bus        a connection to a message bus
//! wire       D-Bus's format
//! ```
//!
//! The client is our own: of the crates that were looked at one wants an async runtime, one the C
//! library of D-Bus, and the one without either has not been released for years. What is needed is a
//! dozen types and five calls.
//!
//! systemd sets again what it has properties for when it reloads, so it is told every limit that it
//! knows. Everything, these included, is then written to the group as without systemd: it rounds
//! quotas, and has no property for some files.

mod annotation;
mod bus;
mod error;
mod name;
mod property;
mod scope;
mod wire;

pub use error::SystemdError;
pub(crate) use scope::{Held, change, stop};

/// Who can be asked on this host.
///
/// # Errors
/// Why nobody can.
pub fn check() -> Result<(), SystemdError> {
    let why = if !std::path::Path::new("/run/systemd/system").is_dir() {
        "systemd does not run on this host"
    } else if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "scopes need control groups v2, and this host has v1"
    } else {
        return Ok(());
    };
    Err(SystemdError::Unavailable(why))
}
