//! A container's two records: `config.json` never changes, `state.json` is replaced by the
//! container's one owner (its monitor while it runs, the engine otherwise).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sys::durable::Durability;

use crate::{read_record, write_record};

/// The version of both records.
pub const VERSION: u32 = 1;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not such a record.
    #[error("`{}` is not a record of this version", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

/// What a container is: written once, when it is created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// [`VERSION`].
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name, unique on this host.
    pub name: String,
    /// The image as the user wrote it.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// RFC 3339.
    pub created: String,
    /// `native` or `wasm`.
    pub runtime: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Remove the container when it has ended.
    pub auto_remove: bool,
    /// The image's and the user's own.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the image and the user set of how it is run, beside what the specification says.
    #[serde(default)]
    pub settings: ContainerSettings,
}

/// What a container was created with that nothing but `inspect` and `commit` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSettings {
    /// The first part of the command, which arguments do not replace.
    pub entrypoint: Option<Vec<String>>,
    /// The second part of the command.
    pub cmd: Option<Vec<String>>,
    /// The user as it was given: `user[:group]`.
    pub user: String,
    /// The signal that asks it to end, as it was given.
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL.
    pub stop_timeout: Option<u64>,
    /// Where the id was written to.
    pub cid_file: Option<PathBuf>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    Created,
    /// Its program runs.
    Running,
    /// Its program stands still.
    Paused,
    /// Its program has ended and is started again after a pause.
    Restarting,
    /// Its program has ended.
    Exited,
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// [`VERSION`].
    pub version: u32,
    /// Where it is in its life.
    pub status: Status,
    /// Its init on the host while it runs.
    pub pid: Option<i32>,
    /// When that was started, in clock ticks since boot: the number alone may be given to another.
    #[serde(default)]
    pub pid_start: Option<u64>,
    /// The pipes that its program writes to, for whoever takes the container over.
    #[serde(default)]
    pub pipes: Option<Pipes>,
    /// The last exit code.
    pub exit_code: Option<u8>,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Why it could not start, or how it failed.
    pub error: Option<String>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// How often its restart policy has started it again since somebody started it.
    #[serde(default)]
    pub restart_count: u32,
    /// Somebody asked it to end.
    #[serde(default)]
    pub stopped_by_user: bool,
}

/// The pipes that a running program has instead of a terminal, by their inodes (`stat(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipes {
    /// Standard output.
    pub stdout: u64,
    /// Standard error.
    pub stderr: u64,
    /// Where a wasm host says how its guest ended.
    pub guest_report: Option<u64>,
}

impl Status {
    /// Whether a monitor owns the container.
    #[must_use]
    pub fn is_owned(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

impl ContainerState {
    /// The state of a container that was never started.
    #[must_use]
    pub fn created() -> Self {
        Self {
            version: VERSION,
            status: Status::Created,
            pid: None,
            pid_start: None,
            pipes: None,
            exit_code: None,
            oom_killed: false,
            error: None,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            stopped_by_user: false,
        }
    }

    /// Replaces `state.json` in the container's directory. Not synced: after a power cut no
    /// container runs.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn write(&self, dir: &Path) -> Result<(), RecordError> {
        write_record(&dir.join("state.json"), self, Durability::Atomic)
    }

    /// Reads `state.json` in the container's directory.
    ///
    /// # Errors
    /// When it is absent or not such a record.
    pub fn read(dir: &Path) -> Result<Self, RecordError> {
        read_record(&dir.join("state.json"))
    }
}

impl ContainerConfig {
    /// Writes `config.json` into the container's directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), RecordError> {
        write_record(&dir.join("config.json"), self, Durability::Atomic)
    }

    /// Reads `config.json` in the container's directory.
    ///
    /// # Errors
    /// When it is absent or not such a record.
    pub fn read(dir: &Path) -> Result<Self, RecordError> {
        read_record(&dir.join("config.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_written_and_read_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let state = ContainerState {
            exit_code: Some(9),
            ..ContainerState::created()
        };
        state.write(dir.path()).unwrap();
        assert_eq!(ContainerState::read(dir.path()).unwrap(), state);
    }
}
