//! `cp`: files between a container and the host, or a tar stream.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use image::{EntryPath, TarWalk, TarWriter, Visited, decoder, walk};
use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, readlinkat};
use rustix::io::Errno;

use super::destination::{Destination, Place, find, open_host};
use super::path::CopyPath;
use super::root::ContainerRoot;
use crate::{Container, Engine, EngineError};

pub use super::destination::Owner;

/// How many links are followed at the end of a destination (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// Whether a link that is named as the source is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowLink {
    /// What it leads to is copied.
    Yes,
    /// It is copied as a link.
    No,
}

/// How files are copied.
#[derive(Debug, Clone, Copy)]
pub struct CopyOptions {
    /// Of the source itself; links below it are always copied as links.
    pub follow: FollowLink,
    /// Who owns what is copied. On the host, device nodes are left out, and what is not the source's
    /// owner's loses its set-user-ID and set-group-ID bits and its capabilities.
    pub owner: Owner,
}

/// The host's side of a copy.
#[derive(Debug)]
pub enum Local<'a, S: ?Sized> {
    /// A path.
    Path(&'a Path),
    /// A tar archive.
    Stream(&'a mut S),
}

/// What was copied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of files.
    pub bytes: u64,
    /// What was left out and why, one line each.
    pub skipped: Vec<String>,
}

/// One side of a copy, for messages.
pub(super) struct Side<'a> {
    pub(super) direction: &'static str,
    pub(super) path: &'a Path,
}

impl Side<'_> {
    pub(super) fn refuse(&self, why: impl Into<String>) -> EngineError {
        EngineError::Copy {
            direction: self.direction,
            path: self.path.display().to_string(),
            why: why.into(),
        }
    }

    pub(super) fn failed(&self, error: impl Into<io::Error>) -> EngineError {
        let error = error.into();
        let why = match error.raw_os_error() {
            Some(errno) => runtime_native::reason(Errno::from_raw_os_error(errno)),
            None => error.to_string(),
        };
        self.refuse(why)
    }
}

/// Where something goes: a directory, and the path in it.
pub(super) struct Spot {
    pub(super) base: PathBuf,
    pub(super) prefix: EntryPath,
}

impl Engine {
    /// Copies from a container.
    ///
    /// # Errors
    /// [`EngineError::Copy`] with the side that is wrong.
    pub fn copy_out(
        &self,
        container: &Container,
        from: &Path,
        to: Local<'_, dyn Write + '_>,
        options: CopyOptions,
    ) -> Result<Copied, EngineError> {
        let copied = self.copy_from(container, from, to, options)?;
        let path = from.to_string_lossy();
        self.record_container_event(&container.config, "archive-path", &[("path", &path)]);
        Ok(copied)
    }

    fn copy_from(
        &self,
        container: &Container,
        from: &Path,
        to: Local<'_, dyn Write + '_>,
        options: CopyOptions,
    ) -> Result<Copied, EngineError> {
        let root = self.open_root(container)?;
        let source = Side {
            direction: "from",
            path: from,
        };
        let from = CopyPath::parse(&Path::new("/").join(from));
        let follow = options.follow == FollowLink::Yes || from.is_directory;
        let top = find(root.as_fd(), &from.path, follow).map_err(|errno| source.failed(errno))?;
        let is_directory = check_source(&source, top.as_fd(), &from)?;
        match to {
            Local::Stream(stream) => archive(&source, top.as_fd(), &from, stream),
            Local::Path(path) => {
                let target = Side {
                    direction: "to",
                    path,
                };
                let spot = host_spot(&target, &from, is_directory)?;
                let base = open_host(&spot.base).map_err(|errno| target.failed(errno))?;
                let destination =
                    Destination::new(base.as_fd(), Vec::new(), Place::Host, options.owner);
                transfer(&source, &target, top.as_fd(), &spot.prefix, destination)
            }
        }
    }

    /// Copies into a container.
    ///
    /// # Errors
    /// [`EngineError::ReadOnly`] when nothing can be written there, [`EngineError::Copy`] with the
    /// side that is wrong otherwise.
    pub fn copy_in(
        &self,
        container: &Container,
        from: Local<'_, dyn Read + '_>,
        to: &Path,
        options: CopyOptions,
    ) -> Result<Copied, EngineError> {
        let copied = self.copy_to(container, from, to, options)?;
        let path = to.to_string_lossy();
        self.record_container_event(&container.config, "extract-to-dir", &[("path", &path)]);
        Ok(copied)
    }

    fn copy_to(
        &self,
        container: &Container,
        from: Local<'_, dyn Read + '_>,
        to: &Path,
        options: CopyOptions,
    ) -> Result<Copied, EngineError> {
        let target = Side {
            direction: "to",
            path: to,
        };
        match from {
            Local::Stream(stream) => {
                let root = self.open_root(container)?;
                let spot = container_spot(&root, &target, None)?;
                check_writable(&root, &target, &spot)?;
                let destination = into(&root, &spot, options.owner);
                extract(&root, &target, stream, destination)
            }
            Local::Path(path) => {
                let source = Side {
                    direction: "from",
                    path,
                };
                let from = CopyPath::parse(path);
                let follow = options.follow == FollowLink::Yes || from.is_directory;
                let top = open_source(&from.path, follow).map_err(|errno| source.failed(errno))?;
                let is_directory = check_source(&source, top.as_fd(), &from)?;
                let root = self.open_root(container)?;
                let spot = container_spot(&root, &target, Some((&from, is_directory)))?;
                check_writable(&root, &target, &spot)?;
                let destination = into(&root, &spot, options.owner);
                transfer(&source, &target, top.as_fd(), &spot.prefix, destination)
                    .map_err(|error| read_only(error, &root, &target))
            }
        }
    }
}

fn into<'a>(root: &'a ContainerRoot, spot: &Spot, owner: Owner) -> Destination<'a> {
    let base = spot.base.as_os_str().as_bytes().to_vec();
    Destination::new(root.as_fd(), base, Place::Container, owner)
}

/// Opens a source on the host.
pub(super) fn open_source(path: &Path, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = match follow {
        true => OFlags::PATH | OFlags::CLOEXEC,
        false => OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    };
    rustix::fs::open(path, flags, Mode::empty())
}

fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}

/// Whether the source is a directory; one that had to be and is none is refused.
pub(super) fn check_source(
    side: &Side<'_>,
    top: BorrowedFd<'_>,
    path: &CopyPath,
) -> Result<bool, EngineError> {
    let is_directory = is_directory(top).map_err(|errno| side.failed(errno))?;
    if path.is_directory && !is_directory {
        return Err(side.refuse("it is no directory"));
    }
    Ok(is_directory)
}

/// The name that something gets in a directory.
fn named(side: &Side<'_>, name: Option<&[u8]>) -> Result<EntryPath, EngineError> {
    EntryPath::parse(name.unwrap_or_default()).map_err(|why| side.refuse(why))
}

/// Docker's rules, which are those of `cp`: what is copied goes into a directory that is there, or
/// gets the destination's own name.
pub(super) fn choose(
    target: &Side<'_>,
    to: &CopyPath,
    path: PathBuf,
    there: Option<bool>,
    source: (&CopyPath, bool),
) -> Result<Spot, EngineError> {
    let (from, is_directory) = source;
    match there {
        Some(true) => {
            let name = from.name.as_deref().filter(|_| !from.contents);
            Ok(Spot {
                base: path,
                prefix: named(target, name)?,
            })
        }
        Some(false) if is_directory => {
            Err(target.refuse("it is no directory, and the source is one"))
        }
        Some(false) if to.is_directory => Err(target.refuse("it is no directory")),
        None if to.is_directory && !is_directory => Err(target.refuse("no such directory")),
        Some(false) | None => {
            let name = path.file_name().map(|name| name.as_bytes().to_vec());
            let base = match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
                Some(parent) => parent.to_path_buf(),
                None => PathBuf::from("."),
            };
            Ok(Spot {
                base,
                prefix: named(target, name.as_deref())?,
            })
        }
    }
}

/// Where on the host something goes.
pub(super) fn host_spot(
    target: &Side<'_>,
    from: &CopyPath,
    source_is_directory: bool,
) -> Result<Spot, EngineError> {
    let to = CopyPath::parse(target.path);
    let mut path = to.path.clone();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new(".")).join(link),
            Err(_) => break,
        }
    }
    let there = match fs::metadata(&path) {
        Ok(meta) => Some(meta.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(target.failed(error)),
    };
    choose(target, &to, path, there, (from, source_is_directory))
}

/// Where in a container something goes; an archive goes into a directory only.
fn container_spot(
    root: &ContainerRoot,
    target: &Side<'_>,
    source: Option<(&CopyPath, bool)>,
) -> Result<Spot, EngineError> {
    let to = CopyPath::parse(&Path::new("/").join(target.path));
    let mut path = to.path.clone();
    for _ in 0..MAX_LINKS {
        let Ok(file) = find(root.as_fd(), &path, false) else {
            break;
        };
        let Ok(link) = readlinkat(&file, c"", Vec::new()) else {
            break;
        };
        let link = std::ffi::OsStr::from_bytes(link.as_bytes()).to_owned();
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    let there = match find(root.as_fd(), &path, true) {
        Ok(file) => Some(is_directory(file.as_fd()).map_err(|errno| target.failed(errno))?),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(target.failed(errno)),
    };
    let Some(source) = source else {
        return match there {
            Some(true) => Ok(Spot {
                base: path,
                prefix: EntryPath::default(),
            }),
            Some(false) => Err(target.refuse("it is no directory")),
            None => Err(target.refuse("no such directory")),
        };
    };
    let spot = choose(target, &to, path, there, source)?;
    // Parents are not made, as with `cp`.
    match find(root.as_fd(), &spot.base, true).and_then(|base| is_directory(base.as_fd())) {
        Ok(true) => Ok(spot),
        Ok(false) => Err(target.failed(Errno::NOTDIR)),
        Err(errno) => Err(target.failed(errno)),
    }
}

/// Refuses a destination on a read-only mount before anything is read.
fn check_writable(root: &ContainerRoot, target: &Side<'_>, spot: &Spot) -> Result<(), EngineError> {
    let base = find(root.as_fd(), &spot.base, true).map_err(|errno| target.failed(errno))?;
    let flags = fstatvfs(&base)
        .map_err(|errno| target.failed(errno))?
        .f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Err(EngineError::ReadOnly {
            name: root.name.clone(),
            path: target.path.display().to_string(),
        });
    }
    Ok(())
}

/// What turned out to be read-only below a destination that is not.
fn read_only(error: EngineError, root: &ContainerRoot, target: &Side<'_>) -> EngineError {
    match error {
        EngineError::Copy { why, .. } if why == runtime_native::reason(Errno::ROFS) => {
            EngineError::ReadOnly {
                name: root.name.clone(),
                path: target.path.display().to_string(),
            }
        }
        other => other,
    }
}

/// Copies a tree.
fn transfer(
    source: &Side<'_>,
    target: &Side<'_>,
    top: BorrowedFd<'_>,
    prefix: &EntryPath,
    mut destination: Destination<'_>,
) -> Result<Copied, EngineError> {
    let mut failure = None;
    let mut sockets = Vec::new();
    let walked = walk(top, prefix, &mut |visited, body| {
        let entry = match visited {
            Visited::Entry(entry) => entry,
            Visited::Socket(path) => {
                sockets.push(format!("`{path}`: it is a socket"));
                return Ok(());
            }
        };
        destination.put(&entry, body).map_err(|error| {
            failure = Some(target.failed(error));
            io::ErrorKind::Interrupted.into()
        })
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    walked.map_err(|error| source.failed(error))?;
    destination.finish().map_err(|error| target.failed(error))?;
    let mut skipped = destination.skipped;
    skipped.extend(sockets);
    Ok(Copied {
        bytes: destination.bytes,
        skipped,
    })
}

/// Writes a tree as an archive.
fn archive(
    source: &Side<'_>,
    top: BorrowedFd<'_>,
    from: &CopyPath,
    stream: &mut (dyn Write + '_),
) -> Result<Copied, EngineError> {
    let name = from.name.as_deref().filter(|_| !from.contents);
    let prefix = named(source, name)?;
    archive_as(source, top, &prefix, stream)
}

/// Writes a tree under a name as an archive.
pub(super) fn archive_as(
    source: &Side<'_>,
    top: BorrowedFd<'_>,
    prefix: &EntryPath,
    stream: &mut (dyn Write + '_),
) -> Result<Copied, EngineError> {
    let mut copied = Copied::default();
    let mut writer = TarWriter::new(stream);
    let walked = walk(top, prefix, &mut |visited, body| match visited {
        Visited::Entry(entry) if entry.path.is_empty() => Ok(()),
        Visited::Entry(entry) => {
            if let image::EntryKind::File { size, .. } = entry.kind {
                copied.bytes += size;
            }
            writer.put(&entry, body)
        }
        Visited::Socket(path) => {
            copied.skipped.push(format!("`{path}`: it is a socket"));
            Ok(())
        }
    });
    walked.map_err(|error| source.failed(error))?;
    writer
        .finish()
        .map_err(EngineError::io("write the archive"))?;
    Ok(copied)
}

/// Unpacks an archive, also a compressed one.
fn extract(
    root: &ContainerRoot,
    target: &Side<'_>,
    stream: &mut (dyn Read + '_),
    mut destination: Destination<'_>,
) -> Result<Copied, EngineError> {
    let (_, stream) = decoder(stream)?;
    let mut archive = TarWalk::new(stream);
    while let Some(entry) = archive.next_entry()? {
        destination
            .put(&entry, &mut archive)
            .map_err(|error| read_only(target.failed(error), root, target))?;
    }
    destination.finish().map_err(|error| target.failed(error))?;
    // What writes the archive is not cut off before its end.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(EngineError::io("read the archive"))?;
    Ok(Copied {
        bytes: destination.bytes,
        skipped: destination.skipped,
    })
}
