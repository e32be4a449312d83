//! Files that are complete or absent after a crash (DESIGN section 4).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Whether a change must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced before the call returns: images, volumes, networks.
    Synced,
    /// Atomic for other processes, lost with the power: a container's state.
    Atomic,
}

/// Makes a directory, and those above it, for their owner alone. One that is there stays as it is.
///
/// # Errors
/// As `mkdir(2)`.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    // Elsewhere a directory has the rights of the one it is in: that of a user's own data.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// Sets the permission bits of a file or directory; where there are none, nothing.
///
/// # Errors
/// As `chmod(2)`.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        fs::set_permissions(path, permissions(mode))
    }
    #[cfg(not(unix))]
    {
        let _not_here = mode;
        fs::metadata(path).map(|_| ())
    }
}

#[cfg(unix)]
fn permissions(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// Replaces `path`, so that a reader, also after a crash, finds the old file or the new one.
///
/// # Errors
/// When the directory of `path` cannot be written to; then the old file is untouched.
pub fn replace_file(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut tmp = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    tmp.write_all(bytes)?;
    if durability == Durability::Synced {
        tmp.as_file().sync_all()?;
    }
    tmp.persist(path)?;
    if durability == Durability::Synced {
        sync_dir(dir)?;
    }
    Ok(())
}

/// Writes a new file into a directory that nobody knows yet: one that is renamed into place when it
/// is complete. Not synced.
///
/// # Errors
/// `AlreadyExists`, or when it cannot be written.
#[cfg(unix)]
pub fn create_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    // Whatever the caller's mask is.
    file.set_permissions(permissions(mode))
}

/// Creates `path` with `bytes`, and fails with [`io::ErrorKind::AlreadyExists`] when it is there:
/// the claim of a name. The file has its content from the moment it is visible.
///
/// # Errors
/// `AlreadyExists`, or when the directory cannot be written to.
pub fn claim_file(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut tmp = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    tmp.write_all(bytes)?;
    if durability == Durability::Synced {
        tmp.as_file().sync_all()?;
    }
    tmp.persist_noclobber(path).map_err(|e| e.error)?;
    if durability == Durability::Synced {
        sync_dir(dir)?;
    }
    Ok(())
}

/// Makes `path` another name of the file `of`, in place of what had the name before: a reader finds
/// the one or the other.
///
/// # Errors
/// As `link(2)` and `rename(2)`.
pub fn link_over(of: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(of, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let mut tmp = path.as_os_str().to_os_string();
    tmp.push(".new");
    let tmp = PathBuf::from(tmp);
    remove_tree(&tmp)?;
    fs::hard_link(of, &tmp)?;
    fs_rename(&tmp, path)?;
    // Renaming one of two names of the same file to the other does nothing (rename(2)).
    remove_tree(&tmp)
}

/// Renames a file or directory that was built elsewhere on the same file system to its final name,
/// which must be free. With [`Durability::Synced`] the file system is synced first.
///
/// # Errors
/// `AlreadyExists` when the name is taken; then nothing has changed.
pub fn publish(from: &Path, to: &Path, durability: Durability) -> io::Result<()> {
    if durability == Durability::Synced {
        sync_filesystem(from)?;
    }
    rename_new(from, to)?;
    if durability == Durability::Synced {
        sync_dir(to.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    }
    Ok(())
}

/// Moves `path` into the `trash` directory under a name nobody else uses, and returns that name.
/// From then on it is gone for everybody; [`empty_trash`] frees the space.
///
/// # Errors
/// When the rename fails. A `path` that is absent is no error and gives `None`.
pub fn discard(path: &Path, trash: &Path) -> io::Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or(OsStr::new("item"));
    for attempt in 0_u32.. {
        let mut target = name.to_os_string();
        target.push(format!(".{}.{attempt}", std::process::id()));
        let target = trash.join(target);
        match rename_new(path, &target) {
            Ok(()) => return Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Deletes what lies in a trash directory. What cannot be deleted now stays for the next call.
///
/// # Errors
/// The first failure, after everything else was tried.
pub fn empty_trash(trash: &Path) -> io::Result<()> {
    let mut first = Ok(());
    let entries = match fs::read_dir(trash) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let removed = entry.and_then(|entry| remove_tree(&entry.path()));
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

/// Removes a file or a whole directory; one that is already gone is no error.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Syncs a directory, so that a rename in it survives a power cut.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // NTFS writes its directories through a journal of their own, and opens none as a file.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(dir)?.sync_all()
}

/// Syncs the whole file system that holds `path` (`syncfs(2)`): one barrier for a tree of files.
///
/// # Errors
/// When `path` cannot be opened or the device reports an error.
#[cfg(target_os = "linux")]
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    rustix::fs::syncfs(std::os::fd::AsFd::as_fd(&file)).map_err(io::Error::from)
}

/// Syncs every file below `path`, where the system has no barrier for all of them.
///
/// # Errors
/// When a file cannot be opened or the device reports an error.
#[cfg(not(target_os = "linux"))]
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_file() {
        return File::options().write(true).open(path)?.sync_all();
    }
    if !kind.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        sync_filesystem(&entry?.path())?;
    }
    sync_dir(path)
}

/// Renames to a name that must be free, in one step.
#[cfg(target_os = "linux")]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that does not know the flag.
        Err(rustix::io::Errno::INVAL) if !to.exists() => fs_rename(from, to),
        Err(error) => Err(error.into()),
    }
}

/// Renames to a name that must be free. Callers hold a lock, or have a name of their own: between
/// the look and the rename nobody takes it.
#[cfg(not(target_os = "linux"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs_rename(from, to)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the module the ban points to"
)]
fn fs_rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_file_over_existing_keeps_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace_file(&path, b"one", Durability::Synced).unwrap();
        replace_file(&path, b"two", Durability::Atomic).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn link_over_gives_the_name_to_another_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["one", "two"] {
            replace_file(&path(name), name.as_bytes(), Durability::Atomic).unwrap();
            link_over(&path(name), &path("newest")).unwrap();
            link_over(&path(name), &path("newest")).unwrap();
            assert_eq!(fs::read(path("newest")).unwrap(), name.as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn claim_file_twice_fails_and_keeps_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        claim_file(&path, b"a", Durability::Atomic).unwrap();
        let error = claim_file(&path, b"b", Durability::Atomic).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a");
    }

    #[test]
    fn publish_onto_taken_name_fails_and_keeps_both() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        let error = publish(&from, &to, Durability::Synced).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(from.exists() && to.exists());
    }

    #[test]
    fn discard_absent_path_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            discard(&dir.path().join("none"), dir.path())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn discard_then_empty_trash_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (item, trash) = (dir.path().join("item"), dir.path().join("trash"));
        fs::create_dir(&trash).unwrap();
        fs::create_dir_all(item.join("a/b")).unwrap();
        discard(&item, &trash).unwrap().unwrap();
        assert!(!item.exists());
        empty_trash(&trash).unwrap();
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    }
}
