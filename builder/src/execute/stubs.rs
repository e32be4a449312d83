//! Mount points of a step. What must be there for a mount and is not in the layers lies in a directory
//! at the bottom of the stack: so the upper one, which becomes the layer, does not get it. What is made
//! there all the same, where links lead elsewhere, is taken away when the step has ended: only in that
//! directory, only where no link leads, and only what is empty.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use image::LayeredRoot;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};
use rustix::io::Errno;

use crate::ignore::clean;

/// What every container has mounted.
const USUAL: [(&str, Point); 6] = [
    ("proc", Point::Directory),
    ("dev", Point::Directory),
    ("sys", Point::Directory),
    ("etc/resolv.conf", Point::File),
    ("etc/hostname", Point::File),
    ("etc/hosts", Point::File),
];

/// Only what lies beneath, whatever a program put there.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Directory,
    File,
}

/// The mount points of one step.
#[derive(Debug)]
pub(super) struct Stubs {
    dir: tempfile::TempDir,
    points: Vec<String>,
}

impl Stubs {
    /// Makes the directory: `dir` is empty and ours.
    pub(super) fn make(dir: tempfile::TempDir, targets: &[(String, Point)]) -> io::Result<Self> {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let mut points = Vec::new();
        let usual = USUAL
            .iter()
            .map(|(path, point)| ((*path).to_owned(), *point));
        for (path, point) in usual.chain(targets.iter().map(|(path, point)| (clean(path), *point)))
        {
            let is_inside = ["proc", "dev", "sys"]
                .iter()
                .any(|one| path.starts_with(&format!("{one}/")));
            if path.is_empty() || is_inside {
                continue;
            }
            let own = dir.path().join(&path);
            let make_dir = |path: &Path| DirBuilder::new().recursive(true).mode(0o755).create(path);
            match point {
                Point::Directory => make_dir(&own)?,
                Point::File => {
                    if let Some(parent) = own.parent() {
                        make_dir(parent)?;
                    }
                    if !own.exists() {
                        File::create(&own)?;
                    }
                }
            }
            points.push(path);
        }
        Ok(Self { dir, points })
    }

    /// The directory for the bottom of the stack.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Takes away what is left of mount points in the upper directory of a step that has ended.
    pub(super) fn sweep(&self, upper: &Path, lower: &LayeredRoot) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(upper, flags, Mode::empty())?;
        for point in &self.points {
            let mut path = point.as_str();
            loop {
                if !sweep_one(&root, lower, path)? {
                    break;
                }
                match path.rsplit_once('/') {
                    Some((parent, _)) => path = parent,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

/// Removes what is at `path` when the layers below have nothing there, and it is empty or a mark that
/// something is gone. Says whether nothing is there now.
fn sweep_one(root: &OwnedFd, lower: &LayeredRoot, path: &str) -> io::Result<bool> {
    if lower.lookup_link(&Path::new("/").join(path)).is_ok() {
        return Ok(false);
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let parent = CString::new(parent)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat2(root, parent.as_c_str(), flags, Mode::empty(), BENEATH) {
        Ok(parent) => parent,
        // It is not there, or a link leads away: then it is none of ours.
        Err(Errno::NOENT) => return Ok(true),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let stat = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let removed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = flags | OFlags::NOFOLLOW;
            let own = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            if !is_empty(&own)? {
                return Ok(false);
            }
            unlinkat(parent.as_fd(), name, AtFlags::REMOVEDIR)
        }
        FileType::RegularFile if stat.st_size == 0 => {
            unlinkat(parent.as_fd(), name, AtFlags::empty())
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => {
            unlinkat(parent.as_fd(), name, AtFlags::empty())
        }
        _ => return Ok(false),
    };
    removed?;
    Ok(true)
}

fn is_empty(dir: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn sweep_stays_in_the_upper_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower, canary) = (
            dir.path().join("upper"),
            dir.path().join("lower"),
            dir.path().join("canary"),
        );
        for path in [&upper, &lower, &canary] {
            fs::create_dir(path).unwrap();
        }
        File::create(canary.join("stub")).unwrap();
        fs::create_dir_all(upper.join("made/by/us")).unwrap();
        fs::create_dir_all(upper.join("kept")).unwrap();
        File::create(upper.join("kept/other")).unwrap();
        File::create(upper.join("kept/stub")).unwrap();
        fs::create_dir_all(upper.join("known")).unwrap();
        fs::create_dir_all(lower.join("known")).unwrap();
        // The program has put a link where the parent of its mount point was.
        symlink(&canary, upper.join("evil")).unwrap();
        symlink("../canary", upper.join("evil2")).unwrap();
        let targets = [
            "made/by/us",
            "kept/stub",
            "evil/stub",
            "evil2/stub",
            "known",
        ];
        let targets: Vec<_> = targets
            .iter()
            .map(|path| ((*path).to_owned(), Point::File))
            .collect();
        let stubs = Stubs::make(tempfile::tempdir().unwrap(), &targets[..4]).unwrap();
        stubs.sweep(&upper, &LayeredRoot::new(vec![lower])).unwrap();
        assert!(!upper.join("made").exists() && !upper.join("kept/stub").exists());
        assert!(upper.join("kept/other").exists() && upper.join("known").exists());
        assert!(canary.join("stub").exists());
        assert!(upper.join("evil").is_symlink());
    }
}
