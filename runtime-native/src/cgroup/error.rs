//! Errors about the group of a container that exists already.

use std::io;
use std::path::PathBuf;

use crate::plan::PlanError;

/// Why a container's control group could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A limit that this host cannot give.
    #[error("cannot change the container's limits")]
    Limits(#[source] PlanError),
    /// The kernel refused a value. What was written before it was taken back.
    #[error("cannot set {option} to `{value}` (`{}`)", file.display())]
    Set {
        /// The field and the option that asked for it.
        option: String,
        /// The value.
        value: String,
        /// The control file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `memory.checkBeforeUpdate`: the limit is below what is in use.
    #[error("cannot set the memory limit to {limit} bytes: {usage} are in use")]
    BelowUsage {
        /// The limit that was asked for.
        limit: i64,
        /// What is in use.
        usage: u64,
    },
    /// A file of the group could not be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The group could not be frozen, thawed or killed.
    #[error("cannot {action} the control group `{}`", group.display())]
    Act {
        /// What was to be done.
        action: &'static str,
        /// The group.
        group: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no group that could do it.
    #[error("cannot {action} the container: it has no control group of that kind")]
    NoGroup {
        /// What was to be done.
        action: &'static str,
    },
}
