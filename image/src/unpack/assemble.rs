//! All layers of an image in one plain directory: the root of a guest that a sandbox keeps inside,
//! on any system. Owners, device nodes, named pipes and extended attributes are left out, for no
//! guest can see them.
//!
//! No link is ever followed: what is on the way of a path and is no directory gives way to one. The
//! directory is a capability besides, so that no name of an archive leads out of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, OpenOptions};

use super::fault::Fault;
use super::stream::{Hashing, inflated};
use super::whiteout::{Meaning, meaning};
use crate::document::{LayerBlob, tar_layers};
use crate::error::ImageError;
use crate::progress::{Outcome, Progress, Task};
use crate::store::{Image, Store};
use crate::tarwalk::{Entry, EntryKind, EntryPath, Segment, TarWalk};

impl Store {
    /// Writes the files of an image into `dir`, which exists and is empty: layer upon layer, each
    /// checked against its diff ID. Absolute symbolic links become relative ones.
    ///
    /// # Errors
    /// [`ImageError::Unpack`] with the layer that could not be written. What was written stays.
    pub fn assemble(
        &self,
        image: &Image,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<AssembledRoot, ImageError> {
        let root = Dir::open_ambient_dir(dir, cap_std::ambient_authority()).map_err(|source| {
            ImageError::Write {
                path: dir.to_path_buf(),
                source,
            }
        })?;
        for layer in tar_layers(&image.manifest_digest, &image.manifest, &image.config)? {
            let total = self.content.size(&layer.blob).ok();
            progress.begin(Task::Unpack, &layer.blob, total);
            let result = self.assemble_layer(layer, &root, progress);
            let outcome = match &result {
                Ok(()) => Outcome::Done,
                Err(_) => Outcome::Failed,
            };
            progress.end(Task::Unpack, &layer.blob, outcome);
            result.map_err(|error| ImageError::Unpack {
                layer: layer.diff_id,
                source: Box::new(error),
            })?;
        }
        Ok(AssembledRoot {
            dir: root,
            path: dir.to_path_buf(),
        })
    }

    fn assemble_layer(
        &self,
        layer: LayerBlob,
        root: &Dir,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let blob = self.content.open_blob(&layer.blob)?;
        let advance = |bytes| progress.advance(Task::Unpack, &layer.blob, bytes);
        let stream = inflated(blob, &advance, |stream| {
            let mut walk = TarWalk::new(Hashing::new(stream));
            let mut files = Files {
                root,
                own: BTreeSet::new(),
            };
            while let Some(entry) = walk.next_entry()? {
                files
                    .put(&entry, &mut walk)
                    .map_err(|fault| fault.about(&entry.path))?;
            }
            walk.into_inner().finish()
        })?;
        if stream.diff_id != layer.diff_id {
            return Err(ImageError::DigestMismatch {
                expected: layer.diff_id.0,
                actual: stream.diff_id.0,
            });
        }
        Ok(())
    }
}

/// The files of an image in one directory.
#[derive(Debug)]
pub struct AssembledRoot {
    dir: Dir,
    path: PathBuf,
}

impl AssembledRoot {
    /// Where an ordinary file of the image lies, by its path in the image; `None` when there is none.
    /// Links are followed, and lead nowhere but into the directory.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        let inside = self.dir.canonicalize(path.trim_start_matches('/')).ok()?;
        let is_file = self.dir.symlink_metadata(&inside).ok()?.is_file();
        is_file.then(|| self.path.join(inside))
    }
}

/// What lies at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Directory,
    Other,
}

/// The files of one layer, upon those of the layers below.
struct Files<'a> {
    root: &'a Dir,
    /// What this layer itself has: whiteouts are about the others.
    own: BTreeSet<EntryPath>,
}

impl Files<'_> {
    fn put(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), Fault> {
        let path = EntryPath::parse(&entry.path)?;
        // AUFS wrote its whiteouts as hard links to one empty file.
        let may_be_whiteout = matches!(entry.kind, EntryKind::File { .. } | EntryKind::Hardlink(_));
        match meaning(&path)? {
            Meaning::Entry => self.put_entry(path, entry, body),
            Meaning::Ignored => Ok(()),
            Meaning::Opaque(_) | Meaning::Whiteout(_) if !may_be_whiteout => {
                Err(Fault::Rule("a whiteout must be a file"))
            }
            Meaning::Opaque(dir) => match self.there(&dir)? {
                There::Directory => self.clear(&dir),
                There::Nothing | There::Other => Ok(()),
            },
            Meaning::Whiteout(target) => self.remove_below(&target),
        }
    }

    fn put_entry(
        &mut self,
        path: EntryPath,
        entry: &Entry,
        body: &mut impl Read,
    ) -> Result<(), Fault> {
        let Some((parent, _)) = path.split() else {
            return match entry.kind {
                EntryKind::Directory => Ok(()),
                _ => Err(Fault::Rule("the root of a layer must be a directory")),
            };
        };
        self.make_directories(&parent)?;
        match &entry.kind {
            EntryKind::Directory => self.make_directory(&path)?,
            EntryKind::File { size, sparse } => {
                self.remove(&path)?;
                let mut file = self.create(&path)?;
                copy(&mut file, *size, sparse.as_deref(), body)?;
                set_time(&file, entry.mtime)?;
            }
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(Fault::Rule("its link target is empty or holds a NUL"));
                }
                self.remove(&path)?;
                self.link(&path, &relative(&path, target))?;
            }
            EntryKind::Hardlink(target) => self.put_hardlink(&path, target)?,
            EntryKind::CharDevice(0, 0) => {
                return Err(Fault::Rule("a character device 0:0 is a whiteout on disk"));
            }
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) | EntryKind::Fifo => {
                self.remove(&path)?;
                tracing::warn!(%path, "a device node or named pipe of the image is left out");
            }
        }
        self.own.insert(path);
        Ok(())
    }

    fn put_hardlink(&self, path: &EntryPath, target: &[u8]) -> Result<(), Fault> {
        let target = EntryPath::parse(target)
            .map_err(|_| Fault::Rule("its link target leaves the root or is malformed"))?;
        if target == *path {
            return Err(Fault::Rule("it is a hard link to itself"));
        }
        let mut parent = target.clone();
        while let Some((above, _)) = parent.split() {
            if !above.is_root() && self.there(&above)? != There::Directory {
                return Err(Fault::Rule(
                    "its link target goes through something that is no directory",
                ));
            }
            parent = above;
        }
        match self.there(&target)? {
            There::Nothing => return Err(Fault::Rule("its link target is not in the image")),
            There::Directory => return Err(Fault::Rule("it is a hard link to a directory")),
            There::Other => {}
        }
        self.remove(path)?;
        let (from, to) = (os_path(&target)?, os_path(path)?);
        self.root
            .hard_link(from, self.root, to)
            .map_err(Fault::System)
    }

    fn there(&self, path: &EntryPath) -> Result<There, Fault> {
        if path.is_root() {
            return Ok(There::Directory);
        }
        match self.root.symlink_metadata(os_path(path)?) {
            Ok(meta) if meta.is_dir() => Ok(There::Directory),
            Ok(_) => Ok(There::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(There::Nothing),
            Err(error) => Err(Fault::System(error)),
        }
    }

    /// Makes the directory and those above it. A file or link of a layer below gives way, one of
    /// this layer is in the way.
    fn make_directories(&self, path: &EntryPath) -> Result<(), Fault> {
        let mut upto = EntryPath::default();
        for name in path.components() {
            upto = upto.child(name);
            if self.own.contains(&upto) && self.there(&upto)? != There::Directory {
                return Err(Fault::Rule(
                    "its path goes through something that is no directory",
                ));
            }
            self.make_directory(&upto)?;
        }
        Ok(())
    }

    fn make_directory(&self, path: &EntryPath) -> Result<(), Fault> {
        if self.there(path)? == There::Directory {
            return Ok(());
        }
        self.remove(path)?;
        self.root.create_dir(os_path(path)?).map_err(Fault::System)
    }

    fn create(&self, path: &EntryPath) -> Result<File, Fault> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = self.root.open_with(os_path(path)?, &options);
        file.map(cap_std::fs::File::into_std).map_err(Fault::System)
    }

    #[cfg(not(windows))]
    fn link(&self, path: &EntryPath, target: &[u8]) -> Result<(), Fault> {
        let (target, path) = (os_text(target)?, os_path(path)?);
        self.root
            .symlink_contents(target, path)
            .map_err(Fault::System)
    }

    /// Links to files and to directories are two things here; one that leads nowhere is one to a file.
    #[cfg(windows)]
    fn link(&self, path: &EntryPath, target: &[u8]) -> Result<(), Fault> {
        let target = PathBuf::from_iter(os_text(target)?.to_string_lossy().split('/'));
        let path = os_path(path)?;
        let beside = path.parent().unwrap_or(Path::new("")).join(&target);
        let made = match self.root.metadata(beside) {
            Ok(meta) if meta.is_dir() => self.root.symlink_dir(target, path),
            _ => self.root.symlink_file(target, path),
        };
        made.map_err(Fault::System)
    }

    /// Removes whatever is at the path.
    fn remove(&self, path: &EntryPath) -> Result<(), Fault> {
        let removed = match self.there(path)? {
            There::Nothing => Ok(()),
            There::Directory => self.root.remove_dir_all(os_path(path)?),
            There::Other => self.root.remove_file(os_path(path)?),
        };
        removed.map_err(Fault::System)
    }

    /// Removes what the layers below have at the path, and nothing of this layer.
    fn remove_below(&self, path: &EntryPath) -> Result<(), Fault> {
        let mut parent = path.clone();
        while let Some((above, _)) = parent.split() {
            if self.there(&above)? != There::Directory {
                return Ok(());
            }
            parent = above;
        }
        if !self.has(path) {
            return self.remove(path);
        }
        match self.there(path)? {
            There::Directory => self.clear(path),
            There::Nothing | There::Other => Ok(()),
        }
    }

    /// Removes what the layers below have in the directory.
    fn clear(&self, dir: &EntryPath) -> Result<(), Fault> {
        let entries = self.root.read_dir(os_path(dir)?).map_err(Fault::System)?;
        for entry in entries {
            let name = entry.map_err(Fault::System)?.file_name();
            self.remove_below(&dir.child(name.as_encoded_bytes()))?;
        }
        Ok(())
    }

    /// Whether this layer has the path or something below it.
    fn has(&self, path: &EntryPath) -> bool {
        let below = path.child(b"");
        let next = self.own.range(below..).next();
        self.own.contains(path) || next.is_some_and(|own| own.is_within(path))
    }
}

/// The target of a link as it is seen from beside the link: one from the root leads up to it first.
fn relative(path: &EntryPath, target: &[u8]) -> Vec<u8> {
    if !target.starts_with(b"/") {
        return target.to_vec();
    }
    let depth = path.components().count().saturating_sub(1);
    let mut text = b"../".repeat(depth);
    text.extend(target.iter().skip_while(|byte| **byte == b'/'));
    if text.is_empty() {
        text.push(b'.');
    }
    text
}

fn copy(
    file: &mut File,
    size: u64,
    sparse: Option<&[Segment]>,
    body: &mut impl Read,
) -> Result<(), Fault> {
    let Some(segments) = sparse else {
        return copy_bytes(file, size, body);
    };
    for segment in segments {
        file.seek(SeekFrom::Start(segment.offset))
            .map_err(Fault::System)?;
        copy_bytes(file, segment.length, body)?;
    }
    file.set_len(size).map_err(Fault::System)
}

fn copy_bytes(file: &mut File, length: u64, body: &mut impl Read) -> Result<(), Fault> {
    let copied = io::copy(&mut body.take(length), file).map_err(Fault::System)?;
    if copied < length {
        return Err(Fault::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

/// Times before 1970 stay those of the unpacking: not every file system has them.
fn set_time(file: &File, (seconds, nanoseconds): (i64, u32)) -> Result<(), Fault> {
    let Ok(seconds) = u64::try_from(seconds) else {
        return Ok(());
    };
    match SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)) {
        Some(time) => file.set_modified(time).map_err(Fault::System),
        None => Ok(()),
    }
}

/// The path as this system writes it: `.` for the root.
fn os_path(path: &EntryPath) -> Result<PathBuf, Fault> {
    let mut whole = PathBuf::new();
    for name in path.components() {
        #[cfg(windows)]
        check_name(name)?;
        whole.push(os_text(name)?);
    }
    if path.is_root() {
        whole.push(".");
    }
    Ok(whole)
}

#[cfg(unix)]
fn os_text(bytes: &[u8]) -> Result<&std::ffi::OsStr, Fault> {
    Ok(std::os::unix::ffi::OsStrExt::from_bytes(bytes))
}

#[cfg(not(unix))]
fn os_text(bytes: &[u8]) -> Result<&std::ffi::OsStr, Fault> {
    let text = std::str::from_utf8(bytes);
    text.map(std::ffi::OsStr::new)
        .map_err(|_| Fault::Rule("its name is no text, and names are on this system"))
}

/// Names that mean something else to Windows.
#[cfg(windows)]
fn check_name(name: &[u8]) -> Result<(), Fault> {
    let is_special = |byte: &u8| *byte < 0x20 || br#"<>:"\|?*"#.contains(byte);
    if name.iter().any(is_special) || matches!(name.last(), Some(b'.' | b' ')) {
        return Err(Fault::Rule("no file on this system can have its name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_from_the_root_leads_up_to_it() {
        let table = [
            ("a", "/etc/x", "etc/x"),
            ("a/b/c", "/etc/x", "../../etc/x"),
            ("a/b", "../x", "../x"),
            ("a", "/", "."),
            ("a/b", "/", "../"),
            ("a", "//etc", "etc"),
        ];
        for (path, target, expected) in table {
            let path = EntryPath::parse(path.as_bytes()).unwrap();
            let found = relative(&path, target.as_bytes());
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        }
    }
}
