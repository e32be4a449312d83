//! New limits for a container that runs.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxMemory, LinuxResources};
use runtime::CgroupWrite;

use super::apply::{attach_device_filter, write_choice, write_value};
use super::controller::memory;
use super::error::CgroupError;
use super::group::Group;
use super::limits::{self, Collected, GroupState};

/// A file and what it held.
type Old = (PathBuf, String);

/// Writes that change the limits of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is written now.
    pub now: Vec<CgroupWrite>,
    /// What is written from now on when the container is started.
    pub later: Vec<CgroupWrite>,
}

/// Writes new limits. When the kernel refuses one, those that were changed before it get their old
/// values back.
///
/// # Errors
/// The limit that was refused.
pub fn apply_change(writes: &[CgroupWrite]) -> Result<(), CgroupError> {
    change_all(writes).map(drop)
}

fn change_all(writes: &[CgroupWrite]) -> Result<Vec<Old>, CgroupError> {
    let mut done: Vec<Old> = Vec::new();
    for write in writes {
        if let Err(error) = change(write, &mut done) {
            restore(&done);
            return Err(error);
        }
    }
    Ok(done)
}

impl Group {
    /// Plans what [`apply_change`] writes: `changed` are the limits that change, `all` the
    /// container's limits with them.
    ///
    /// # Errors
    /// As [`Group::update`], before anything is written.
    pub fn plan_change(
        &self,
        changed: &LinuxResources,
        all: &LinuxResources,
    ) -> Result<Change, CgroupError> {
        self.check_usage(changed)?;
        let now = limits::collect(self, changed).map_err(CgroupError::Limits)?;
        let later = limits::collect_for(self, all, GroupState::New).map_err(CgroupError::Limits)?;
        Ok(Change {
            now: now.writes,
            later: later.writes,
        })
    }

    /// Changes the limits that `resources` names and leaves the others. When the kernel refuses one,
    /// those that were changed before it get their old values back.
    ///
    /// # Errors
    /// A limit that this host cannot give, that the kernel refuses or, with
    /// `memory.checkBeforeUpdate`, that is below what is in use.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        self.check_usage(resources)?;
        let Collected {
            writes,
            device_filter,
        } = limits::collect(self, resources).map_err(CgroupError::Limits)?;
        let done = change_all(&writes)?;
        if device_filter.is_empty() {
            return Ok(());
        }
        self.replace_filter(&device_filter)
            .inspect_err(|_| restore(&done))
    }

    fn replace_filter(&self, program: &[u8]) -> Result<(), CgroupError> {
        let dir = PathBuf::from(self.unified_dir().unwrap_or_default());
        attach_device_filter(&dir, program).map_err(|source| CgroupError::Act {
            action: "restrict the devices of",
            group: dir,
            source,
        })
    }

    fn check_usage(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let memory = resources.memory().as_ref();
        let asked = memory.filter(|memory| memory.check_before_update() == Some(true));
        let Some(limit) = asked.and_then(LinuxMemory::limit) else {
            return Ok(());
        };
        let stats = memory::stats(self).map_err(|source| CgroupError::Read {
            file: PathBuf::from(self.dir("memory").unwrap_or_default()),
            source,
        })?;
        let usage = stats.map_or(0, |stats| stats.usage);
        match u64::try_from(limit) {
            Ok(bytes) if bytes < usage => Err(CgroupError::BelowUsage { limit, usage }),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn change(write: &CgroupWrite, done: &mut Vec<Old>) -> Result<(), CgroupError> {
    let path =
        |write: &CgroupWrite| PathBuf::from(std::ffi::OsStr::from_bytes(write.path.to_bytes()));
    let chosen = match &write.otherwise {
        Some(other) if !path(write).exists() => other,
        _ => write,
    };
    let file = path(chosen);
    let old = fs::read_to_string(&file);
    write_choice(write).map_err(|source| CgroupError::Set {
        option: chosen.option.clone(),
        value: chosen.value.clone(),
        file: file.clone(),
        source,
    })?;
    if let Ok(old) = old {
        done.push((file, old.trim().to_owned()));
    }
    Ok(())
}

/// The last change first, as the kernel wants each pair of limits in order.
fn restore(done: &[Old]) {
    for (file, value) in done.iter().rev() {
        // The error to report is the one that led here.
        drop(write_value(Path::new(file), value));
    }
}
