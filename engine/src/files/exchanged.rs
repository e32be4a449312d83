//! `cp` between this host and a container of a daemon: archives that go to it and come from it, with
//! the names that `cp` gives things.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::{Entry, EntryKind, EntryPath, TarWalk, decoder};

use super::copy::{
    Copied, CopyOptions, FollowLink, Side, archive_as, check_source, choose, host_spot, open_source,
};
use super::destination::{Destination, Owner, Place, open_host};
use super::path::CopyPath;
use crate::EngineError;

/// What goes to a daemon.
#[derive(Debug)]
pub struct OutgoingCopy {
    source: PathBuf,
    top: OwnedFd,
    prefix: EntryPath,
    /// The directory in the container that the archive belongs into.
    pub directory: PathBuf,
}

impl OutgoingCopy {
    /// Looks at the source. `there` says what the daemon has at `to`: nothing, a directory or
    /// something else.
    ///
    /// # Errors
    /// [`EngineError::Copy`] with the side that is wrong.
    pub fn new(
        from: &Path,
        to: &Path,
        there: Option<bool>,
        options: CopyOptions,
    ) -> Result<Self, EngineError> {
        let source = Side {
            direction: "from",
            path: from,
        };
        let target = Side {
            direction: "to",
            path: to,
        };
        let parsed = CopyPath::parse(from);
        let follow = options.follow == FollowLink::Yes || parsed.is_directory;
        let top = open_source(&parsed.path, follow).map_err(|errno| source.failed(errno))?;
        let is_directory = check_source(&source, top.as_fd(), &parsed)?;
        let to = CopyPath::parse(&Path::new("/").join(to));
        let path = to.path.clone();
        let spot = choose(&target, &to, path, there, (&parsed, is_directory))?;
        Ok(Self {
            source: from.to_path_buf(),
            top,
            prefix: spot.prefix,
            directory: spot.base,
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When the source cannot be read, or nobody takes the archive.
    pub fn write(&self, stream: &mut dyn Write) -> Result<Copied, EngineError> {
        let source = Side {
            direction: "from",
            path: &self.source,
        };
        archive_as(&source, self.top.as_fd(), &self.prefix, stream)
    }
}

/// Puts an archive that a daemon has made of `from` on the host.
///
/// # Errors
/// [`EngineError::Copy`] with the side that is wrong, and what is wrong with the archive.
pub fn receive_copy(
    stream: &mut dyn Read,
    from: &Path,
    to: &Path,
    owner: Owner,
) -> Result<Copied, EngineError> {
    let target = Side {
        direction: "to",
        path: to,
    };
    let from = CopyPath::parse(&Path::new("/").join(from));
    let (_, stream) = decoder(stream)?;
    let mut archive = TarWalk::new(stream);
    let Some(first) = archive.next_entry()? else {
        return Ok(Copied::default());
    };
    let is_directory = first.kind == EntryKind::Directory;
    let spot = host_spot(&target, &from, is_directory)?;
    let base = open_host(&spot.base).map_err(|errno| target.failed(errno))?;
    let mut destination = Destination::new(base.as_fd(), Vec::new(), Place::Host, owner);
    let mut next = Some(first);
    while let Some(mut entry) = next {
        rename(&mut entry, &spot.prefix, &from).map_err(|why| target.refuse(why))?;
        if !entry.path.is_empty() {
            destination
                .put(&entry, &mut archive)
                .map_err(|error| target.failed(error))?;
        }
        next = archive.next_entry()?;
    }
    destination.finish().map_err(|error| target.failed(error))?;
    // Who sends it is not cut off before its end.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(EngineError::io("read the archive"))?;
    Ok(Copied {
        bytes: destination.bytes,
        skipped: destination.skipped,
    })
}

/// Gives an entry its place: its first name is the source's, for which the prefix stands.
fn rename(entry: &mut Entry, prefix: &EntryPath, from: &CopyPath) -> Result<(), &'static str> {
    entry.path = renamed(&entry.path, prefix, from)?;
    if let EntryKind::Hardlink(other) = &mut entry.kind {
        *other = renamed(other, prefix, from)?;
    }
    Ok(())
}

fn renamed(path: &[u8], prefix: &EntryPath, from: &CopyPath) -> Result<Vec<u8>, &'static str> {
    let path = EntryPath::parse(path)?;
    let mut names: Vec<&[u8]> = prefix.components().collect();
    // What is in a directory comes without its name.
    let skipped = usize::from(!from.contents);
    names.extend(path.components().skip(skipped));
    Ok(names.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const OPTIONS: CopyOptions = CopyOptions {
        follow: FollowLink::No,
        owner: Owner::Receiver,
    };

    /// Sends a tree to `to` of a daemon that has nothing there, and takes it back as `name`.
    fn there_and_back(name: &str, to: &str, back: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        sys::durable::create_file(&dir.path().join("src/f"), b"x", 0o644).unwrap();
        fs::hard_link(dir.path().join("src/f"), dir.path().join("src/g")).unwrap();
        let source = dir.path().join(name);
        let sent = OutgoingCopy::new(&source, Path::new(to), None, OPTIONS).unwrap();
        let mut archive = Vec::new();
        sent.write(&mut archive).unwrap();
        let target = dir.path().join(back);
        let received = receive_copy(
            &mut archive.as_slice(),
            Path::new(to),
            &target,
            Owner::Receiver,
        );
        received.unwrap();
        dir
    }

    #[test]
    fn tree_gets_the_name_of_its_destination() {
        let dir = there_and_back("src", "/srv/new", "other");
        for file in ["other/f", "other/g"] {
            assert_eq!(fs::read(dir.path().join(file)).unwrap(), b"x", "{file}");
        }
    }

    #[test]
    fn file_goes_into_a_directory_that_is_there_under_its_own_name() {
        let dir = there_and_back("src/f", "/srv/new", "src");
        assert_eq!(fs::read(dir.path().join("src/new")).unwrap(), b"x");
    }

    #[test]
    fn archive_cannot_leave_its_destination() {
        let dir = tempfile::tempdir().unwrap();
        let from = CopyPath::parse(Path::new("/srv/new"));
        let prefix = EntryPath::parse(b"out").unwrap();
        assert!(renamed(b"new/../../x", &prefix, &from).is_err());
        assert_eq!(renamed(b"new/a", &prefix, &from).unwrap(), b"out/a");
        assert_eq!(renamed(b"any", &prefix, &from).unwrap(), b"out");
        drop(dir);
    }
}
