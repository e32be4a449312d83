//! Sockets that have the whole API of a daemon: who mounts one into a container gives it the host.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::Layout;
use sys::durable::{Durability, replace_file};

use crate::EngineError;
use crate::mounts::ContainerMount;

/// The version of the record.
const VERSION: u32 = 1;

/// Where a daemon listens when nobody says otherwise, in the run directory.
pub const DEFAULT_SOCKET: &str = "ketch.sock";

/// What a daemon writes down of itself: `daemon.json` in the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullSockets {
    version: u32,
    sockets: Vec<PathBuf>,
}

impl FullSockets {
    /// A record of these.
    #[must_use]
    pub fn new(sockets: &[PathBuf]) -> Self {
        Self {
            version: VERSION,
            sockets: sockets.to_vec(),
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When the run directory cannot be written to.
    pub fn write(&self, layout: &Layout) -> Result<(), EngineError> {
        let failed = EngineError::io("write down where the daemon listens");
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        replace_file(&file(layout), &bytes, Durability::Atomic)
            .map_err(EngineError::io("write down where the daemon listens"))
    }

    /// All that are known, of a daemon that may be gone too: its next one listens there again.
    fn read(layout: &Layout) -> Vec<PathBuf> {
        let mut sockets = vec![layout.run().join(DEFAULT_SOCKET)];
        let written = fs::read(file(layout)).unwrap_or_default();
        // What a newer ketch writes is its own: a warning is all that comes of it here.
        if let Ok(record) = serde_json::from_slice::<Self>(&written) {
            sockets.extend(record.sockets);
        }
        sockets
    }
}

fn file(layout: &Layout) -> PathBuf {
    layout.run().join("daemon.json")
}

/// A warning when one of the mounts has such a socket in it.
pub(crate) fn warning(layout: &Layout, mounts: &[ContainerMount]) -> Option<String> {
    let binds = mounts.iter().filter(|mount| mount.kind == "bind");
    let sources: Vec<PathBuf> = binds.map(|mount| real(&mount.source)).collect();
    if sources.is_empty() {
        return None;
    }
    let socket = FullSockets::read(layout)
        .into_iter()
        .find(|socket| has(&sources, &real(socket)))?;
    Some(format!(
        "the socket `{}` is mounted: whoever reaches it in the container has all of this host; `ketch socket create` makes one that allows less",
        socket.display()
    ))
}

fn has(sources: &[PathBuf], socket: &Path) -> bool {
    sources.iter().any(|source| socket.starts_with(source))
}

/// The path without symbolic links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => real(dir).join(name),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_is_found_in_what_is_mounted_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let other = dir.path().join("api/k.sock");
        FullSockets::new(std::slice::from_ref(&other))
            .write(&layout)
            .unwrap();
        let found = FullSockets::read(&layout);
        assert_eq!(found, [layout.run().join(DEFAULT_SOCKET), other.clone()]);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let socket = real(&other);
        assert!(has(&[real(&link)], &socket) && has(&[real(&other)], &socket));
        assert!(!has(&[real(&dir.path().join("api/other"))], &socket));
    }
}
