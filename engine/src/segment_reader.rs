//! Rotated files from a place on: in their order, by their numbers, so that nothing is lost or doubled
//! when another one is begun or one is compressed meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use state::{Segment, Segments};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// A record of some bytes, unless it is damaged, and how many of them it fills; `None` when it is not
/// complete.
pub(crate) type Decoded<T> = Option<(Option<T>, usize)>;

/// Reads rotated files.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    pub(crate) segments: Segments,
    dir: PathBuf,
    current: Option<Current>,
    /// The number of the file that comes next; `None` before the first.
    next: Option<u64>,
    lost: u64,
    damaged: u64,
    watch: Option<OwnedFd>,
}

/// The file that is being read.
struct Current {
    number: u64,
    source: Box<dyn Read>,
    buffer: Vec<u8>,
    start: usize,
    /// A newer one was seen, so that nothing more is written to it.
    is_complete: bool,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// At the beginning of `name` in `dir`.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        Self::over(Segments::new(dir, name), dir)
    }

    /// At the beginning of `segments`, which are in `dir`.
    pub(crate) fn over(segments: Segments, dir: &Path) -> Self {
        Self {
            segments,
            dir: dir.to_path_buf(),
            current: None,
            next: None,
            lost: 0,
            damaged: 0,
            watch: None,
        }
    }

    /// The next record; `None` when there is none for now.
    pub(crate) fn next<T>(
        &mut self,
        decode: impl Fn(&[u8]) -> Decoded<T>,
    ) -> io::Result<Option<T>> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            let rest = current.buffer.get(current.start..).unwrap_or_default();
            if let Some((record, length)) = decode(rest) {
                current.start += length;
                match record {
                    Some(record) => return Ok(Some(record)),
                    None => self.damaged += 1,
                }
                continue;
            }
            if current.fill()? > 0 {
                continue;
            }
            if current.is_complete {
                self.next = Some(current.number + 1);
                self.current = None;
                continue;
            }
            let number = current.number;
            if self.segments.list()?.iter().all(|s| s.number <= number) {
                return Ok(None);
            }
            // What was written to it before the newer one was made is read now.
            current.is_complete = true;
        }
    }

    /// Opens the oldest file that was not read yet.
    fn open_next(&mut self) -> io::Result<bool> {
        let wanted = self.next.unwrap_or(0);
        loop {
            let segments = self.segments.list()?;
            let Some(segment) = segments.iter().find(|s| s.number >= wanted) else {
                return Ok(false);
            };
            let source = match self.open(*segment) {
                // It was removed in this moment: another one is the oldest.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if self.next.is_some() {
                self.lost += segment.number - wanted;
            }
            self.current = Some(Current {
                number: segment.number,
                source,
                buffer: Vec::new(),
                start: 0,
                is_complete: false,
            });
            return Ok(true);
        }
    }

    pub(crate) fn open(&self, segment: Segment) -> io::Result<Box<dyn Read>> {
        match File::open(self.segments.file(segment.number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return Ok(Box::new(other?)),
        }
        let file = File::open(self.segments.compressed_file(segment.number))?;
        Ok(Box::new(MultiGzDecoder::new(file)))
    }

    /// Goes to a place: a file by its number, and so many bytes of its records.
    pub(crate) fn seek(&mut self, segment: Segment, offset: u64) -> io::Result<()> {
        let source: Box<dyn Read> = match File::open(self.segments.file(segment.number)) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset))?;
                Box::new(file)
            }
            Err(_) => {
                let mut source = self.open(segment)?;
                io::copy(&mut source.by_ref().take(offset), &mut io::sink())?;
                source
            }
        };
        self.next = Some(segment.number);
        self.current = Some(Current {
            number: segment.number,
            source,
            buffer: Vec::new(),
            start: 0,
            is_complete: false,
        });
        Ok(())
    }

    /// Passes over files that were last written to before `time`, in nanoseconds since 1970. Called
    /// before anything is read.
    pub(crate) fn skip_before(&mut self, time: i64) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        for segment in self.segments.list()? {
            // A compressed file's own time is that of its compression, which is later.
            let Ok(metadata) = std::fs::metadata(self.segments.file(segment.number)) else {
                continue;
            };
            let written = metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec());
            if written >= time {
                self.next = Some(segment.number);
                return Ok(());
            }
        }
        self.next = self.segments.list()?.last().map(|newest| newest.number);
        Ok(())
    }

    /// How many files were removed before they could be read, since the last call.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// How many records were damaged.
    #[must_use]
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Waits until something is written to the log or the container's state changes, at most
    /// `timeout`. Called for the first time it returns at once.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let Some(watch) = &self.watch else {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let watch = inotify::init(flags)?;
            let events = inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::MOVE_SELF;
            match inotify::add_watch(&watch, &self.dir, events) {
                // The container was removed.
                Ok(_) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.watch = Some(watch);
            return Ok(());
        };
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        // Interrupted: the caller looks again.
        let _interrupted = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout));
        let mut buffer = [0; 4096];
        while rustix::io::read(watch, &mut buffer).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

impl Current {
    /// Reads more; how much.
    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        let read = loop {
            let free = self.buffer.get_mut(before..).unwrap_or_default();
            match self.source.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }
}
