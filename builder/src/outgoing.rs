//! The context of a build that another program does, as an archive: a directory less what its
//! `.dockerignore` names. The Dockerfile and that file itself go along in any case.

use std::io::{self, Write};
use std::path::Path;

use image::{Entry, EntryKind, TarWriter};

use crate::BuildError;
use crate::ignore::{Ignore, clean};
use crate::tree::{HostTree, Node, NodeKind, Tree, join};

/// The rules of a directory.
const IGNORE_FILE: &str = ".dockerignore";

/// Writes the files of `dir`, which belong to root there, as a daemon of Docker's wants it.
///
/// # Errors
/// When something cannot be read, or nobody takes the archive.
pub fn pack_context(dir: &Path, dockerfile: &str, to: &mut dyn Write) -> Result<(), BuildError> {
    let path = dir.join(IGNORE_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(|source| BuildError::Read { path, source })?,
    };
    let ignore = Ignore::parse(&text).map_err(|what| BuildError::Context {
        what: format!("its {IGNORE_FILE} is wrong: {what}"),
        source: None,
    })?;
    let tree = HostTree::open(dir, ignore).map_err(|source| BuildError::Read {
        path: dir.to_path_buf(),
        source,
    })?;
    let mut packing = Packing {
        tree: Tree::Host(tree),
        dockerfile: clean(dockerfile).into_bytes(),
        writer: TarWriter::new(to),
    };
    let packed = packing.directory(b"");
    packed
        .and_then(|()| packing.writer.finish().map(drop))
        .map_err(|source| BuildError::Read {
            path: dir.to_path_buf(),
            source,
        })
}

struct Packing<'a> {
    tree: Tree,
    dockerfile: Vec<u8>,
    writer: TarWriter<&'a mut dyn Write>,
}

impl Packing<'_> {
    fn is_left_out(&self, path: &[u8]) -> bool {
        let is_needed = path == self.dockerfile || path == IGNORE_FILE.as_bytes();
        !is_needed && self.tree.is_ignored(path)
    }

    /// What a directory has to go on for that is left out itself.
    fn may_have_more(&self, path: &[u8]) -> bool {
        let mut below = path.to_vec();
        below.push(b'/');
        self.dockerfile.starts_with(&below) || self.tree.may_keep_below(path)
    }

    fn directory(&mut self, dir: &[u8]) -> io::Result<()> {
        for name in self.tree.names(dir)? {
            let path = join(dir, &name);
            let Some(node) = self.tree.node(&path)? else {
                continue;
            };
            let is_directory = node.kind == NodeKind::Directory;
            let is_left_out = self.is_left_out(&path);
            if !is_left_out {
                self.put(&path, &node)?;
            }
            if is_directory && (!is_left_out || self.may_have_more(&path)) {
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        let kind = match &node.kind {
            NodeKind::Directory => EntryKind::Directory,
            NodeKind::Symlink(target) => EntryKind::Symlink(target.clone()),
            NodeKind::File => EntryKind::File {
                size: node.size,
                sparse: None,
            },
            NodeKind::Fifo => EntryKind::Fifo,
            // As with Docker: a context has neither sockets nor devices.
            NodeKind::Socket | NodeKind::Device(..) => return Ok(()),
        };
        let entry = Entry {
            path: path.to_vec(),
            mode: node.mode,
            uid: 0,
            gid: 0,
            mtime: (node.mtime, 0),
            xattrs: Vec::new(),
            kind,
        };
        match node.kind {
            NodeKind::File => {
                let mut file = self.tree.open(path)?;
                self.writer.put(&entry, &mut file)
            }
            _ => self.writer.put(&entry, &mut io::empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::TarWalk;
    use sys::durable::create_file;

    #[test]
    fn ignored_files_stay_and_the_dockerfile_goes_along() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["sub", "out"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        for (name, text) in [
            (".dockerignore", "*\n!sub/keep\n"),
            ("Dockerfile", "FROM x"),
            ("secret", "s"),
            ("sub/keep", "k"),
            ("sub/drop", "d"),
            ("out/file", "o"),
        ] {
            create_file(&dir.path().join(name), text.as_bytes(), 0o644).unwrap();
        }
        let mut archive = Vec::new();
        pack_context(dir.path(), "./Dockerfile", &mut archive).unwrap();
        let mut walk = TarWalk::new(archive.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = walk.next_entry().unwrap() {
            let name = String::from_utf8(entry.path).unwrap();
            names.push(name.trim_end_matches('/').to_owned());
        }
        assert_eq!(names, [".dockerignore", "Dockerfile", "sub/keep"]);
    }
}
