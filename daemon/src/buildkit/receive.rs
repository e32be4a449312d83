//! Takes a tree of files from a client. What it sends is not trusted: paths are checked, each file is
//! made new in a directory that was opened beneath the root without following a link, and everything
//! has a bound.
//!
//! ```text
//! the client            the daemon
//! STAT, STAT, …  ──►    makes directories, links and empty files
//!                ◄──    REQUEST, for files with content, some at a time
//! DATA, DATA, …  ──►    writes; an empty one is a file's end
//!                ◄──    END, when it has everything
//! END            ──►
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat,
    openat, openat2, symlinkat, utimensat,
};

use super::wire::files::{Packet, Stat, kind, mode};

/// How many files are asked for before the first of them has come. The client's own list of what to
/// send holds 128; a longer one would make both sides wait for each other.
const AT_ONCE: usize = 64;

/// How many files a tree may have.
const MAX_FILES: u32 = 2_000_000;

/// How many bytes a tree may have.
const MAX_BYTES: u64 = 64 << 30;

/// As the kernel: `PATH_MAX` and `NAME_MAX`.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// How lookups go that span more than one component.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why a tree could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("the client sent `{path}`: {why}")]
    Refused { path: String, why: &'static str },
    #[error("the client broke the protocol of files: {0}")]
    Protocol(&'static str),
    #[error("the client cannot send its files: {0}")]
    Client(String),
    #[error("cannot write `{path}`")]
    Write { path: String, source: io::Error },
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A further packet.
    Packet,
    /// Nothing: the tree is complete.
    Nothing,
}

/// A file whose content is to come.
struct Pending {
    path: Vec<u8>,
    mode: u32,
    modified: i64,
}

/// Takes packets and makes files below a directory.
pub(super) struct Receiver {
    root: Rc<OwnedFd>,
    /// The directory that was used last.
    current: (Vec<u8>, Rc<OwnedFd>),
    /// The path before, for the order.
    last: Vec<u8>,
    files: u32,
    bytes: u64,
    is_listed: bool,
    is_ended: bool,
    pending: BTreeMap<u32, Pending>,
    wanted: VecDeque<u32>,
    open: BTreeMap<u32, (File, Pending)>,
    /// Directories get their attributes when everything is in them.
    directories: Vec<(Vec<u8>, u32, i64)>,
    replies: Vec<Packet>,
    /// Devices and sockets, which a context does not have.
    pub(super) left_out: usize,
}

impl Receiver {
    /// A receiver for an empty directory.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(dir, DIRECTORY, Mode::empty())?;
        let root = Rc::new(root);
        Ok(Self {
            current: (Vec::new(), Rc::clone(&root)),
            root,
            last: Vec::new(),
            files: 0,
            bytes: 0,
            is_listed: false,
            is_ended: false,
            pending: BTreeMap::new(),
            wanted: VecDeque::new(),
            open: BTreeMap::new(),
            directories: Vec::new(),
            replies: Vec::new(),
            left_out: 0,
        })
    }

    /// How many bytes of content have come.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is to be sent to the client now.
    pub(super) fn replies(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.replies)
    }

    /// Takes a packet.
    pub(super) fn take(&mut self, packet: Packet) -> Result<Next, ReceiveError> {
        match packet.kind {
            kind::STAT => match packet.stat {
                Some(stat) => self.stat(stat)?,
                None if self.is_listed => {
                    return Err(ReceiveError::Protocol("its list has two ends"));
                }
                None => self.is_listed = true,
            },
            kind::DATA => self.data(packet.id, &packet.data)?,
            kind::ERROR => {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(ReceiveError::Client(text));
            }
            kind::END if self.is_ended => {
                self.finish()?;
                return Ok(Next::Nothing);
            }
            kind::END => return Err(ReceiveError::Protocol("it ended before it was told to")),
            _ => return Err(ReceiveError::Protocol("a packet has no known kind")),
        }
        self.ask()?;
        Ok(Next::Packet)
    }

    /// Asks for files that are wanted; when there are none any more, says so.
    fn ask(&mut self) -> Result<(), ReceiveError> {
        while self.open.len() < AT_ONCE {
            let Some(id) = self.wanted.pop_front() else {
                break;
            };
            let Some(pending) = self.pending.remove(&id) else {
                continue;
            };
            let (parent, name) = split(&pending.path);
            let dir = self.enter(parent, &pending.path)?;
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&*dir, name, flags, Mode::empty())
                .map_err(|error| failed(&pending.path, error))?;
            self.open.insert(id, (File::from(file), pending));
            self.replies.push(Packet {
                kind: kind::REQUEST,
                id,
                ..Packet::default()
            });
        }
        if self.is_listed && !self.is_ended && self.open.is_empty() && self.wanted.is_empty() {
            self.is_ended = true;
            self.replies.push(Packet {
                kind: kind::END,
                ..Packet::default()
            });
        }
        Ok(())
    }

    fn stat(&mut self, stat: Stat) -> Result<(), ReceiveError> {
        if self.is_listed {
            return Err(ReceiveError::Protocol(
                "a file came after the end of the list",
            ));
        }
        let id = self.files;
        if id >= MAX_FILES {
            return Err(ReceiveError::Protocol("there are too many files"));
        }
        self.files += 1;
        check_path(&stat.path)?;
        if compare(&self.last, &stat.path) != std::cmp::Ordering::Less {
            return Err(refused(&stat.path, "its place in the list is wrong"));
        }
        self.last.clone_from(&stat.path);
        let (parent, name) = split(&stat.path);
        let dir = self.enter(parent, &stat.path)?;
        let path = stat.path.clone();
        let wrong = |error| failed(&path, error);
        let bits = permissions(stat.mode);
        match stat.mode & mode::KIND {
            mode::DIRECTORY => {
                mkdirat(&*dir, name, Mode::from(0o700)).map_err(wrong)?;
                self.directories.push((stat.path, bits, stat.modified));
            }
            mode::SYMLINK => {
                if stat.link.is_empty() || stat.link.len() > MAX_PATH || stat.link.contains(&0) {
                    return Err(refused(&stat.path, "its target is no path"));
                }
                symlinkat(stat.link.as_slice(), &*dir, name).map_err(wrong)?;
                let times = times(stat.modified);
                utimensat(&*dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
            }
            0 if !stat.link.is_empty() => {
                check_path(&stat.link)?;
                let (target_parent, target) = split(&stat.link);
                let target_dir = self.enter(target_parent, &stat.path)?;
                linkat(&*target_dir, target, &*dir, name, AtFlags::empty()).map_err(wrong)?;
            }
            0 => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = openat(&*dir, name, flags, Mode::from(0o600)).map_err(wrong)?;
                let pending = Pending {
                    path: stat.path,
                    mode: bits,
                    modified: stat.modified,
                };
                if stat.size == 0 {
                    return finish_file(&File::from(file), &pending);
                }
                self.pending.insert(id, pending);
                self.wanted.push_back(id);
            }
            _ => self.left_out += 1,
        }
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), ReceiveError> {
        let Some((file, pending)) = self.open.get_mut(&id) else {
            return Err(ReceiveError::Protocol(
                "there is content of a file that was not asked for",
            ));
        };
        if data.is_empty() {
            finish_file(file, pending)?;
            self.open.remove(&id);
            return Ok(());
        }
        self.bytes += data.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(ReceiveError::Protocol("there is too much content"));
        }
        file.write_all(data).map_err(|source| ReceiveError::Write {
            path: shown(&pending.path),
            source,
        })
    }

    /// The directory at a path, which was in the list.
    fn enter(&mut self, path: &[u8], of: &[u8]) -> Result<Rc<OwnedFd>, ReceiveError> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if self.current.0 != path {
            let dir =
                openat2(&*self.root, path, DIRECTORY, Mode::empty(), BENEATH).map_err(|error| {
                    match error {
                        rustix::io::Errno::NOENT
                        | rustix::io::Errno::NOTDIR
                        | rustix::io::Errno::LOOP => {
                            refused(of, "it lies in something that is no directory of the list")
                        }
                        other => failed(of, other),
                    }
                })?;
            self.current = (path.to_vec(), Rc::new(dir));
        }
        Ok(Rc::clone(&self.current.1))
    }

    /// Gives the directories their attributes, children before parents.
    fn finish(&mut self) -> Result<(), ReceiveError> {
        for (path, bits, modified) in std::mem::take(&mut self.directories).into_iter().rev() {
            let dir = self.enter(&path, &path)?;
            fchmod(&*dir, Mode::from_raw_mode(bits))
                .and_then(|()| futimens(&*dir, &times(modified)))
                .map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

fn finish_file(file: &File, pending: &Pending) -> Result<(), ReceiveError> {
    fchmod(file, Mode::from_raw_mode(pending.mode))
        .and_then(|()| futimens(file, &times(pending.modified)))
        .map_err(|error| failed(&pending.path, error))
}

/// A path that has a name in every component and stays below where it begins.
fn check_path(path: &[u8]) -> Result<(), ReceiveError> {
    let is_name =
        |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && name.len() <= MAX_NAME;
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(refused(path, "it is too long, or no path at all"));
    }
    if !path.split(|byte| *byte == b'/').all(is_name) {
        return Err(refused(path, "it may lead out of the tree"));
    }
    Ok(())
}

/// The order of the list: component by component.
fn compare(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    let is_slash = |byte: &u8| *byte == b'/';
    if one.is_empty() || other.is_empty() {
        return one.len().cmp(&other.len());
    }
    one.split(is_slash).cmp(other.split(is_slash))
}

/// The directory and the name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (&[], path),
    }
}

/// The bits of Linux for those of Go.
fn permissions(bits: u32) -> u32 {
    let mut permissions = bits & 0o777;
    for (go, linux) in [
        (mode::SET_UID, 0o4000),
        (mode::SET_GID, 0o2000),
        (mode::STICKY, 0o1000),
    ] {
        if bits & go != 0 {
            permissions |= linux;
        }
    }
    permissions
}

fn times(nanoseconds: i64) -> Timestamps {
    let at = Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

/// A client's path in a message: without anything that a terminal would act on.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut text: String = text.chars().take(200).collect();
    text.retain(|c| !c.is_control());
    text
}

fn refused(path: &[u8], why: &'static str) -> ReceiveError {
    ReceiveError::Refused {
        path: shown(path),
        why,
    }
}

fn failed(path: &[u8], error: rustix::io::Errno) -> ReceiveError {
    ReceiveError::Write {
        path: shown(path),
        source: error.into(),
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "files of a test need not survive"
)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn stat(path: &str, bits: u32, size: i64, link: &str) -> Packet {
        Packet {
            kind: kind::STAT,
            stat: Some(Stat {
                path: path.into(),
                mode: bits,
                size,
                modified: 1_700_000_000_000_000_005,
                link: link.into(),
                ..Stat::default()
            }),
            ..Packet::default()
        }
    }

    fn file(path: &str) -> Packet {
        stat(path, 0o644, 3, "")
    }

    fn directory(path: &str) -> Packet {
        stat(path, mode::DIRECTORY | 0o755, 0, "")
    }

    fn data(id: u32, text: &'static str) -> Packet {
        Packet {
            kind: kind::DATA,
            id,
            data: Bytes::from_static(text.as_bytes()),
            ..Packet::default()
        }
    }

    fn of(kind: i32) -> Packet {
        Packet {
            kind,
            ..Packet::default()
        }
    }

    fn asked(receiver: &mut Receiver) -> Vec<(i32, u32)> {
        let replies = receiver.replies();
        replies.iter().map(|reply| (reply.kind, reply.id)).collect()
    }

    #[test]
    fn tree_is_made_with_its_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path()).unwrap();
        for packet in [
            stat("a", mode::DIRECTORY | mode::STICKY | 0o555, 0, ""),
            stat("a/b", 0o640 | mode::SET_UID, 3, ""),
            stat("a/c", 0o600, 0, ""),
            stat("a/d", mode::SYMLINK | 0o777, 0, "/etc/passwd"),
            stat("a/e", 0o640, 0, "a/b"),
            stat("a/f", mode::DEVICE | 0o600, 0, ""),
            of(kind::STAT),
        ] {
            assert_eq!(receiver.take(packet).unwrap(), Next::Packet);
        }
        assert_eq!(asked(&mut receiver), [(kind::REQUEST, 1)]);
        receiver.take(data(1, "xyz")).unwrap();
        receiver.take(data(1, "")).unwrap();
        assert_eq!(asked(&mut receiver), [(kind::END, 0)]);
        assert_eq!(receiver.take(of(kind::END)).unwrap(), Next::Nothing);
        let meta = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap();
        assert_eq!(meta("a").permissions().mode() & 0o7777, 0o1555);
        assert_eq!(meta("a/b").permissions().mode() & 0o7777, 0o4640);
        assert_eq!(meta("a/b").ino(), meta("a/e").ino());
        for name in ["a", "a/b", "a/c", "a/d"] {
            assert_eq!(
                (meta(name).mtime(), meta(name).mtime_nsec()),
                (1_700_000_000, 5),
                "{name}"
            );
        }
        assert_eq!(fs::read(dir.path().join("a/e")).unwrap(), b"xyz");
        assert_eq!(
            fs::read_link(dir.path().join("a/d")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert!(!dir.path().join("a/f").exists());
        assert_eq!((receiver.left_out, receiver.bytes()), (1, 3));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["", "/a", "..", "../a", "a/..", "a//b", "a/", "./a", "a\0b"] {
            let dir = tempfile::tempdir().unwrap();
            let mut receiver = Receiver::new(dir.path()).unwrap();
            receiver.take(directory("A")).unwrap();
            let error = receiver.take(file(path)).unwrap_err();
            assert!(matches!(error, ReceiveError::Refused { .. }), "{path:?}");
            let error = Receiver::new(dir.path())
                .unwrap()
                .take(stat("z", 0o644, 0, path));
            // Without a target it is no link.
            assert_eq!(error.is_err(), !path.is_empty(), "{path:?}");
        }
        let long = "x".repeat(300);
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path()).unwrap();
        assert!(receiver.take(file(&long)).is_err());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let target = outside.path().to_str().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(inside.path()).unwrap();
        receiver
            .take(stat("link", mode::SYMLINK | 0o777, 0, target))
            .unwrap();
        for packet in [
            file("link/new"),
            directory("link/sub"),
            stat("link/x", mode::SYMLINK, 0, "y"),
            stat("m", 0o644, 0, "link/kept"),
        ] {
            assert!(receiver.take(packet).is_err());
        }
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn files_come_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path()).unwrap();
        receiver.take(directory("b")).unwrap();
        for packet in [file("a"), directory("b"), file("x/y")] {
            assert!(receiver.take(packet).is_err());
        }
        // Component by component: what is in a directory comes before its neighbours.
        assert!(compare(b"b/c", b"b-").is_lt() && compare(b"b", b"b/c").is_lt());
        assert!(compare(b"b", b"b").is_eq() && compare(b"", b"b").is_lt());
    }

    #[test]
    fn content_comes_only_for_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path()).unwrap();
        receiver.take(directory("a")).unwrap();
        receiver.take(file("a/b")).unwrap();
        assert_eq!(asked(&mut receiver), [(kind::REQUEST, 1)]);
        for packet in [
            data(0, "x"),
            data(2, "x"),
            of(kind::END),
            of(kind::REQUEST),
            of(77),
            Packet {
                kind: kind::ERROR,
                data: Bytes::from_static(b"gone"),
                ..Packet::default()
            },
        ] {
            assert!(receiver.take(packet).is_err());
        }
        receiver.take(data(1, "x")).unwrap();
        receiver.take(data(1, "")).unwrap();
        assert!(receiver.take(data(1, "again")).is_err());
        receiver.take(of(kind::STAT)).unwrap();
        assert!(receiver.take(of(kind::STAT)).is_err());
        assert!(receiver.take(file("z")).is_err());
    }

    /// Any packet, of names and links that could do harm.
    fn any_packet() -> impl Strategy<Value = Packet> {
        let name = prop::sample::select(vec!["a", "b", "c", "..", ".", "", "x"]);
        let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
        let bits = prop::sample::select(vec![
            0o644,
            mode::DIRECTORY | 0o755,
            mode::SYMLINK,
            mode::DEVICE,
            u32::MAX,
        ]);
        let link = prop::sample::select(vec!["", "..", "../../x", "/tmp", "a", "a/b"]);
        let list = (path, bits, 0..2i64, link)
            .prop_map(|(path, bits, size, link)| stat(&path, bits, size, link));
        let rest =
            (0..6i32, 0..8u32, prop::sample::select(vec!["", "x"])).prop_map(|(kind, id, text)| {
                Packet {
                    kind,
                    id,
                    data: Bytes::from_static(text.as_bytes()),
                    stat: None,
                }
            });
        prop_oneof![3 => list, 1 => rest]
    }

    proptest! {
        /// Whatever a client sends, and though it goes on after an error: everything stays inside.
        #[test]
        fn no_packets_reach_what_is_outside(packets in prop::collection::vec(any_packet(), 0..40)) {
            let outer = tempfile::tempdir().unwrap();
            fs::write(outer.path().join("x"), "kept").unwrap();
            let inner = outer.path().join("inner");
            fs::create_dir(&inner).unwrap();
            let mut receiver = Receiver::new(&inner).unwrap();
            for packet in packets {
                // Most are wrong.
                drop(receiver.take(packet));
            }
            let mut names: Vec<_> = fs::read_dir(outer.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            prop_assert_eq!(names, ["inner", "x"]);
            prop_assert_eq!(fs::read(outer.path().join("x")).unwrap(), b"kept");
            prop_assert_eq!(fs::metadata(outer.path().join("x")).unwrap().nlink(), 1);
        }
    }

    #[test]
    fn only_some_files_are_asked_for_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path()).unwrap();
        for n in 100..300 {
            receiver.take(file(&format!("f{n}"))).unwrap();
        }
        assert_eq!(asked(&mut receiver).len(), AT_ONCE);
        receiver.take(data(7, "")).unwrap();
        assert_eq!(
            asked(&mut receiver),
            [(kind::REQUEST, u32::try_from(AT_ONCE).unwrap())]
        );
    }
}
