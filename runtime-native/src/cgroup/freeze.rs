//! Pause and resume: the freezer of v1 and `cgroup.freeze` of v2 (Linux 5.2).

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use runtime::CgroupPlan;

use super::apply::write_value;
use super::error::CgroupError;
use super::group::Group;
use super::hierarchy::Hierarchy;
use super::read;

/// How long a group may take to stop: a process in an uninterruptible wait keeps it from freezing.
const DEADLINE: Duration = Duration::from_secs(10);

/// How a group is frozen.
enum Freezer {
    Legacy(PathBuf),
    Unified(PathBuf),
}

impl Freezer {
    /// That of a planned group.
    fn of_plan(plan: &CgroupPlan) -> Option<Self> {
        let path = |path: &CString| PathBuf::from(OsStr::from_bytes(path.to_bytes()));
        let legacy = plan.freezer.as_ref().map(|state| Self::Legacy(path(state)));
        legacy.or_else(|| plan.clone_into.as_ref().map(|dir| Self::Unified(path(dir))))
    }

    fn write(&self, frozen: bool) -> io::Result<()> {
        match (self, frozen) {
            (Self::Legacy(state), true) => write_value(state, "FROZEN"),
            (Self::Legacy(state), false) => write_value(state, "THAWED"),
            (Self::Unified(dir), true) => write_value(&dir.join("cgroup.freeze"), "1"),
            (Self::Unified(dir), false) => write_value(&dir.join("cgroup.freeze"), "0"),
        }
    }

    fn is_frozen(&self) -> io::Result<bool> {
        match self {
            Self::Legacy(state) => {
                let text = read::text(state)?.unwrap_or_default();
                Ok(text.trim() == "FROZEN")
            }
            Self::Unified(dir) => Ok(read::key(&dir.join("cgroup.events"), "frozen") == 1),
        }
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Legacy(state) => state.parent().unwrap_or(state),
            Self::Unified(dir) => dir,
        }
    }
}

/// Stops every process of a container and waits until all stand still.
///
/// # Errors
/// As [`Group::freeze`].
pub fn freeze(plan: &CgroupPlan) -> Result<(), CgroupError> {
    freeze_with(Freezer::of_plan(plan))
}

/// Lets the processes of a container go on.
///
/// # Errors
/// As [`Group::thaw`].
pub fn thaw(plan: &CgroupPlan) -> Result<(), CgroupError> {
    thaw_with(Freezer::of_plan(plan))
}

fn freeze_with(freezer: Option<Freezer>) -> Result<(), CgroupError> {
    let freezer = freezer.ok_or(CgroupError::NoGroup { action: "pause" })?;
    let done = set(&freezer, true);
    if done.is_err() {
        // The error to report is the first one.
        drop(freezer.write(false));
    }
    done.map_err(|source| failed("freeze", &freezer, source))
}

fn thaw_with(freezer: Option<Freezer>) -> Result<(), CgroupError> {
    let freezer = freezer.ok_or(CgroupError::NoGroup { action: "resume" })?;
    set(&freezer, false).map_err(|source| failed("thaw", &freezer, source))
}

impl Group {
    /// Stops every process of the group and waits until all stand still.
    ///
    /// # Errors
    /// When there is no freezer, or the group does not stand still at the deadline: it is thawed
    /// again then.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        freeze_with(self.freezer())
    }

    /// Lets the processes of the group go on.
    ///
    /// # Errors
    /// When there is no freezer or the kernel refuses.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        thaw_with(self.freezer())
    }

    /// Whether the group stands still.
    ///
    /// # Errors
    /// When the state cannot be read. A group that is gone does not stand still.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let Some(freezer) = self.freezer() else {
            return Ok(false);
        };
        freezer.is_frozen().map_err(|source| CgroupError::Read {
            file: freezer.dir().to_path_buf(),
            source,
        })
    }

    /// A killed process of a frozen v1 group dies only when it is thawed; v2 needs nothing.
    pub(super) fn thaw_if_frozen(&self) -> io::Result<()> {
        match self.legacy_freezer() {
            Some(state) => thaw_legacy(&state),
            None => Ok(()),
        }
    }

    /// `freezer.state` of v1.
    pub(super) fn legacy_freezer(&self) -> Option<PathBuf> {
        match self.hierarchy() {
            Hierarchy::Legacy { .. } => self.file("freezer.state"),
            Hierarchy::None | Hierarchy::Unified { .. } => None,
        }
    }

    fn freezer(&self) -> Option<Freezer> {
        self.legacy_freezer().map(Freezer::Legacy).or_else(|| {
            let dir = self.unified_dir()?;
            Some(Freezer::Unified(PathBuf::from(dir)))
        })
    }
}

/// Thaws a v1 group; one that is gone is no error.
pub(super) fn thaw_legacy(state: &Path) -> io::Result<()> {
    match write_value(state, "THAWED") {
        Err(error) if read::is_gone(&error) => Ok(()),
        other => other,
    }
}

fn failed(action: &'static str, freezer: &Freezer, source: io::Error) -> CgroupError {
    CgroupError::Act {
        action,
        group: freezer.dir().to_path_buf(),
        source,
    }
}

/// Asks for the state and waits for it. v1 has to be asked again while it is `FREEZING`: a process
/// that was made meanwhile is not frozen yet.
fn set(freezer: &Freezer, frozen: bool) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_micros(50);
    freezer.write(frozen)?;
    while freezer.is_frozen()? != frozen {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
        if matches!(freezer, Freezer::Legacy(_)) {
            freezer.write(frozen)?;
        }
    }
    Ok(())
}
