//! The messages on a container's control socket, `<run>/containers/<id>/ctl.sock`: a
//! `SOCK_SEQPACKET` socket, one message a packet, descriptors beside it by `SCM_RIGHTS`.
//!
//! A front end that starts a container talks on one end of a socket pair that the monitor inherits,
//! so that nothing the container prints is lost before an attach; later callers connect by path.

use serde::{Deserialize, Serialize};

use crate::{CgroupWrite, ExitStatus, RestartPolicy, StartFailure};

/// No message is longer.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Not a message of this version.
    #[error("cannot decode a message of the container's monitor")]
    Decode(#[source] postcard::Error),
    /// A message could not be encoded.
    #[error("cannot encode a message for the container's monitor")]
    Encode(#[source] postcard::Error),
}

/// What a caller asks of a monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Streams of the container. Answered by [`Response::Attached`] with one descriptor for each
    /// stream asked for, in the order stdin (a pipe's write end), stdout, stderr (read ends); with
    /// a terminal stdin and stdout are one stream and stderr is never given.
    Attach {
        /// Write to standard input.
        stdin: bool,
        /// Read standard output.
        stdout: bool,
        /// Read standard error.
        stderr: bool,
    },
    /// Report [`Event`]s on this connection.
    Watch,
    /// Send a signal to the container's init.
    Signal(i32),
    /// Send `signal` (or the plan's), then SIGKILL after `timeout_ms` (or the plan's). Answered when
    /// the container has ended.
    Stop {
        /// The signal; the plan's when absent.
        signal: Option<i32>,
        /// Milliseconds until SIGKILL; the plan's when absent.
        timeout_ms: Option<u64>,
    },
    /// The terminal's new size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// This caller leaves the terminal, and the program goes on without it.
    Detach,
    /// Remove the container when it has ended; kill it now.
    Remove,
    /// Stop all processes of the container where they are.
    Pause,
    /// Let them go on.
    Unpause,
    /// Change limits and the restart policy.
    Update {
        /// What is written now.
        now: Vec<CgroupWrite>,
        /// The limits of every later start.
        later: Vec<CgroupWrite>,
        /// The new policy; as it is when absent.
        restart: Option<RestartPolicy>,
    },
    /// Put the container on a network: `network::EndpointPlan`, encoded.
    JoinNetwork(Vec<u8>),
    /// Take the container off the network with this id.
    LeaveNetwork(String),
    /// As [`Request::Stop`]; the container stays even when it is removed at its end, for the caller
    /// starts it again.
    StopToRestart {
        /// As there.
        signal: Option<i32>,
        /// As there.
        timeout_ms: Option<u64>,
    },
    /// The connection to a further program's parent comes with this message: the caller leaves, and the
    /// program's end is the monitor's to write down.
    KeepExec,
    /// How much linear memory the container's wasm guests have. Answered by
    /// [`Response::LinearMemory`]; asked of a monitor whose container the caller cannot look into.
    LinearMemory,
}

/// A monitor's answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done.
    Done,
    /// Descriptors come with this message.
    Attached,
    /// It cannot be done, and why.
    Refused(String),
    /// Something happened, on a connection that asked by [`Request::Watch`].
    Event(Event),
    /// Bytes of linear memory; absent where no wasm host shows any.
    LinearMemory(Option<u64>),
}

/// What a monitor reports by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The program runs.
    Started {
        /// Its pid on the host.
        pid: i32,
    },
    /// It could not start.
    Failed(StartFailure),
    /// It ended; all output that it wrote has been passed on.
    Exited(ExitStatus),
}

macro_rules! codec {
    ($message:ty) => {
        impl $message {
            /// Encodes one packet.
            ///
            /// # Errors
            /// When the message cannot be represented.
            pub fn encode(&self) -> Result<Vec<u8>, ControlError> {
                postcard::to_stdvec(self).map_err(ControlError::Encode)
            }

            /// Decodes one packet.
            ///
            /// # Errors
            /// When the bytes are not such a message.
            pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
                postcard::from_bytes(bytes).map_err(ControlError::Decode)
            }
        }
    };
}

codec!(Request);
codec!(Response);
