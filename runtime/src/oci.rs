//! What `ketch-init` is told when it is started by the OCI runtime command line: there is no
//! monitor then, and whoever called the command is the container's parent.

use serde::{Deserialize, Serialize};
use std::ffi::CString;

use crate::plan::{Console, ExecPlan, InitPlan, PlanError, decode};

/// One verb that needs a process of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OciPlan {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Where errors go besides standard error.
    pub log: LogTarget,
    /// The verb.
    pub verb: OciVerb,
}

impl OciPlan {
    /// Encodes the plan for the memfd.
    ///
    /// # Errors
    /// As [`crate::Plan::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        postcard::to_stdvec(self).map_err(PlanError::Encode)
    }

    /// Decodes what [`OciPlan::encode`] wrote.
    ///
    /// # Errors
    /// As [`crate::Plan::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        decode(bytes)
    }
}

/// The log of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// A file that lines are appended to.
    pub path: Option<CString>,
    /// One JSON object a line, with `level`, `msg` and `time`.
    pub json: bool,
    /// Also what is done, step by step.
    pub debug: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OciVerb {
    /// `create` and `run`.
    Create(Box<OciContainer>),
    /// `exec`.
    Exec(Box<OciExec>),
}

/// A container to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OciContainer {
    /// The container.
    pub init: InitPlan,
    /// `<root>/<id>`, made already.
    pub state_dir: CString,
    /// The record that is written there, as JSON, still without a process.
    pub record: Vec<u8>,
    /// How far the verb goes.
    pub extent: Extent,
    /// Its terminal.
    pub terminal: Terminal,
    /// Where the number of its init is written.
    pub pid_file: Option<CString>,
    /// A socket that the pidfd of its init is sent to.
    pub pidfd_socket: Option<CString>,
    /// Leave the container's directory when it has ended (`--keep`).
    pub keep: bool,
    /// The scope of systemd that its control group belongs to.
    pub scope: Option<ScopeHold>,
}

/// A scope that a child of this process holds until the container's init is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeHold {
    /// Its control group. systemd removes it when it is empty.
    pub dir: CString,
    /// The process that holds it.
    pub holder: i32,
    /// An inherited descriptor: when it is closed the process ends.
    pub end: i32,
}

/// How far `ketch-init` goes with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// `create`: until everything is ready, for `start` to go on.
    Create,
    /// `run --detach`: until its program runs.
    RunDetached,
    /// `run`: until it has ended and is removed.
    Run,
}

/// The terminal of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    /// None: it has the caller's standard streams.
    None,
    /// One whose master side goes to a socket of the caller's.
    Socket {
        /// Its path.
        path: CString,
        /// Its first size.
        size: Console,
    },
    /// One that is shown on the caller's own terminal.
    Relay {
        /// Its first size.
        size: Console,
    },
}

impl Terminal {
    /// The size of the terminal, when there is one.
    #[must_use]
    pub fn size(&self) -> Option<Console> {
        match self {
            Self::None => None,
            Self::Socket { size, .. } | Self::Relay { size } => Some(*size),
        }
    }
}

/// A further program in a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OciExec {
    /// The program.
    pub plan: ExecPlan,
    /// Return when it runs.
    pub detach: bool,
    /// Its terminal.
    pub terminal: Terminal,
    /// Where its number is written.
    pub pid_file: Option<CString>,
    /// A socket that its pidfd is sent to.
    pub pidfd_socket: Option<CString>,
}
