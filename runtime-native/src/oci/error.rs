//! Why a verb failed.

use std::io;
use std::path::PathBuf;

use runtime::{StartFailure, code};

use super::Status;
use crate::cgroup::CgroupError;
use crate::plan::PlanError;
use crate::systemd::SystemdError;

/// Why a verb of the OCI runtime command line failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// An id that cannot be a directory's name.
    #[error("`{0}` is not a container id: letters, digits and `_+-.` are allowed, at most 1024")]
    Id(String),
    /// No such container.
    #[error("container `{0}` does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("container `{0}` exists already")]
    Exists(String),
    /// The container is in a state in which the verb makes no sense.
    #[error("cannot {verb} container `{id}`: it is {status}")]
    Status {
        /// The verb.
        verb: &'static str,
        /// The container.
        id: String,
        /// Its state.
        status: Status,
    },
    /// A program for a paused container. Callers know this wording.
    #[error("cannot exec in a paused container: `{0}` (see `--ignore-paused`)")]
    Paused(String),
    /// A signal to a container that has ended. Callers know this wording.
    #[error("container not running: `{0}`")]
    NotRunning(String),
    /// The specification is no valid JSON document.
    #[error("cannot read `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field of the specification has the wrong type or value.
    #[error("cannot use `{}`: `{field}`: {rule}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, as a path through the document.
        field: String,
        /// What is wrong with it.
        rule: String,
    },
    /// Something of the bundle is missing or in the way.
    #[error("cannot use the bundle `{}`: {why}", path.display())]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file could not be used.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The specification asks for what cannot be had.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container's control groups could not be read or changed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// systemd has not done its part.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// The container or program could not be started.
    #[error("{}", .0.message)]
    Start(StartFailure),
    /// A state file of another version.
    #[error("container `{id}` was made by another version of ketch (state version {version})")]
    Version {
        /// The container.
        id: String,
        /// The version of its state file.
        version: u32,
    },
    /// Something that is not there.
    #[error("cannot {what}: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
    /// The container outlived its deadline.
    #[error("container `{0}` did not end in time")]
    Deadline(String),
}

impl OciError {
    /// The exit code of the command line.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start(failure) => exit_code(failure),
            _ => 1,
        }
    }

    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// A program that is missing or not executable has its code; all else is 1 for callers of an OCI
/// runtime.
pub(super) fn exit_code(failure: &StartFailure) -> u8 {
    match failure.code {
        code::NOT_EXECUTABLE | code::NOT_FOUND => failure.code,
        _ => 1,
    }
}
