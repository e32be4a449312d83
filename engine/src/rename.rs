//! A container gets another name. A claim of a name counts as long as the container whose id it
//! holds has that name; others were left by processes that died, and are taken over.
//!
//! ```text
//! claim the new name ── config.json has it ── give the old name back
//! ```

use std::fs;
use std::io;
use std::time::Duration;

use state::ContainerConfig;
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};

use crate::create::is_name;
use crate::{Container, Engine, EngineError};

/// Nothing slow happens under the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

impl Engine {
    /// Gives a container another name. Names that other containers resolve follow at its next start.
    ///
    /// # Errors
    /// When the name is none, or another container's.
    pub fn rename(&self, container: &Container, name: &str) -> Result<(), EngineError> {
        let old = &container.config.name;
        if !is_name(name) {
            return Err(EngineError::BadName(name.to_owned()));
        }
        if name == old {
            return Err(EngineError::Unsupported(format!(
                "cannot rename container `{old}`: that is its name already"
            )));
        }
        let names = self.layout.container_names();
        let id = &container.config.id;
        let _lock = self.lock_names()?;
        let claim = || durable::claim_file(&names.join(name), id.as_bytes(), Durability::Atomic);
        match claim() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.take_over_name(name)?;
                claim().map_err(EngineError::io("claim the container's name"))?;
            }
            other => other.map_err(EngineError::io("claim the container's name"))?,
        }
        // Its monitor, if it has one, reads there which name it is to give back.
        let renamed = ContainerConfig {
            name: name.to_owned(),
            ..container.config.clone()
        };
        let written = renamed.write(&self.layout.container(id));
        let unclaimed = if written.is_ok() { old.as_str() } else { name };
        // A claim that stays does not count.
        drop(durable::remove_tree(&names.join(unclaimed)));
        written?;
        self.record_container_event(&renamed, "rename", &[("oldName", old)]);
        Ok(())
    }

    pub(crate) fn lock_names(&self) -> Result<FileLock, EngineError> {
        let path = self.layout.locks().join("container-names.lock");
        FileLock::acquire(&path, Mode::Exclusive, LOCK_TIMEOUT).map_err(EngineError::io(
            "wait for another ketch that names containers",
        ))
    }

    /// Removes a claim that does not count. The caller holds the lock of names.
    pub(crate) fn take_over_name(&self, name: &str) -> Result<(), EngineError> {
        let path = self.layout.container_names().join(name);
        let id = fs::read_to_string(&path).unwrap_or_default();
        if self.is_named(name, id.trim()) {
            return Err(EngineError::NameInUse {
                name: name.to_owned(),
                id: id.trim().to_owned(),
            });
        }
        durable::remove_tree(&path).map_err(EngineError::io("take the name over"))
    }

    /// Whether the container with this id has this name, or is being made with it.
    pub(crate) fn is_named(&self, name: &str, id: &str) -> bool {
        // One that is being made lies below `tmp/` first: asked in this order, it is seen.
        if !id.is_empty() && self.layout.tmp().join(id).exists() {
            return true;
        }
        ContainerConfig::read(&self.layout.container(id)).is_ok_and(|config| config.name == name)
    }
}
