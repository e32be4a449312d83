//! A volume's files as an archive, and back.

use std::io::{Read, Write};
use std::path::Path;

use image::{UnpackMode, unpack_archive, write_tree};

use crate::volume::{Backing, VolumeConfig};
use crate::{Engine, EngineError};

/// What is done with a volume's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Engine {
    /// Writes a volume's files as a tar archive.
    ///
    /// # Errors
    /// When there is no such volume, it has no files outside of containers, or they cannot be read.
    pub fn export_volume(&self, name: &str, writer: impl Write) -> Result<(), EngineError> {
        let config = self.volume(name)?;
        self.with_files(&config, Access::Read, |dir| Ok(write_tree(dir, writer)?))
    }

    /// Unpacks an archive, plain or compressed, into a volume, over what is there. Gives what could
    /// not be kept.
    ///
    /// # Errors
    /// When there is no such volume, it has no files outside of containers, or the archive is
    /// malformed.
    pub fn import_volume(
        &self,
        name: &str,
        archive: impl Read,
    ) -> Result<Vec<String>, EngineError> {
        let config = self.volume(name)?;
        let mode = UnpackMode {
            userns: self.user_namespace.is_some(),
            flat_owner: self.user_namespace.is_some_and(|ids| ids.is_single()),
        };
        self.with_files(&config, Access::Write, |dir| {
            Ok(unpack_archive(archive, dir, mode)?)
        })
    }

    fn with_files<T>(
        &self,
        config: &VolumeConfig,
        access: Access,
        run: impl FnOnce(&Path) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let refused = |why: &str| {
            let what = match access {
                Access::Read => "export",
                Access::Write => "import into",
            };
            let name = &config.name;
            EngineError::Unsupported(format!("cannot {what} the volume `{name}`: {why}"))
        };
        match config.backing()? {
            Backing::Own => run(&self.volume_data(&config.name)),
            Backing::Bind(device) if access == Access::Read => run(&device),
            Backing::Bind(_) => Err(refused("its files are a directory of the host")),
            Backing::FileSystem(..) => Err(refused("it has files in running containers only")),
            Backing::Driver(driver) => {
                let driver = self.volume_driver(&driver)?;
                let id = crate::create::random_id().map_err(EngineError::io("make an id"))?;
                let dir = driver.mount(&config.name, &id)?;
                let done = run(&dir);
                let given_back = driver.unmount(&config.name, &id);
                let done = done?;
                given_back?;
                Ok(done)
            }
        }
    }
}
