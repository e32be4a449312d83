//! Why systemd has not done what it was asked for.

use std::io;
use std::path::PathBuf;

use crate::plan::PlanError;

/// Why there is no scope, or not with these properties.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemdError {
    /// There is nobody to ask.
    #[error("cannot use `--systemd-cgroup`: {0}")]
    Unavailable(&'static str),
    /// The bus cannot be reached.
    #[error("cannot reach systemd: no message bus at `{}`", bus.display())]
    Connect {
        /// Its socket.
        bus: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The talk broke off, or took too long.
    #[error("cannot talk to systemd over the message bus")]
    Talk(#[source] io::Error),
    /// The bus has sent what cannot be read.
    #[error("the message bus sent {0}")]
    Malformed(&'static str),
    /// systemd, or the bus, says no.
    #[error("systemd does not {what}: {message}")]
    Refused {
        /// What it was asked for.
        what: String,
        /// The error's name, such as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// What it says.
        message: String,
    },
    /// The job was taken on and did not succeed.
    #[error("systemd could not {what}: its job ended as `{result}`")]
    Job {
        /// What it was asked for.
        what: String,
        /// `failed`, `canceled`, `timeout`, `dependency` or `skipped`.
        result: String,
    },
    /// The specification asks for what a scope cannot have.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The process that keeps the scope until the container is in it.
    #[error("cannot start the process that holds the scope")]
    Holder(#[source] io::Error),
}

impl SystemdError {
    /// Whether systemd says that there is no such unit.
    pub(super) fn is_no_such_unit(&self) -> bool {
        self.is_named("org.freedesktop.systemd1.NoSuchUnit")
    }

    /// Whether systemd says that there is one already.
    pub(super) fn is_unit_exists(&self) -> bool {
        self.is_named("org.freedesktop.systemd1.UnitExists")
    }

    fn is_named(&self, expected: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == expected)
    }
}
