//! The upper directory of an overlay as a layer (image-spec v1.1.1 `layer.md`): whiteouts and opaque
//! directories become entries.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::pack::{TarWriter, Visited, walk_tree};
use crate::tarwalk::{Entry, EntryKind, EntryPath};
use crate::unpack::is_opaque;

/// Writes the layer of an upper directory, and gives how many entries it has. Times after `latest`
/// (seconds since 1970) become that.
///
/// # Errors
/// When the directory cannot be read or the archive not be written.
pub fn pack_layer<W: Write>(upper: &Path, latest: Option<i64>, output: W) -> io::Result<(W, u64)> {
    let mut writer = TarWriter::new(output);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(upper, flags, Mode::empty())?;
    let mut entries = 0;
    walk_tree(upper, &mut |visited, body| {
        let Visited::Entry(mut entry) = visited else {
            return Ok(());
        };
        // Whole seconds, as other builders of layers have them.
        entry.mtime = (entry.mtime.0.min(latest.unwrap_or(i64::MAX)), 0);
        let path = EntryPath::parse(&entry.path).map_err(io::Error::other)?;
        match path.split() {
            None => return Ok(()),
            Some(_) => entries += 1,
        }
        match path.split() {
            Some((parent, name)) if entry.kind == EntryKind::CharDevice(0, 0) => {
                let gone = parent.child(&[b".wh.", name].concat());
                return writer.put(&mark(&gone, &entry), body);
            }
            _ => writer.put(&entry, body)?,
        }
        if entry.kind == EntryKind::Directory && is_opaque_at(&root, &path)? {
            writer.put(&mark(&path.child(b".wh..wh..opq"), &entry), body)?;
        }
        Ok(())
    })?;
    Ok((writer.finish()?, entries))
}

/// An empty file that says something about its name.
fn mark(path: &EntryPath, of: &Entry) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind: EntryKind::File {
            size: 0,
            sparse: None,
        },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: of.mtime,
        xattrs: Vec::new(),
    }
}

fn is_opaque_at(root: &impl AsFd, path: &EntryPath) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let dir = openat2(root, path.as_relative(), flags, Mode::empty(), resolve)?;
    Ok(is_opaque(dir.as_fd())?)
}
