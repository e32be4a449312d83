//! How much a container takes: what it has written, and with its image's layers.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Container, Engine, EngineError};

/// Bytes of files, each file once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContainerSize {
    /// What the container has written.
    pub own: u64,
    /// That, and its image.
    pub all: u64,
}

impl Engine {
    /// Walks a container's own layer and those of its image.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn size(&self, container: &Container) -> Result<ContainerSize, EngineError> {
        let failed = EngineError::io("count the bytes of the container's files");
        let details = self.details_with_layers(container)?;
        let own = files(&details.dir.join("upper")).map_err(&failed)?;
        let mut all = own;
        for layer in &details.layers {
            all += files(layer).map_err(&failed)?;
        }
        Ok(ContainerSize { own, all })
    }

    /// Bytes of what a volume holds; nothing for one that is kept elsewhere.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn volume_size(&self, name: &str) -> Result<u64, EngineError> {
        files(&self.volume_data(name)).map_err(EngineError::io("count the bytes of the volume"))
    }
}

/// The bytes of all regular files and links below a directory. What goes while they are counted
/// does not count.
fn files(dir: &Path) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino())) {
                total += meta.len();
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linked_file_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let file = dir.path().join("a/file");
        fs::copy("/etc/passwd", &file).unwrap();
        fs::hard_link(&file, dir.path().join("link")).unwrap();
        assert_eq!(
            files(dir.path()).unwrap(),
            fs::metadata(&file).unwrap().len()
        );
        assert_eq!(files(&dir.path().join("none")).unwrap(), 0);
    }
}
