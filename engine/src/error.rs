//! Why the engine could not do what was asked.

use std::io;
use std::path::PathBuf;

use image::ImageError;
use network::NetworkError;
use runtime::code;
use runtime_native::cgroup::CgroupError;
use runtime_native::plan::PlanError;
use runtime_wasm::worker::WorkerError;
use state::{LayoutError, RecordError};

use crate::UserNamespaceError;

/// What kind of failure it is: decides exit code and, later, HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such object.
    NotFound,
    /// The object's state forbids it.
    Conflict,
    /// The request is wrong.
    InvalidInput,
    /// Everything else.
    Internal,
}

/// An engine operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No container has this name or id.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// More than one id starts so.
    #[error("more than one container's id starts with `{0}`")]
    Ambiguous(String),
    /// The name belongs to another container.
    #[error("cannot create container `{name}`: the name is in use by container {id}")]
    NameInUse {
        /// The name.
        name: String,
        /// Its owner's id.
        id: String,
    },
    /// Not a name.
    #[error("cannot name a container `{0}`: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are allowed")]
    BadName(String),
    /// The container runs.
    #[error("cannot {what} container `{name}`: it is running")]
    Running {
        /// The operation.
        what: &'static str,
        /// The container.
        name: String,
    },
    /// The container does not run.
    #[error("container `{0}` is not running")]
    NotRunning(String),
    /// The container's processes stand still.
    #[error("cannot {what} container `{name}`: it is paused")]
    Paused {
        /// The operation.
        what: &'static str,
        /// The container.
        name: String,
    },
    /// The container's processes do not stand still.
    #[error("cannot resume container `{0}`: it is not paused")]
    NotPaused(String),
    /// A wasm container has one guest and no processes.
    #[error(
        "cannot {what} container `{name}`: a wasm container has no processes, only its one guest"
    )]
    NoProcesses {
        /// The operation.
        what: &'static str,
        /// The container.
        name: String,
    },
    /// A filter that does not exist, or not with this value.
    #[error("cannot filter {what} by `{filter}`: {why}")]
    BadFilter {
        /// What is listed.
        what: &'static str,
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing can be written where something was to be copied to.
    #[error("cannot copy into container `{name}`: `{path}` is on a read-only file system")]
    ReadOnly {
        /// The container.
        name: String,
        /// The path in it.
        path: String,
    },
    /// A path of a copy that cannot be what it is to be.
    #[error("cannot copy {direction} `{path}`: {why}")]
    Copy {
        /// `from` or `to`.
        direction: &'static str,
        /// The path, in the container or on the host.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image has no command and none was given.
    #[error("cannot create a container of `{0}`: no command was given, and the image has none")]
    NoCommand(String),
    /// The user is not in the image.
    #[error("cannot find user `{0}` in the image's /etc/passwd")]
    NoSuchUser(String),
    /// The group is not in the image.
    #[error("cannot find group `{0}` in the image's /etc/group")]
    NoSuchGroup(String),
    /// A number that is no user or group.
    #[error("`{0}` is not a user or group id (0 to 4294967294)")]
    BadId(String),
    /// An ordinary user has no such id to give.
    #[error(
        "cannot run as {kind} id {id}: only {mapped} are mapped (this user needs more subordinate ids in /etc/subuid and /etc/subgid, and newuidmap)"
    )]
    Unmapped {
        /// `user` or `group`.
        kind: &'static str,
        /// The id.
        id: u32,
        /// How many there are, from 0 on.
        mapped: u32,
    },
    /// No volume has this name.
    #[error("no such volume: {0}")]
    NoSuchVolume(String),
    /// A volume of this name has other options.
    #[error("cannot create volume `{0}`: a volume of this name exists with other options")]
    VolumeExists(String),
    /// A container has the volume.
    #[error("cannot remove volume `{name}`: it is in use by {containers}")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// The containers' names.
        containers: String,
    },
    /// A volume's source is absent.
    #[error("cannot mount `{0}`: no such file or directory on the host")]
    NoSuchSource(String),
    /// A memory limit that this host cannot give.
    #[error("cannot limit the memory to {bytes} bytes: {why}")]
    Memory {
        /// What was asked for.
        bytes: u64,
        /// What there is.
        why: String,
    },
    /// A module that the user named cannot be read.
    #[error("cannot read `{}`", path.display())]
    OpenModule {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The compiler of wasm modules failed, and not for the module's sake.
    #[error(transparent)]
    Compile(WorkerError),
    /// Something that this version cannot do, asked for by name.
    #[error("{0}")]
    Unsupported(String),
    /// The container could not start.
    #[error("{message}")]
    Start {
        /// The exit code: 125, 126 or 127.
        code: u8,
        /// What could not be done and why.
        message: String,
    },
    /// The directories of ketch cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An ordinary user cannot have containers here.
    #[error(transparent)]
    UserNamespace(#[from] UserNamespaceError),
    /// An image operation failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The container cannot be described to the kernel.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container's control group cannot be changed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A network operation failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A volume driver failed.
    #[error(transparent)]
    Driver(#[from] volume::DriverError),
    /// A record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The monitor could not be reached or did not answer.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl EngineError {
    /// Names what was being done.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_) | Self::NoSuchVolume(_) => ErrorKind::NotFound,
            Self::NameInUse { .. }
            | Self::Running { .. }
            | Self::NotRunning(_)
            | Self::Paused { .. }
            | Self::NotPaused(_) => ErrorKind::Conflict,
            Self::Ambiguous(_)
            | Self::BadName(_)
            | Self::NoProcesses { .. }
            | Self::BadFilter { .. }
            | Self::ReadOnly { .. }
            | Self::Copy { .. }
            | Self::NoCommand(_)
            | Self::NoSuchUser(_)
            | Self::NoSuchGroup(_)
            | Self::BadId(_)
            | Self::Unmapped { .. }
            | Self::NoSuchSource(_)
            | Self::Memory { .. }
            | Self::OpenModule { .. }
            | Self::Unsupported(_)
            | Self::Cgroup(_)
            | Self::Plan(_) => ErrorKind::InvalidInput,
            _ => ErrorKind::Internal,
        }
    }

    /// The exit code of `run` and its like.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { code, .. } => *code,
            _ => code::ENGINE,
        }
    }
}
