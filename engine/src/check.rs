//! What on disk belongs to nobody, or is not what it should be.

use std::fs;
use std::path::{Path, PathBuf};

use image::{Damage, Repair};
use state::{ContainerConfig, ContainerState};
use sys::durable;
use sys::lock;

use crate::{Engine, EngineError};

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Something of an image.
    Image(Damage),
    /// A container's directory has no records that can be read.
    Container(String),
    /// A name is claimed for a container that is gone or has another one.
    Name {
        /// The name.
        name: String,
        /// The id that claims it.
        id: String,
    },
    /// A run directory of a container that is gone.
    RunDirectory(PathBuf),
    /// A volume's directory has no record that can be read.
    Volume(String),
    /// A network's directory has no record that can be read.
    Network(String),
}

impl Engine {
    /// Looks at everything on disk. With `repair`, what belongs to nobody is removed, damaged layers
    /// are unpacked again and damaged blobs removed; containers, networks and volumes whose records
    /// cannot be read are only reported: they may hold somebody's data.
    ///
    /// # Errors
    /// When a directory cannot be read or a repair fails.
    pub fn check(&self, repair: Repair) -> Result<Vec<Finding>, EngineError> {
        let damage = self.store.check(repair)?;
        let mut found: Vec<Finding> = damage.into_iter().map(Finding::Image).collect();
        for id in names_in(&self.layout.containers())? {
            let dir = self.layout.container(&id);
            let is_whole =
                ContainerConfig::read(&dir).is_ok() && ContainerState::read(&dir).is_ok();
            // One that is removed meanwhile is no finding.
            if id.len() == 64 && !is_whole && dir.exists() {
                found.push(Finding::Container(id));
            }
        }
        self.check_names(repair, &mut found)?;
        for id in names_in(&self.layout.run().join("containers"))? {
            let dir = self.layout.container_run(&id);
            let held = lock::is_held(&dir.join("lock")).unwrap_or(true);
            if !self.layout.container(&id).exists() && !held {
                if repair == Repair::Yes {
                    durable::remove_tree(&dir)
                        .map_err(EngineError::io("remove a run directory"))?;
                }
                found.push(Finding::RunDirectory(dir));
            }
        }
        for id in names_in(&self.layout.networks())? {
            let is_network = id.len() == 64 && self.layout.networks().join(&id).exists();
            if is_network && self.networks().by_id(&id).is_err() {
                found.push(Finding::Network(id));
            }
        }
        for name in names_in(&self.layout.volumes())? {
            if self.volume(&name).is_err() && self.layout.volumes().join(&name).exists() {
                found.push(Finding::Volume(name));
            }
        }
        Ok(found)
    }

    fn check_names(&self, repair: Repair, found: &mut Vec<Finding>) -> Result<(), EngineError> {
        let _lock = self.lock_names()?;
        for name in names_in(&self.layout.container_names())? {
            let path = self.layout.container_names().join(&name);
            let id = fs::read_to_string(&path).unwrap_or_default();
            if self.is_named(&name, id.trim()) || !path.exists() {
                continue;
            }
            if repair == Repair::Yes {
                durable::remove_tree(&path).map_err(EngineError::io("remove a claim of a name"))?;
            }
            found.push(Finding::Name {
                name,
                id: id.trim().to_owned(),
            });
        }
        Ok(())
    }
}

/// The names in a directory, sorted; none when it is absent.
fn names_in(dir: &Path) -> Result<Vec<String>, EngineError> {
    let failed = EngineError::io("list a directory");
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(&failed)?.file_name().into_string());
    }
    // What begins so is being written.
    names.retain(|name| !name.starts_with(".new-"));
    names.sort();
    Ok(names)
}
