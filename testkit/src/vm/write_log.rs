//! What a machine wrote to its disk, write by write, and the disks that a power cut could have left.
//!
//! The log is that of qemu's `blklogwrites` (the format of the kernel's `dm-log-writes`): a
//! superblock, then for every request a header and its data, in order. A disk has a cache: what was
//! written since the last flush may be there or not, each write for itself, unless it was forced.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const SECTOR: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;

const FLUSH: u64 = 1;
const FORCED: u64 = 2;
const DISCARD: u64 = 4;

/// The requests of a machine to its disk.
#[derive(Debug)]
pub struct WriteLog {
    log: File,
    requests: Vec<Request>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    flags: u64,
    /// Where on the disk, and how much.
    target: u64,
    length: u64,
    /// Where in the log its data are.
    data: u64,
}

impl Request {
    fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

impl WriteLog {
    /// Makes the file that a machine logs to.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create(path: &Path) {
        File::create(path).unwrap().set_len(4 << 30).unwrap();
    }

    /// Reads what a machine has logged.
    ///
    /// # Panics
    /// When it is no such log.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let mut log = File::open(path).unwrap();
        let mut superblock = [0; 28];
        log.read_exact(&mut superblock).unwrap();
        let number = |at: usize| u64::from_le_bytes(superblock[at..at + 8].try_into().unwrap());
        assert_eq!(number(0), MAGIC, "no log of writes");
        let mut requests = Vec::new();
        let mut at = SECTOR;
        for _ in 0..number(16) {
            let mut header = [0; 32];
            log.seek(SeekFrom::Start(at)).unwrap();
            log.read_exact(&mut header).unwrap();
            let field = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
            let request = Request {
                target: field(0) * SECTOR,
                length: field(8) * SECTOR,
                flags: field(16),
                data: at + SECTOR,
            };
            at += SECTOR;
            if !request.is(DISCARD) {
                at += request.length;
            }
            requests.push(request);
        }
        Self { log, requests }
    }

    /// How many requests there were: a power cut can come after each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Brings `disk`, which was as it is after `from` requests that all arrived, to what is certain
    /// after `cut`: everything that was flushed. Gives how many requests that are.
    ///
    /// # Panics
    /// When the disk cannot be written.
    pub fn write_certain(&self, disk: &File, from: usize, cut: usize) -> usize {
        let until = &self.requests[..cut];
        let flushed = until.iter().rposition(|request| request.is(FLUSH));
        let certain = flushed.map_or(0, |at| at + 1).max(from);
        for request in &self.requests[from..certain] {
            self.write(disk, request).unwrap();
        }
        certain
    }

    /// Writes those requests after `certain` and before `cut` that happened to arrive: `arrives` says
    /// which; forced ones always do.
    ///
    /// # Panics
    /// When the disk cannot be written.
    pub fn write_some(
        &self,
        disk: &File,
        certain: usize,
        cut: usize,
        mut arrives: impl FnMut() -> bool,
    ) {
        for request in &self.requests[certain..cut.max(certain)] {
            if arrives() || request.is(FORCED) {
                self.write(disk, request).unwrap();
            }
        }
    }

    fn write(&self, disk: &File, request: &Request) -> io::Result<()> {
        if request.is(DISCARD) {
            // A promise that nobody needs it, not a change.
            return Ok(());
        }
        let mut data = vec![0; usize::try_from(request.length).unwrap()];
        self.log.read_exact_at(&mut data, request.data)?;
        disk.write_all_at(&data, request.target)
    }
}
