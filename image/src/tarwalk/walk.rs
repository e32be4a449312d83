//! From blocks to entries.

use std::io::{self, Read};

use tar::Header;

use super::field::{decimal, number, text, time};
use super::path::printable;
use super::pax::Records;
use super::sparse::{self, BodyMap, PaxMap, Segment};
use crate::error::ImageError;

/// The unit of everything in a tar archive.
const BLOCK: u64 = 512;

/// The longest extended header or long name: bounds what one entry can make us hold.
const MAX_EXTENDED: u64 = 1024 * 1024;

/// The most headers an archive may have. Images of real systems stay below a million.
const MAX_HEADERS: u64 = 8_000_000;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file. With a map its stored bytes are only the parts that the map names.
    File {
        /// The size of the file, holes included.
        size: u64,
        /// The parts that are stored; `None` when all are.
        sparse: Option<Vec<Segment>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A hard link to the file that another path of the archive names.
    Hardlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Extended attributes in order: name, value.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry. Its stored bytes are read from the [`TarWalk`] before the next entry is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path, as it stands in the archive.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds, nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Extended headers that stand before the entry they are about.
#[derive(Default)]
struct Pending {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Walks an uncompressed tar stream. As [`Read`] it gives the stored bytes of the current entry.
#[derive(Debug)]
pub struct TarWalk<R> {
    input: R,
    body: u64,
    padding: u64,
    headers: u64,
}

impl<R: Read> TarWalk<R> {
    /// Begins at the start of an archive.
    #[must_use]
    pub fn new(input: R) -> Self {
        Self {
            input,
            body: 0,
            padding: 0,
            headers: 0,
        }
    }

    /// The next entry, `None` after the last one.
    ///
    /// # Errors
    /// [`ImageError::InvalidArchive`] or [`ImageError::Entry`] when the bytes are no tar archive
    /// or one of its headers is malformed; [`ImageError::ReadStream`] when they cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut pending = Pending::default();
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size)
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| malformed("a size is no number"))?;
            match header.as_old().linkflag {
                [b'x'] => pending.records = self.records(size)?,
                // A global header is about all entries that follow; none of its keys is used.
                [b'g'] => drop(self.records(size)?),
                [b'L'] => pending.long_name = Some(self.long_text(size)?),
                [b'K'] => pending.long_link = Some(self.long_text(size)?),
                _ => return self.entry(&header, size, &pending).map(Some),
            }
        }
    }

    /// The stream, as far as it was read.
    pub(crate) fn get_ref(&self) -> &R {
        &self.input
    }

    /// Gives the stream back, to read what follows the archive's end.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn next_header(&mut self) -> Result<Option<Header>, ImageError> {
        self.skip_body()?;
        self.headers += 1;
        if self.headers > MAX_HEADERS {
            return Err(malformed("it has too many entries"));
        }
        let Some(header) = self.block()? else {
            return Ok(None);
        };
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return match self.block()? {
                Some(second) if second.as_bytes().iter().any(|byte| *byte != 0) => {
                    Err(malformed("a header follows a single block of zeros"))
                }
                _ => Ok(None),
            };
        }
        if !checksum_fits(&header) {
            return Err(malformed("the checksum of a header does not fit"));
        }
        Ok(Some(header))
    }

    /// A block, `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<Header>, ImageError> {
        let mut header = Header::new_old();
        let buffer = header.as_mut_bytes();
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(read_failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_failed(error)),
            }
        }
        Ok(Some(header))
    }

    fn need_block(&mut self) -> Result<Header, ImageError> {
        self.block()?
            .ok_or_else(|| read_failed(io::ErrorKind::UnexpectedEof.into()))
    }

    fn skip_body(&mut self) -> Result<(), ImageError> {
        let left = self.body + self.padding;
        (self.body, self.padding) = (0, 0);
        let skipped =
            io::copy(&mut self.input.by_ref().take(left), &mut io::sink()).map_err(read_failed)?;
        if skipped < left {
            return Err(read_failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn begin_body(&mut self, size: u64) -> Result<(), ImageError> {
        // So that body and padding together cannot overflow.
        if size > i64::MAX.unsigned_abs() {
            return Err(malformed("a size is too large"));
        }
        self.body = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(())
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        if size > MAX_EXTENDED {
            return Err(malformed("an extended header is longer than 1 MiB"));
        }
        self.begin_body(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(read_failed)?;
        Ok(bytes)
    }

    fn records(&mut self, size: u64) -> Result<Records, ImageError> {
        Records::parse(&self.extended(size)?)
            .ok_or_else(|| malformed("an extended header is malformed"))
    }

    fn long_text(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        Ok(text(&self.extended(size)?).to_vec())
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        pending: &Pending,
    ) -> Result<Entry, ImageError> {
        let records = &pending.records;
        let path = entry_path(header, pending);
        let refuse = |reason| ImageError::Entry {
            entry: printable(&path),
            reason,
        };
        let size = match records.get(b"size") {
            Some(size) => decimal(size).ok_or_else(|| refuse("its size is no number"))?,
            None => size,
        };
        let kind = match kind_flag(header, &path) {
            b'0' => self
                .begin_file(header, records, size)
                .map_err(|error| match error {
                    Fault::Rule(reason) => refuse(reason),
                    Fault::Stream(error) => error,
                })?,
            // The other kinds have no body, whatever their size field says.
            b'1' => EntryKind::Hardlink(link_target(header, pending)),
            b'2' => EntryKind::Symlink(link_target(header, pending)),
            b'3' => device(header)
                .map(|(major, minor)| EntryKind::CharDevice(major, minor))
                .ok_or_else(|| refuse("its device number is no number"))?,
            b'4' => device(header)
                .map(|(major, minor)| EntryKind::BlockDevice(major, minor))
                .ok_or_else(|| refuse("its device number is no number"))?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(refuse("its type is unknown")),
        };
        let (mode, uid, gid, mtime) = attributes(header, records).map_err(refuse)?;
        let xattrs = xattrs(records);
        Ok(Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        })
    }

    fn begin_file(
        &mut self,
        header: &Header,
        records: &Records,
        size: u64,
    ) -> Result<EntryKind, Fault> {
        let mut segments = Vec::new();
        let real_size;
        if header.as_old().linkflag == [b'S'] {
            real_size = self.old_sparse(header, &mut segments)?;
            self.begin_body(size)?;
        } else {
            self.begin_body(size)?;
            match sparse::pax_map(records)? {
                PaxMap::None => return Ok(EntryKind::File { size, sparse: None }),
                PaxMap::Records(map) => segments = map,
                PaxMap::InBody => segments = self.map_in_body()?,
            }
            let key = match records.get(b"GNU.sparse.realsize") {
                Some(size) => Some(size),
                None => records.get(b"GNU.sparse.size"),
            };
            real_size = key.and_then(decimal).ok_or("its sparse file has no size")?;
        }
        sparse::check(&segments, real_size, self.body)?;
        Ok(EntryKind::File {
            size: real_size,
            sparse: Some(segments),
        })
    }

    /// The map of the old GNU form: four pairs in the header, 21 in each extension block.
    fn old_sparse(&mut self, header: &Header, segments: &mut Vec<Segment>) -> Result<u64, Fault> {
        let bytes = header.as_bytes();
        sparse::push_old(bytes.get(386..482).unwrap_or_default(), segments)?;
        let mut extended = bytes.get(482) != Some(&0);
        let size = bytes
            .get(483..495)
            .and_then(number)
            .and_then(|size| u64::try_from(size).ok())
            .ok_or("its sparse file has no size")?;
        while extended {
            let block = self.need_block()?;
            let block = block.as_bytes();
            sparse::push_old(block.get(..504).unwrap_or_default(), segments)?;
            extended = block.get(504) != Some(&0);
            if segments.len() >= sparse::MAX_SEGMENTS {
                return Err(Fault::Rule("its sparse map is too long"));
            }
        }
        Ok(size)
    }

    fn map_in_body(&mut self) -> Result<Vec<Segment>, Fault> {
        let mut map = BodyMap::new();
        loop {
            if self.body < BLOCK {
                return Err(Fault::Rule("its sparse map is malformed"));
            }
            let block = self.need_block()?;
            self.body -= BLOCK;
            if map.take(block.as_bytes())? {
                return Ok(map.segments());
            }
        }
    }
}

impl<R: Read> Read for TarWalk<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.body == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.body)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self
            .input
            .read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.body -= count as u64;
        Ok(count)
    }
}

/// A rule that an entry breaks, or a failure of the stream.
enum Fault {
    Rule(&'static str),
    Stream(ImageError),
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Rule(reason)
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Stream(error)
    }
}

fn malformed(reason: &str) -> ImageError {
    ImageError::InvalidArchive {
        reason: reason.to_owned(),
    }
}

fn read_failed(source: io::Error) -> ImageError {
    ImageError::ReadStream {
        what: "the archive",
        source,
    }
}

fn checksum_fits(header: &Header) -> bool {
    let Some(expected) = number(&header.as_old().cksum) else {
        return false;
    };
    let bytes = header.as_bytes();
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in bytes.iter().enumerate() {
        // The checksum itself counts as blanks.
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        unsigned += i64::from(byte);
        // Some old archivers summed signed characters.
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}

fn kind_flag(header: &Header, path: &[u8]) -> u8 {
    match header.as_old().linkflag {
        // Before ustar a directory was a file whose name ends with a slash.
        [0] if path.ends_with(b"/") => b'5',
        [0 | b'0' | b'7' | b'S'] => b'0',
        [flag] => flag,
    }
}

fn entry_path(header: &Header, pending: &Pending) -> Vec<u8> {
    let records = &pending.records;
    if let Some(name) = &pending.long_name {
        return name.clone();
    }
    let from_records = match records.get(b"GNU.sparse.name") {
        Some(name) => Some(name),
        None => records.get(b"path"),
    };
    if let Some(name) = from_records {
        return name.to_vec();
    }
    let bytes = header.as_bytes();
    let name = text(&header.as_old().name);
    let is_star = bytes.ends_with(b"tar\0");
    let prefix = match bytes.get(257..263) {
        Some(b"ustar\0") if is_star => text(bytes.get(345..476).unwrap_or_default()),
        Some(b"ustar\0") => text(bytes.get(345..500).unwrap_or_default()),
        _ => &[],
    };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, name].join(&b'/')
}

fn link_target(header: &Header, pending: &Pending) -> Vec<u8> {
    if let Some(link) = &pending.long_link {
        return link.clone();
    }
    pending
        .records
        .get(b"linkpath")
        .unwrap_or_else(|| text(&header.as_old().linkname))
        .to_vec()
}

fn device(header: &Header) -> Option<(u32, u32)> {
    let bytes = header.as_bytes();
    let read = |field: Option<&[u8]>| u32::try_from(number(field?)?).ok();
    Some((read(bytes.get(329..337))?, read(bytes.get(337..345))?))
}

type Attributes = (u32, u32, u32, (i64, u32));

fn attributes(header: &Header, records: &Records) -> Result<Attributes, &'static str> {
    let old = header.as_old();
    let mode = number(&old.mode).ok_or("its mode is no number")?;
    let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
    let uid = id(records.get(b"uid"), &old.uid).ok_or("its owner is no user number")?;
    let gid = id(records.get(b"gid"), &old.gid).ok_or("its group is no group number")?;
    let mtime = match records.get(b"mtime") {
        Some(value) => time(value),
        None => number(&old.mtime).map(|seconds| (seconds, 0)),
    };
    Ok((mode, uid, gid, mtime.ok_or("its time is no number")?))
}

/// A user or group number. The largest one means "leave as it is" to `chown(2)` and is refused.
fn id(record: Option<&[u8]>, field: &[u8]) -> Option<u32> {
    let value = match record {
        Some(value) => decimal(value)?,
        None => u64::try_from(number(field)?).ok()?,
    };
    u32::try_from(value).ok().filter(|id| *id != u32::MAX)
}

fn xattrs(records: &Records) -> Xattrs {
    records
        .iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.")?;
            (!name.is_empty()).then(|| (name.to_vec(), value.to_vec()))
        })
        .collect()
}
