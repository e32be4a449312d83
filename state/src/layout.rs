//! Where everything is.

#[cfg(unix)]
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sys::durable::{make_private_dir, set_mode};

/// Why the directories of ketch cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A directory belongs to somebody else, who could put anything into it.
    #[error("cannot use the directory `{}`: it belongs to user id {owner}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A directory could not be made.
    #[error("cannot make the directory `{}`", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The two directories of ketch: `root` lasts, `run` is gone after a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    run: PathBuf,
}

/// What is made below the root.
const ROOT_DIRS: [&str; 10] = [
    "content/sha256",
    "layers",
    "images",
    "compiled",
    "containers/names",
    "networks",
    "volumes",
    "events",
    "tmp",
    "trash",
];

/// What is made below the run directory.
const RUN_DIRS: [&str; 3] = ["containers", "exe", "locks"];

impl Layout {
    /// Names the two directories and makes what is missing of them, reachable for nobody but their
    /// owner (mode 0700: set-user-ID programs of images must not be callable from the host,
    /// CVE-2021-41091).
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(root: PathBuf, run: PathBuf) -> Result<Self, LayoutError> {
        let layout = Self { root, run };
        layout.make(&layout.root, &ROOT_DIRS)?;
        layout.make(&layout.run, &RUN_DIRS)?;
        Ok(layout)
    }

    /// Names the two directories, which somebody else has made.
    #[must_use]
    pub fn made(root: PathBuf, run: PathBuf) -> Self {
        Self { root, run }
    }

    fn make(&self, base: &Path, dirs: &[&str]) -> Result<(), LayoutError> {
        #[cfg(unix)]
        if let Ok(metadata) = fs::symlink_metadata(base)
            && let owner = std::os::unix::fs::MetadataExt::uid(&metadata)
            && owner != rustix::process::geteuid().as_raw()
        {
            return Err(LayoutError::Foreign {
                path: base.to_path_buf(),
                owner,
            });
        }
        // The last one is made last: when it is there, all are.
        let complete = dirs.last().is_some_and(|last| base.join(last).is_dir());
        if complete {
            return Ok(());
        }
        let make = |path: PathBuf| {
            make_private_dir(&path).map_err(|source| LayoutError::Make { path, source })
        };
        make(base.to_path_buf())?;
        set_mode(base, 0o700).map_err(|source| LayoutError::Make {
            path: base.to_path_buf(),
            source,
        })?;
        for dir in dirs {
            make(base.join(dir))?;
        }
        Ok(())
    }

    /// The lasting directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that is gone after a reboot.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Blobs by digest: `content/sha256/<hex>`.
    #[must_use]
    pub fn content(&self) -> PathBuf {
        self.root.join("content/sha256")
    }

    /// Unpacked layers by diff ID.
    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Image records and names.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Compiled wasm modules.
    #[must_use]
    pub fn compiled(&self) -> PathBuf {
        self.root.join("compiled")
    }

    /// All containers.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One container's lasting directory.
    #[must_use]
    pub fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// The claims of container names, one file a name.
    #[must_use]
    pub fn container_names(&self) -> PathBuf {
        self.root.join("containers/names")
    }

    /// One container's directory that is gone after a reboot.
    #[must_use]
    pub fn container_run(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// All networks.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// What of the networks is gone after a reboot: locks, leases.
    #[must_use]
    pub fn networks_run(&self) -> PathBuf {
        self.run.join("networks")
    }

    /// All volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What happened.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    /// What the builder keeps from build to build.
    #[must_use]
    pub fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// Where things are made before they get their names.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where things go before they are deleted.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// How containers ended that are removed.
    #[must_use]
    pub fn exits(&self) -> PathBuf {
        self.run.join("exits")
    }

    /// The small executables.
    #[must_use]
    pub fn exe(&self) -> PathBuf {
        self.run.join("exe")
    }

    /// Lock files, never deleted.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.run.join("locks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_twice_makes_private_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (root, run) = (dir.path().join("root"), dir.path().join("run"));
        Layout::open(root.clone(), run.clone()).unwrap();
        let layout = Layout::open(root.clone(), run).unwrap();
        assert!(layout.content().is_dir());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(root).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }
}
