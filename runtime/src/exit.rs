//! How a container ended, and why it could not start.

use serde::{Deserialize, Serialize};

/// Exit codes of the command line (DESIGN section 3).
pub mod code {
    /// The engine failed before the program ran.
    pub const ENGINE: u8 = 125;
    /// The program was found and cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The program was not found.
    pub const NOT_FOUND: u8 = 127;
    /// A trap in a wasm guest: 128 + SIGABRT.
    pub const TRAP: u8 = 134;
    /// 128 + SIGKILL.
    pub const KILLED: u8 = 137;
    /// Added to the number of the signal that ended a process.
    pub const SIGNAL_BASE: u8 = 128;
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code as a shell would show it.
    pub code: u8,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel, or the wasm sandbox at its memory limit, killed it for want of memory.
    pub oom_killed: bool,
    /// What went wrong, when it is known: a trap's name, a failed step.
    pub error: Option<String>,
}

/// Why a container could not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// 125, 126 or 127 ([`code`]).
    pub code: u8,
    /// What could not be done and why, one line.
    pub message: String,
}
