//! Volumes that other programs keep: made and removed there, and mounted for a container before it
//! starts. The container's monitor gives them back.

use std::path::{Path, PathBuf};

use ::volume::{Driver, DriverVolume, Mounted, Plugins, give_back, record_path};
use sys::lock::{FileLock, Mode};

use crate::mounts::ContainerMount;
use crate::volume::VolumeConfig;
use crate::{Engine, EngineError};

/// How many digits of a random number tell one start's mounts from another's.
const ID_LENGTH: usize = 32;

/// A volume that a driver has and ketch did not make.
#[derive(Debug, Clone)]
pub struct ForeignVolume {
    /// The driver.
    pub driver: String,
    /// The volume's name.
    pub name: String,
}

/// What drivers have mounted for a container that is about to start. Given back when this is
/// dropped, unless a monitor has taken it over.
#[derive(Debug)]
pub(crate) struct DriverMounts {
    record: PathBuf,
    mounted: Vec<Mounted>,
    handed_over: bool,
}

impl DriverMounts {
    /// The record for the monitor; nothing without such volumes.
    pub(crate) fn record(&self) -> Option<&Path> {
        (!self.mounted.is_empty()).then_some(self.record.as_path())
    }

    /// What was mounted for a container that runs: its monitor gives it back, or another one that takes
    /// it over.
    pub(crate) fn of_running(run_dir: &Path) -> Self {
        let mut found = Self {
            record: run_dir.to_owned(),
            mounted: Vec::new(),
            handed_over: true,
        };
        // Other records are of earlier starts, and what a driver has not taken back.
        for record in ::volume::records(run_dir) {
            let mounted = ::volume::mounted(&record).unwrap_or_default();
            if mounted.len() > found.mounted.len() {
                found = Self {
                    record,
                    mounted,
                    handed_over: true,
                };
            }
        }
        found
    }

    /// The monitor gives them back from now on.
    pub(crate) fn hand_over(mut self) {
        self.handed_over = true;
    }

    /// Where the volume of a mount is.
    pub(crate) fn mountpoint(&self, mount: &ContainerMount) -> Option<&Path> {
        let volume = mount.volume.as_deref()?;
        let one = self.mounted.iter().find(|one| one.volume == volume)?;
        one.mountpoint.as_deref()
    }
}

impl Drop for DriverMounts {
    fn drop(&mut self) {
        if !self.handed_over && !self.mounted.is_empty() {
            // The start has failed, and its error is the one to report.
            drop(give_back(&self.record, std::mem::take(&mut self.mounted)));
        }
    }
}

impl Engine {
    fn plugins(&self) -> Plugins {
        Plugins::new(self.layout().run())
    }

    /// A volume driver that lives.
    ///
    /// # Errors
    /// When there is none of this name, or it does not answer.
    pub(crate) fn volume_driver(&self, name: &str) -> Result<Driver, EngineError> {
        Ok(Driver::open(&self.plugins(), name)?)
    }

    pub(crate) fn create_at_driver(&self, config: &VolumeConfig) -> Result<(), EngineError> {
        let driver = self.volume_driver(&config.driver)?;
        Ok(driver.create(&config.name, &config.options)?)
    }

    pub(crate) fn remove_at_driver(&self, config: &VolumeConfig) -> Result<(), EngineError> {
        Ok(self.volume_driver(&config.driver)?.remove(&config.name)?)
    }

    /// What the driver of a volume says of it, and how far its volumes reach.
    ///
    /// # Errors
    /// When the driver does not answer, or has no such volume.
    pub fn driver_volume(
        &self,
        config: &VolumeConfig,
    ) -> Result<(DriverVolume, String), EngineError> {
        let driver = self.volume_driver(&config.driver)?;
        let mut found = driver.get(&config.name)?;
        if found.mountpoint.is_empty() {
            let path = driver.path(&config.name)?;
            found.mountpoint = path.to_string_lossy().into_owned();
        }
        Ok((found, driver.scope()?))
    }

    /// The volumes that drivers have besides those that were made here, and the drivers that could
    /// not be asked.
    #[must_use]
    pub fn foreign_volumes(&self, own: &[VolumeConfig]) -> (Vec<ForeignVolume>, Vec<EngineError>) {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for name in self.plugins().names() {
            let listed = match Driver::open(&self.plugins(), &name) {
                // Plugins of other kinds have no volumes.
                Err(::volume::DriverError::BadPlugin { .. }) => continue,
                opened => opened.and_then(|driver| driver.list()),
            };
            match listed {
                Ok(volumes) => found.extend(
                    volumes
                        .into_iter()
                        .filter(|volume| {
                            let is_own =
                                |own: &&VolumeConfig| own.driver == name && own.name == volume.name;
                            !own.iter().any(|config| is_own(&config))
                        })
                        .map(|volume| ForeignVolume {
                            driver: name.clone(),
                            name: volume.name,
                        }),
                ),
                Err(error) => errors.push(error.into()),
            }
        }
        (found, errors)
    }

    /// Has the volumes of other drivers mounted for a start of a container.
    pub(crate) fn mount_driver_volumes(
        &self,
        run_dir: &Path,
        mounts: &[ContainerMount],
    ) -> Result<DriverMounts, EngineError> {
        give_stale_back(run_dir);
        let id = crate::create::random_id().map_err(EngineError::io("make an id"))?;
        let id = id.get(..ID_LENGTH).unwrap_or(&id).to_owned();
        let mut all = DriverMounts {
            record: record_path(run_dir, &id),
            mounted: Vec::new(),
            handed_over: false,
        };
        for mount in mounts {
            let (Some(driver), Some(volume)) = (&mount.driver, &mount.volume) else {
                continue;
            };
            if all.mounted.iter().any(|one| one.volume == *volume) {
                continue;
            }
            let driver = self.volume_driver(driver)?;
            all.mounted.push(Mounted {
                driver: driver.clone(),
                volume: volume.clone(),
                id: id.clone(),
                mountpoint: None,
            });
            ::volume::write_mounted(&all.record, &all.mounted)?;
            let path = driver.mount(volume, &id)?;
            if let Some(last) = all.mounted.last_mut() {
                last.mountpoint = Some(path);
            }
        }
        if !all.mounted.is_empty() {
            ::volume::write_mounted(&all.record, &all.mounted)?;
        }
        Ok(all)
    }
}

/// Gives back what a start has left whose monitor was killed: when nobody holds the container's lock,
/// nobody needs it.
fn give_stale_back(run_dir: &Path) {
    let records = ::volume::records(run_dir);
    if records.is_empty() {
        return;
    }
    let lock = FileLock::try_acquire(&run_dir.join("lock"), Mode::Exclusive);
    let Ok(Some(_lock)) = lock else { return };
    for record in records {
        let mounted = ::volume::mounted(&record).unwrap_or_default();
        for error in give_back(&record, mounted) {
            tracing::warn!(%error, "a volume of an earlier start is still mounted");
        }
    }
}
