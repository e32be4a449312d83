//! Whiteouts: how a layer says that something below it is gone, in the archive (image-spec v1.1.1
//! `layer.md#whiteouts`) and on disk (kernel `Documentation/filesystems/overlayfs.rst`).

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, Stat, XattrFlags, fgetxattr, fsetxattr, mknodat};
use rustix::io::Errno;

use super::stream::UnpackMode;
use crate::tarwalk::EntryPath;

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS kept its own files under this prefix; some old archives still carry them.
const AUFS: &[u8] = b".wh..wh.";

/// The marks of an opaque directory: the first needs privilege in the initial user namespace, the
/// second serves overlays that are mounted with `userxattr`.
const OPAQUE_TRUSTED: &str = "trusted.overlay.opaque";
const OPAQUE_USER: &str = "user.overlay.opaque";

/// What a path of an archive says about whiteouts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: it is an ordinary entry.
    Entry,
    /// What the layers below have in this directory is gone.
    Opaque(EntryPath),
    /// What the layers below have at this path is gone.
    Whiteout(EntryPath),
    /// Nothing for us.
    Ignored,
}

/// Reads the meaning of a path; an error is the rule that it breaks.
pub(super) fn meaning(path: &EntryPath) -> Result<Meaning, &'static str> {
    let Some((parent, name)) = path.split() else {
        return Ok(Meaning::Entry);
    };
    let reserved = parent
        .components()
        .find(|component| component.starts_with(PREFIX));
    match reserved {
        Some(component) if component.starts_with(AUFS) => return Ok(Meaning::Ignored),
        Some(_) => return Err("its path goes through a whiteout"),
        None => {}
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque(parent));
    }
    if name.starts_with(AUFS) {
        return Ok(Meaning::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        Some(b"" | b"." | b"..") => Err("its whiteout names nothing"),
        Some(target) => Ok(Meaning::Whiteout(parent.child(target))),
        None => Ok(Meaning::Entry),
    }
}

/// Whether this is a whiteout on disk: a character device 0:0.
#[must_use]
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether the directory is marked opaque.
///
/// # Errors
/// When its attributes cannot be read.
pub fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    for name in [OPAQUE_TRUSTED, OPAQUE_USER] {
        let mut value = [0_u8; 4];
        match fgetxattr(dir, name, &mut value) {
            // "x" marks a directory that *holds* extended-attribute whiteouts (Linux 6.7).
            Ok(length) if value.get(..length) == Some(b"y") => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Marks the directory opaque.
pub(super) fn set_opaque(dir: BorrowedFd<'_>, mode: UnpackMode) -> Result<(), Errno> {
    let name = if mode.userns {
        OPAQUE_USER
    } else {
        OPAQUE_TRUSTED
    };
    fsetxattr(dir, name, b"y", XattrFlags::empty())
}

/// Makes a whiteout. Needs no privilege since Linux 5.8: this device is no device.
pub(super) fn make(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaning_of_every_form() {
        let path = |raw: &str| EntryPath::parse(raw.as_bytes()).unwrap();
        let table = [
            ("a/b", Ok(Meaning::Entry)),
            ("", Ok(Meaning::Entry)),
            (".wh.a", Ok(Meaning::Whiteout(path("a")))),
            ("d/.wh.a", Ok(Meaning::Whiteout(path("d/a")))),
            ("d/.wh..wh..opq", Ok(Meaning::Opaque(path("d")))),
            (".wh..wh..opq", Ok(Meaning::Opaque(path("")))),
            (".wh..wh.plnk", Ok(Meaning::Ignored)),
            (".wh..wh.plnk/1.2", Ok(Meaning::Ignored)),
            (".wh..hidden", Ok(Meaning::Whiteout(path(".hidden")))),
        ];
        for (raw, expected) in table {
            assert_eq!(meaning(&path(raw)), expected, "{raw}");
        }
        for raw in [".wh.", "d/.wh.", ".wh..", ".wh...", ".wh.d/x"] {
            assert!(meaning(&path(raw)).is_err(), "{raw}");
        }
    }
}
