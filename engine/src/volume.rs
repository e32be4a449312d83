//! Volumes: directories that outlive containers. `volumes/<name>/config.json` says what a volume is,
//! `volumes/<name>/data` is what containers see. A volume appears complete or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use state::{VERSION, clock, read_record, write_record};
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};

use crate::{Engine, EngineError};

/// Others hold the lock for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// ketch's own driver; all others are plugins.
pub const LOCAL: &str = "local";

fn local() -> String {
    LOCAL.to_owned()
}

/// `config.json` of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeConfig {
    /// The version of the record.
    pub version: u32,
    /// Its name; 64 hexadecimal digits when nobody gave one.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// The user's own.
    pub labels: BTreeMap<String, String>,
    /// Driver options: `type`, `device`, `o` of the local driver.
    pub options: BTreeMap<String, String>,
    /// Nobody gave it a name.
    pub anonymous: bool,
    /// Who keeps it.
    #[serde(default = "local")]
    pub driver: String,
}

/// The file in an anonymous volume's directory that is there as long as one container alone has it:
/// it goes with that container where that is asked for.
const OWNED: &str = "owned";

/// What a volume is created with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateVolume {
    /// Its name; made up when absent.
    pub name: Option<String>,
    /// The user's own.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Who keeps it; the local driver when absent.
    pub driver: Option<String>,
}

/// What the driver options of a volume ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Another program's.
    Driver(String),
    /// The volume's own directory.
    Own,
    /// A directory of the host.
    Bind(PathBuf),
    /// A file system that is mounted for each container: type, device, options.
    FileSystem(String, String, Vec<String>),
}

/// Docker's pattern for names of volumes.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() > 1
        && text.len() < 200
        && bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn refused(text: String) -> EngineError {
    EngineError::Unsupported(text)
}

impl VolumeConfig {
    /// Where the containers' view is kept.
    pub(crate) fn backing(&self) -> Result<Backing, EngineError> {
        if self.driver != LOCAL {
            return Ok(Backing::Driver(self.driver.clone()));
        }
        let option = |key: &str| {
            self.options
                .get(key)
                .map(String::as_str)
                .unwrap_or_default()
        };
        if let Some(key) = self
            .options
            .keys()
            .find(|k| !matches!(k.as_str(), "type" | "device" | "o"))
        {
            return Err(refused(format!(
                "cannot use the volume option `{key}`: the local driver knows type, device and o"
            )));
        }
        let flags: Vec<String> = option("o")
            .split(',')
            .filter(|flag| !flag.is_empty())
            .map(str::to_owned)
            .collect();
        let (kind, device) = (option("type"), option("device"));
        if flags.iter().any(|flag| flag == "bind" || flag == "rbind") {
            let device = PathBuf::from(device);
            if !device.is_absolute() {
                return Err(refused(format!(
                    "cannot bind the volume `{}`: `device` is no absolute path",
                    self.name
                )));
            }
            return Ok(Backing::Bind(device));
        }
        match (kind, device) {
            ("", "") if flags.is_empty() => Ok(Backing::Own),
            ("tmpfs", _) => Ok(Backing::FileSystem(
                "tmpfs".to_owned(),
                "tmpfs".to_owned(),
                flags,
            )),
            ("", _) => Err(refused(format!(
                "cannot make the volume `{}`: the options need a type, or o=bind",
                self.name
            ))),
            (_, "") => Err(refused(format!(
                "cannot make the volume `{}`: the options name no device",
                self.name
            ))),
            (kind, device) => Ok(Backing::FileSystem(
                kind.to_owned(),
                device.to_owned(),
                flags,
            )),
        }
    }
}

impl Engine {
    pub(crate) fn volume_dir(&self, name: &str) -> PathBuf {
        self.layout().volumes().join(name)
    }

    /// Where a volume's own files are.
    #[must_use]
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volume_dir(name).join("data")
    }

    fn lock_volumes(&self) -> Result<FileLock, EngineError> {
        let path = self.layout().locks().join("volumes");
        FileLock::acquire(&path, Mode::Exclusive, LOCK_TIMEOUT)
            .map_err(EngineError::io("lock the volumes"))
    }

    /// Creates a volume; one that is there with the same options is given back.
    ///
    /// # Errors
    /// When the name or an option is wrong, or a volume of this name has other options.
    pub fn create_volume(&self, options: &CreateVolume) -> Result<VolumeConfig, EngineError> {
        let (name, anonymous) = match &options.name {
            Some(name) => (name.clone(), false),
            None => (
                crate::create::random_id().map_err(EngineError::io("make a name"))?,
                true,
            ),
        };
        if !is_name(&name) {
            return Err(refused(format!(
                "cannot name a volume `{name}`: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are allowed"
            )));
        }
        let config = VolumeConfig {
            version: VERSION,
            name,
            created: clock::now(),
            labels: options.labels.clone(),
            options: options.options.clone(),
            anonymous,
            driver: options.driver.clone().unwrap_or_else(local),
        };
        match config.backing()? {
            Backing::Bind(device) if !device.is_dir() => {
                return Err(EngineError::NoSuchSource(device.display().to_string()));
            }
            Backing::FileSystem(kind, ..) => check_file_system(&config.name, &kind)?,
            // Asked outside of the lock: it may take its time.
            Backing::Driver(_) if self.volume(&config.name).is_err() => {
                self.create_at_driver(&config)?;
            }
            _ => {}
        }
        let _lock = self.lock_volumes()?;
        if let Ok(there) = self.volume(&config.name) {
            let same_driver = options.driver.is_none() || there.driver == config.driver;
            let same = options.options.is_empty() || there.options == options.options;
            if same && same_driver {
                return Ok(there);
            }
            return Err(EngineError::VolumeExists(config.name));
        }
        self.write_volume(&config)?;
        self.record_event(
            "volume",
            "create",
            &config.name,
            &[("driver", &config.driver)],
        );
        Ok(config)
    }

    fn write_volume(&self, config: &VolumeConfig) -> Result<(), EngineError> {
        let failed = EngineError::io("make the volume");
        let tmp = self.layout().tmp().join(format!("volume-{}", config.name));
        durable::remove_tree(&tmp).map_err(&failed)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&tmp)
            .map_err(&failed)?;
        DirBuilder::new()
            .mode(0o755)
            .create(tmp.join("data"))
            .map_err(&failed)?;
        write_record(&tmp.join("config.json"), config, Durability::Atomic)?;
        if config.anonymous {
            durable::replace_file(&tmp.join(OWNED), b"", Durability::Atomic).map_err(&failed)?;
        }
        durable::publish(&tmp, &self.volume_dir(&config.name), Durability::Synced).map_err(failed)
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn volume(&self, name: &str) -> Result<VolumeConfig, EngineError> {
        let missing = || EngineError::NoSuchVolume(name.to_owned());
        if !is_name(name) {
            return Err(missing());
        }
        match read_record(&self.volume_dir(name).join("config.json")) {
            Err(error) if error.is_absent() => Err(missing()),
            other => Ok(other?),
        }
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volumes(&self) -> Result<Vec<VolumeConfig>, EngineError> {
        let failed = EngineError::io("list the volumes");
        let mut found = Vec::new();
        for entry in fs::read_dir(self.layout().volumes()).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            // One that is being removed is left out.
            if let Some(config) = name.to_str().and_then(|name| self.volume(name).ok()) {
                found.push(config);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// When there is none, or a container has it.
    pub fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.remove_unused_volume(name, |config| match config.backing()? {
            Backing::Driver(_) => self.remove_at_driver(config),
            _ => Ok(()),
        })
    }

    /// Removes what is known here of a volume whose driver is gone.
    ///
    /// # Errors
    /// As [`Engine::remove_volume`].
    pub fn forget_volume(&self, name: &str) -> Result<(), EngineError> {
        self.remove_unused_volume(name, |_| Ok(()))
    }

    fn remove_unused_volume(
        &self,
        name: &str,
        remove: impl FnOnce(&VolumeConfig) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let _lock = self.lock_volumes()?;
        let config = self.volume(name)?;
        let users = self.volume_users(name)?;
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse {
                name: name.to_owned(),
                containers: users.join(", "),
            });
        }
        remove(&config)?;
        self.discard_volume(name)?;
        self.record_event("volume", "destroy", name, &[("driver", &config.driver)]);
        Ok(())
    }

    fn discard_volume(&self, name: &str) -> Result<(), EngineError> {
        let failed = EngineError::io("remove the volume");
        let trashed = durable::discard(&self.volume_dir(name), &self.layout().trash());
        match trashed.map_err(&failed)? {
            Some(trashed) => durable::remove_tree(&trashed).map_err(failed),
            None => Ok(()),
        }
    }

    /// The names of the containers, running or not, that have a volume.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>, EngineError> {
        let mut users = Vec::new();
        for container in self.containers()? {
            let volumes = self.container_volumes(&container.config.id);
            if volumes.contains(name) {
                users.push(container.config.name);
            }
        }
        Ok(users)
    }

    /// What is mounted into a container besides its image.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn container_mounts(&self, id: &str) -> Result<Vec<crate::ContainerMount>, EngineError> {
        crate::mounts::read(&self.layout().container(id))
    }

    /// The volumes that a container has.
    pub(crate) fn container_volumes(&self, id: &str) -> BTreeSet<String> {
        let mounts = crate::mounts::read(&self.layout().container(id)).unwrap_or_default();
        mounts
            .into_iter()
            .filter_map(|mount| mount.volume)
            .collect()
    }

    /// Keeps a volume when the container goes that it was made for.
    pub(crate) fn keep_volume(&self, name: &str) -> Result<(), EngineError> {
        let path = self.volume_dir(name).join(OWNED);
        durable::remove_tree(&path).map_err(EngineError::io("share the volume"))
    }

    /// The directories of the volumes that go with a container where that is asked for.
    #[must_use]
    pub fn own_volumes(&self, id: &str) -> Vec<PathBuf> {
        let names = self.container_volumes(id).into_iter();
        let dirs = names.map(|name| self.volume_dir(&name));
        dirs.filter(|dir| dir.join(OWNED).exists()).collect()
    }

    /// Removes the volumes that go with a container that is gone.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_own_volumes(&self, dirs: &[PathBuf]) -> Result<(), EngineError> {
        for dir in dirs {
            if let Some(name) = dir.file_name().and_then(std::ffi::OsStr::to_str) {
                self.remove_volume(name)?;
            }
        }
        Ok(())
    }
}

/// Refuses a type of file system that this kernel does not know: better now than when a container
/// starts. One that is not loaded yet may be known all the same.
fn check_file_system(volume: &str, kind: &str) -> Result<(), EngineError> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is_known = known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(kind));
    let modules = Path::new("/proc/modules").exists();
    if is_known || modules || known.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "cannot make the volume `{volume}`: this kernel has no file system `{kind}`"
    )))
}

/// Whether a directory has nothing in it.
pub(crate) fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> VolumeConfig {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        VolumeConfig {
            version: VERSION,
            name: "data".to_owned(),
            created: String::new(),
            labels: BTreeMap::new(),
            options: options.iter().map(owned).collect(),
            anonymous: false,
            driver: local(),
        }
    }

    #[test]
    fn options_decide_what_backs_a_volume() {
        assert_eq!(config(&[]).backing().unwrap(), Backing::Own);
        let bind = config(&[("type", "none"), ("o", "bind"), ("device", "/srv")]);
        assert_eq!(
            bind.backing().unwrap(),
            Backing::Bind(PathBuf::from("/srv"))
        );
        let tmpfs = config(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]);
        assert!(
            matches!(tmpfs.backing().unwrap(), Backing::FileSystem(kind, ..) if kind == "tmpfs")
        );
    }

    #[test]
    fn unknown_or_half_given_options_are_refused() {
        for options in [
            &[("size", "1g")][..],
            &[("device", "/x")],
            &[("o", "bind"), ("device", "x")],
        ] {
            assert!(config(options).backing().is_err(), "{options:?}");
        }
    }
}
