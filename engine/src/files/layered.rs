//! A container's files without what is mounted into them: its own layer over those of its image, as
//! one read-only tree that is attached nowhere.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use image::{EntryPath, TarWriter, Visited, walk};
use rustix::io::Errno;
use sys::mount::FileSystem;
use sys::path::open_root;

use crate::start::c_path;
use crate::{Container, Engine, EngineError};

/// `MOUNT_ATTR_RDONLY` (`mount_setattr(2)`).
const READ_ONLY: u64 = 1;

impl Engine {
    /// Writes all files of a container as a tar archive. What is mounted into it is left out.
    ///
    /// # Errors
    /// When a file cannot be read or the archive not be written.
    pub fn export(&self, container: &Container, output: impl Write) -> Result<(), EngineError> {
        let details = self.details_with_layers(container)?;
        let mut layers = vec![details.dir.join("upper")];
        layers.extend(details.layers);
        let tree = self.merged(layers)?;
        let mut writer = TarWriter::new(output);
        let written = walk(tree.as_fd(), &EntryPath::default(), &mut |visited, body| {
            match visited {
                Visited::Entry(entry) if !entry.path.is_empty() => writer.put(&entry, body),
                // Its root is wherever the archive is unpacked; a socket lives with its process.
                _ => Ok(()),
            }
        });
        let failed = EngineError::io("export the container");
        written.map_err(&failed)?;
        writer.finish().map(drop).map_err(failed)?;
        self.record_container_event(&container.config, "export", &[]);
        Ok(())
    }

    /// A read-only tree of directories, the uppermost first.
    pub(super) fn merged(&self, mut layers: Vec<PathBuf>) -> Result<OwnedFd, EngineError> {
        // An overlay without an upper directory needs two lower ones.
        layers.push(self.store.empty_root()?);
        layers.dedup();
        let paths = layers.iter().map(|layer| c_path(layer));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        if let [only] = layers.as_slice() {
            return open_root(only).map_err(EngineError::io("look at the container's layers"));
        }
        overlay(&paths, self.user_namespace.is_some()).map_err(|errno| {
            EngineError::io("look at the container's layers")(io::Error::from(errno))
        })
    }
}

fn overlay(layers: &[CString], userxattr: bool) -> Result<OwnedFd, Errno> {
    let file_system = FileSystem::open(c"overlay")?;
    for layer in layers {
        file_system.set(c"lowerdir+", Some(layer))?;
    }
    // The upper directory of a running container is refused with an index.
    file_system.set(c"index", Some(c"off"))?;
    if userxattr {
        file_system.set(c"userxattr", None)?;
    }
    file_system.mount(READ_ONLY)
}
