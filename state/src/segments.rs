//! Append-only files that are rotated: numbered segments, of which the one with the highest number
//! is written to. A segment never changes its number, so a place in it (number and offset) means the
//! same for ever, whatever is rotated, compressed or removed meanwhile.
//!
//! ```text
//! NAME        a link to the newest segment
//! NAME.3      the newest segment
//! NAME.2.gz   an older one, compressed
//! ```
//!
//! A segment is complete when there is one with a higher number.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sys::durable;

/// A name in a directory, and its segments.
#[derive(Debug, Clone)]
pub struct Segments {
    dir: PathBuf,
    name: String,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its number, from 1 on.
    pub number: u64,
    /// Its file is compressed with gzip.
    pub is_compressed: bool,
}

impl Segments {
    /// The segments of `name` in `dir`.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self {
            dir: dir.to_path_buf(),
            name: name.to_owned(),
        }
    }

    /// The link to the newest segment.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// The file of a segment that is not compressed.
    #[must_use]
    pub fn file(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}.{number}", self.name))
    }

    /// The file of a compressed segment.
    #[must_use]
    pub fn compressed_file(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}.{number}.gz", self.name))
    }

    /// What there is, the oldest first. One that is being compressed counts once.
    ///
    /// # Errors
    /// When the directory cannot be read; one that is absent has no segment.
    pub fn list(&self) -> io::Result<Vec<Segment>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(&self.name));
            let Some(rest) = rest.and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let plain = rest.strip_suffix(".gz");
            if let Ok(number) = plain.unwrap_or(rest).parse() {
                found.push(Segment {
                    number,
                    is_compressed: plain.is_some(),
                });
            }
        }
        found.sort_unstable();
        // Uncompressed before compressed: the first of two is complete for certain.
        found.dedup_by_key(|segment| segment.number);
        Ok(found)
    }

    /// Opens the newest segment to be appended to, and makes the first when there is none.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn open_newest(&self) -> io::Result<(u64, File)> {
        let Some(newest) = self.list()?.pop() else {
            return Ok((1, self.create(1)?));
        };
        if newest.is_compressed {
            let number = newest.number + 1;
            return Ok((number, self.create(number)?));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(self.file(newest.number))?;
        end_last_line(&mut file)?;
        // A crash between the two steps of `create` leaves the link behind.
        self.point_to(newest.number)?;
        Ok((newest.number, file))
    }

    /// Makes a segment, to be appended to; the one before it is complete.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    pub fn create(&self, number: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options
            .append(true)
            .create_new(true)
            .open(self.file(number))?;
        self.point_to(number)?;
        Ok(file)
    }

    fn point_to(&self, number: u64) -> io::Result<()> {
        durable::link_over(&self.file(number), &self.link())
    }

    /// Removes the oldest segments and keeps `count` of them, the newest included.
    ///
    /// # Errors
    /// The first that could not be removed, after the others were tried.
    pub fn keep(&self, count: u32) -> io::Result<()> {
        let segments = self.list()?;
        let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
        let surplus = segments.len().saturating_sub(count);
        let mut result = Ok(());
        for segment in segments.iter().take(surplus) {
            for file in [
                self.file(segment.number),
                self.compressed_file(segment.number),
            ] {
                let removed = durable::remove_tree(&file);
                if result.is_ok() {
                    result = removed;
                }
            }
        }
        result
    }
}

/// A writer that was killed may have left half a line, which the next one must not go on with.
fn end_last_line(file: &mut File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if length > 0 {
        sys::file::read_exact_at(file, &mut last, length - 1)?;
    }
    if last == [b'\n'] {
        return Ok(());
    }
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_made_in_order_and_the_link_follows() {
        let dir = tempfile::tempdir().unwrap();
        let log = Segments::new(dir.path(), "container.log");
        let (number, mut file) = log.open_newest().unwrap();
        file.write_all(b"one\n").unwrap();
        assert_eq!(
            (number, fs::read(log.link()).unwrap()),
            (1, b"one\n".into())
        );
        log.create(2).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(fs::read(log.link()).unwrap(), b"two\n");
        assert_eq!(log.open_newest().unwrap().0, 2);
        log.create(3).unwrap();
        log.keep(2).unwrap();
        let numbers: Vec<u64> = log.list().unwrap().iter().map(|s| s.number).collect();
        assert_eq!(numbers, [2, 3]);
        assert!(log.create(3).is_err());
    }

    #[test]
    fn half_a_line_is_ended_before_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = Segments::new(dir.path(), "log");
        log.create(1).unwrap().write_all(b"whole\nhal").unwrap();
        let (_, mut file) = log.open_newest().unwrap();
        file.write_all(b"next\n").unwrap();
        assert_eq!(fs::read(log.file(1)).unwrap(), b"whole\nhal\nnext\n");
    }

    #[test]
    fn compressed_segment_beside_its_source_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = Segments::new(dir.path(), "log");
        drop(log.create(1).unwrap());
        drop(log.create(2).unwrap());
        drop(File::create(log.compressed_file(1)).unwrap());
        let segments = log.list().unwrap();
        assert_eq!(segments.len(), 2);
        assert!(!segments[0].is_compressed);
        assert!(log.list().unwrap().iter().all(|s| s.number < 3));
    }
}
