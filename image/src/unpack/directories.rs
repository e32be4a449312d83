//! Directories of the layer that is being written: finding them, making them, replacing what is in
//! them, and their last attributes.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, futimens, mkdirat, openat, openat2,
    statat, unlinkat,
};
use rustix::io::Errno;

use super::attributes;
use super::fault::Fault;
use super::marks::{self, is_whiteout};
use super::tree::LayerTree;
use crate::tarwalk::EntryPath;

/// How lookups go that span more than one component.
pub(super) const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How much the paths may take that are kept until the end: what an archive can make us hold.
const MAX_REMEMBERED: usize = 128 * 1024 * 1024;

/// What a kept path costs beside its bytes.
const ENTRY_COST: usize = 128;

/// A directory that the archive does not describe (image-spec v1.1.1 leaves its attributes open).
pub(super) const IMPLIED: DirAttributes = DirAttributes {
    mode: 0o755,
    mtime: (0, 0),
};

/// What a directory gets when everything is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirAttributes {
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
}

impl LayerTree {
    /// The directory at `path`, made with its parents where the archive did not describe it.
    pub(super) fn enter(&mut self, path: &EntryPath) -> Result<Rc<OwnedFd>, Fault> {
        if self.current.0 == *path {
            return Ok(Rc::clone(&self.current.1));
        }
        let opened = openat2(
            &*self.root,
            path.as_relative(),
            DIRECTORY,
            Mode::empty(),
            RESOLVE,
        );
        let dir = match opened {
            Ok(dir) => Rc::new(dir),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make_path(path)?,
            Err(error) => return Err(error.into()),
        };
        self.current = (path.clone(), Rc::clone(&dir));
        Ok(dir)
    }

    fn make_path(&mut self, path: &EntryPath) -> Result<Rc<OwnedFd>, Fault> {
        let mut dir = Rc::clone(&self.root);
        let mut upto = EntryPath::default();
        for name in path.components() {
            upto = upto.child(name);
            let opened = match openat(&*dir, name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => self.make_implied(&dir, name, &upto)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    if !is_whiteout(&stat) {
                        return Err(Fault::Rule(
                            "its path goes through something that is no directory",
                        ));
                    }
                    self.make_implied(&dir, name, &upto)?
                }
                other => other?,
            };
            dir = Rc::new(opened);
        }
        Ok(dir)
    }

    fn make_implied(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
    ) -> Result<OwnedFd, Fault> {
        self.make_directory(dir, name, path)?;
        self.remember(path)?;
        self.dirs.insert(path.clone(), IMPLIED);
        self.implied.insert(path.clone());
        Ok(openat(dir, name, DIRECTORY, Mode::empty())?)
    }

    /// Counts a path that is kept until the end.
    pub(super) fn remember(&mut self, path: &EntryPath) -> Result<(), Fault> {
        self.remembered += path.as_bytes().len() + ENTRY_COST;
        if self.remembered > MAX_REMEMBERED {
            return Err(Fault::Rule("its layer has too many directories"));
        }
        Ok(())
    }

    /// Makes a directory, or leaves the one that is there. One that takes the place of a whiteout
    /// hides what the layers below have in theirs.
    pub(super) fn make_directory(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
    ) -> Result<(), Fault> {
        let private = Mode::from(0o700);
        match mkdirat(dir, name, private) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.clear(dir, name, path)?;
        mkdirat(dir, name, private)?;
        if is_whiteout(&stat) {
            let own = openat(dir, name, DIRECTORY, Mode::empty())?;
            marks::set_opaque(own.as_fd(), self.mode)?;
        }
        Ok(())
    }

    /// Makes something at `name`; what an earlier entry put there goes first.
    pub(super) fn replace<T>(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Fault> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(dir, name, path)?;
                Ok(make()?)
            }
            other => Ok(other?),
        }
    }

    pub(super) fn clear(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
    ) -> Result<(), Fault> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        remove_directory(dir, name)?;
        self.dirs.retain(|known, _| !known.is_within(path));
        self.implied.retain(|known| !known.is_within(path));
        self.links.retain(|known, _| !known.is_within(path));
        self.current = (EntryPath::default(), Rc::clone(&self.root));
        Ok(())
    }
}

/// Gives a directory its last attributes.
pub(super) fn finish_directory(
    root: &OwnedFd,
    path: &EntryPath,
    attributes: DirAttributes,
) -> Result<(), Errno> {
    let dir = openat2(root, path.as_relative(), DIRECTORY, Mode::empty(), RESOLVE)?;
    fchmod(&dir, Mode::from_raw_mode(attributes.mode))?;
    futimens(&dir, &attributes::times(attributes.mtime))
}

/// Removes a directory with everything in it. Depth is bounded by [`EntryPath`].
fn remove_directory(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let dir = openat(parent, name, DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        match unlinkat(&dir, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_directory(&dir, child)?,
            other => other?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
