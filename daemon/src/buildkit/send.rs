//! Sends a tree of files to a client, which asks for those that it wants: the other side of
//! what [`super::receive`] does. The tree is the daemon's own; what the client asks for is checked.

use std::fs::{self, DirEntry, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::wire::files::{Packet, Stat, kind, mode};

/// How much of a file goes into one packet.
const PIECE: usize = 32 << 10;

/// How deep a tree may be.
const MAX_DEPTH: usize = 256;

/// Why a tree could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the client broke the protocol of files: {0}")]
    Protocol(&'static str),
    #[error("the client cannot take the files: {0}")]
    Client(String),
    #[error(transparent)]
    Status(#[from] super::grpc::Status),
}

/// A tree that is sent.
#[derive(Debug)]
pub(super) struct Sender {
    root: PathBuf,
    /// The files that can be asked for, by their place in the list; each once.
    files: Vec<Option<PathBuf>>,
}

/// What a packet of the client leads to.
#[derive(Debug)]
pub(super) enum Reaction {
    /// The content of a file is wanted.
    File(u32, File),
    /// The client has everything.
    End,
}

impl Sender {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            files: Vec::new(),
        }
    }

    /// Sends the list of all files.
    pub(super) fn list(
        &mut self,
        send: &mut dyn FnMut(Packet) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let root = self.root.clone();
        self.directory(&root, b"", 0, send)?;
        // The end of the list.
        send(Packet::default())
    }

    fn directory(
        &mut self,
        dir: &Path,
        path: &[u8],
        depth: usize,
        send: &mut dyn FnMut(Packet) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if depth > MAX_DEPTH {
            return Err(SendError::Protocol("the tree is too deep"));
        }
        let failed = |source| SendError::Read {
            path: dir.to_path_buf(),
            source,
        };
        let entries: io::Result<Vec<DirEntry>> = fs::read_dir(dir).map_err(failed)?.collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            let mut own = path.to_vec();
            if !own.is_empty() {
                own.push(b'/');
            }
            own.extend_from_slice(entry.file_name().as_bytes());
            let meta = entry.metadata().map_err(failed)?;
            let Some(stat) = stat(&entry.path(), own.clone(), &meta)? else {
                continue;
            };
            self.files.push(meta.is_file().then(|| entry.path()));
            send(Packet {
                kind: kind::STAT,
                stat: Some(stat),
                ..Packet::default()
            })?;
            if meta.is_dir() {
                self.directory(&entry.path(), &own, depth + 1, send)?;
            }
        }
        Ok(())
    }

    /// What a packet of the client means.
    pub(super) fn take(&mut self, packet: &Packet) -> Result<Reaction, SendError> {
        match packet.kind {
            kind::REQUEST => {
                let place = usize::try_from(packet.id).unwrap_or(usize::MAX);
                let file = self.files.get_mut(place).and_then(Option::take);
                let path = file.ok_or(SendError::Protocol("it asked for a file that is none"))?;
                let file = File::open(&path).map_err(|source| SendError::Read { path, source })?;
                Ok(Reaction::File(packet.id, file))
            }
            kind::END => Ok(Reaction::End),
            kind::ERROR => Err(SendError::Client(
                String::from_utf8_lossy(&packet.data).into_owned(),
            )),
            _ => Err(SendError::Protocol("a packet has no known kind")),
        }
    }
}

/// Sends a file's content.
pub(super) fn content(
    id: u32,
    mut file: File,
    send: &mut dyn FnMut(Packet) -> Result<(), SendError>,
) -> Result<(), SendError> {
    loop {
        let mut buffer = vec![0; PIECE];
        let length = file.read(&mut buffer).map_err(|source| SendError::Read {
            path: PathBuf::from(format!("file {id}")),
            source,
        })?;
        buffer.truncate(length);
        send(Packet {
            kind: kind::DATA,
            id,
            data: Bytes::from(buffer),
            ..Packet::default()
        })?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// A file as the client is told; `None` for a socket or a device, which a result does not have.
fn stat(path: &Path, name: Vec<u8>, meta: &Metadata) -> Result<Option<Stat>, SendError> {
    let kind = meta.file_type();
    let (bits, link) = if kind.is_dir() {
        (mode::DIRECTORY, Vec::new())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(|source| SendError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        (mode::SYMLINK, target.as_os_str().as_bytes().to_vec())
    } else if kind.is_file() {
        (0, Vec::new())
    } else {
        tracing::debug!(device = kind.is_block_device(), "a file is not sent");
        return Ok(None);
    };
    let permissions = meta.permissions().mode();
    let modified = meta
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(meta.mtime_nsec());
    Ok(Some(Stat {
        path: name,
        mode: bits | (permissions & 0o777),
        size: match kind.is_file() {
            true => i64::try_from(meta.len()).unwrap_or(i64::MAX),
            false => 0,
        },
        modified,
        link,
        ..Stat::default()
    }))
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "files of a test need not survive"
)]
mod tests {
    use super::super::receive::{Next, Receiver};
    use super::*;
    use std::collections::VecDeque;
    use std::os::unix::fs::symlink;

    /// Both sides of the protocol against each other.
    #[test]
    fn tree_arrives_as_it_was() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir_all(from.path().join("a/b")).unwrap();
        fs::write(from.path().join("a/b/one"), "one").unwrap();
        fs::write(from.path().join("a-c"), vec![7; 100_000]).unwrap();
        fs::write(from.path().join("empty"), "").unwrap();
        symlink("a/b", from.path().join("link")).unwrap();
        let to = tempfile::tempdir().unwrap();
        let mut sender = Sender::new(from.path());
        let mut receiver = Receiver::new(to.path()).unwrap();
        let mut way = VecDeque::new();
        sender
            .list(&mut |packet| {
                way.push_back(packet);
                Ok(())
            })
            .unwrap();
        loop {
            let packet = way.pop_front().unwrap();
            if receiver.take(packet).unwrap() == Next::Nothing {
                break;
            }
            for reply in receiver.replies() {
                let mut send = |packet| {
                    way.push_back(packet);
                    Ok(())
                };
                match sender.take(&reply).unwrap() {
                    Reaction::File(id, file) => content(id, file, &mut send).unwrap(),
                    Reaction::End => way.push_back(reply),
                }
            }
        }
        assert_eq!(fs::read(to.path().join("link/one")).unwrap(), b"one");
        assert_eq!(fs::read(to.path().join("a-c")).unwrap().len(), 100_000);
        assert!(to.path().join("empty").exists());
    }

    #[test]
    fn client_gets_each_file_once_and_nothing_else() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("a")).unwrap();
        fs::write(from.path().join("b"), "b").unwrap();
        let mut sender = Sender::new(from.path());
        sender.list(&mut |_| Ok(())).unwrap();
        let ask = |id| Packet {
            kind: kind::REQUEST,
            id,
            ..Packet::default()
        };
        assert!(sender.take(&ask(0)).is_err(), "a directory");
        assert!(sender.take(&ask(9)).is_err(), "no file");
        assert!(matches!(
            sender.take(&ask(1)).unwrap(),
            Reaction::File(1, _)
        ));
        assert!(sender.take(&ask(1)).is_err(), "again");
    }
}
