//! How a container ended, and why it could not start; what is shown of a guest until then.

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

/// The name of the memory file in which a wasm host shows how much linear memory its guests have: 8
/// bytes, the lowest first.
pub const LINEAR_MEMORY: &str = "ketch-linear-memory";

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

/// How a wasm guest ended, where that is more than an exit code: what the wasm host tells the
/// container's monitor through a pipe, once, before it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The guest wanted more memory than it may have.
    pub out_of_memory: bool,
    /// A trap's name, or why the guest could not be started.
    pub error: String,
}

impl GuestReport {
    /// No encoded report is longer, and so a pipe takes it whole (`PIPE_BUF`, pipe(7)).
    pub const MAX_SIZE: usize = 4096;

    /// Longer texts are cut.
    const MAX_ERROR: usize = 2048;

    /// Encodes the report; `None` when it cannot be.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut end = self.error.len().min(Self::MAX_ERROR);
        while !self.error.is_char_boundary(end) {
            end -= 1;
        }
        let cut = Self {
            error: self.error.get(..end)?.to_owned(),
            ..self.clone()
        };
        postcard::to_stdvec(&cut).ok()
    }

    /// Decodes what a wasm host has sent; `None` when it is no report. Its text is made one line
    /// without control characters: the host stands in the container.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let report: Self =
            postcard::from_bytes(bytes.get(..bytes.len().min(Self::MAX_SIZE))?).ok()?;
        let harmless = |c: char| if c.is_control() { ' ' } else { c };
        Some(Self {
            error: report.error.chars().map(harmless).collect(),
            ..report
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_report_is_cut_at_a_character_and_made_one_line() {
        let report = GuestReport {
            out_of_memory: true,
            error: format!("a\n{}", "ä".repeat(4000)),
        };
        let bytes = report.encode().unwrap();
        assert!(bytes.len() <= GuestReport::MAX_SIZE);
        let read = GuestReport::decode(&bytes).unwrap();
        assert!(read.out_of_memory && read.error.starts_with("a ä") && read.error.ends_with('ä'));
        assert_eq!(GuestReport::decode(&[7, 7, 7]), None);
        assert_eq!(GuestReport::decode(&[]), None);
    }
}
