//! Writing tar archives: ustar headers, and extended ones (pax, POSIX.1-2001) for what these cannot
//! hold: long paths, large numbers, fractions of seconds, extended attributes.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::tarwalk::{Entry, EntryKind};

const BLOCK: usize = 512;

/// The longest path or link target of a ustar header.
const MAX_NAME: usize = 100;

/// The largest owner and the largest size (octal digits of their fields).
const MAX_ID: u32 = 0o777_7777;
const MAX_SIZE: u64 = 0o777_7777_7777;

/// Writes a tar archive.
#[derive(Debug)]
pub struct TarWriter<W> {
    output: W,
}

impl<W: Write> TarWriter<W> {
    /// Begins an archive.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes one entry; of a regular file `body` gives exactly as many bytes as its size says, and
    /// all of them: a map of stored parts is not written.
    ///
    /// # Errors
    /// When the archive cannot be written, or the body ends early: the file was cut meanwhile.
    pub fn put(&mut self, entry: &Entry, body: &mut dyn Read) -> io::Result<()> {
        let mut header = header(entry)?;
        let records = records(entry, &mut header);
        if !records.is_empty() {
            self.extended(entry, &records)?;
        }
        header.set_cksum();
        self.output.write_all(header.as_bytes())?;
        if let EntryKind::File { size, .. } = entry.kind {
            let copied = io::copy(&mut body.take(size), &mut self.output)?;
            if copied < size {
                let text = "the file was cut while it was read";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            self.pad(size)?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn extended(&mut self, entry: &Entry, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        let name = entry
            .path
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        let mut path = b"PaxHeaders.0/".to_vec();
        path.extend(name.iter().take(MAX_NAME - path.len()));
        put_name(&mut header, &path);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.output.write_all(header.as_bytes())?;
        self.output.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over > 0 {
            let zeros = [0; BLOCK];
            self.output
                .write_all(zeros.get(over..).unwrap_or_default())?;
        }
        Ok(())
    }
}

fn header(entry: &Entry) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        EntryKind::File { .. } => EntryType::Regular,
        EntryKind::Directory => EntryType::Directory,
        EntryKind::Symlink(_) => EntryType::Symlink,
        EntryKind::Hardlink(_) => EntryType::Link,
        EntryKind::CharDevice(..) => EntryType::Char,
        EntryKind::BlockDevice(..) => EntryType::Block,
        EntryKind::Fifo => EntryType::Fifo,
    });
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(u64::from(entry.uid.min(MAX_ID)));
    header.set_gid(u64::from(entry.gid.min(MAX_ID)));
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0).min(MAX_SIZE));
    header.set_size(match entry.kind {
        EntryKind::File { size, .. } => size.min(MAX_SIZE),
        _ => 0,
    });
    if let EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) = entry.kind {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    Ok(header)
}

fn put_name(header: &mut Header, name: &[u8]) {
    let field = &mut header.as_old_mut().name;
    for (to, from) in field.iter_mut().zip(name) {
        *to = *from;
    }
}

fn put_link(header: &mut Header, target: &[u8]) {
    let field = &mut header.as_old_mut().linkname;
    for (to, from) in field.iter_mut().zip(target) {
        *to = *from;
    }
}

/// Puts the names into the header, and what it cannot hold into records.
fn records(entry: &Entry, header: &mut Header) -> Vec<u8> {
    let mut records = Vec::new();
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    if path.len() > MAX_NAME {
        record(&mut records, b"path", &path);
    }
    put_name(header, &path);
    if let EntryKind::Symlink(target) | EntryKind::Hardlink(target) = &entry.kind {
        if target.len() > MAX_NAME {
            record(&mut records, b"linkpath", target);
        }
        put_link(header, target);
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > MAX_ID {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if let EntryKind::File { size, .. } = entry.kind
        && size > MAX_SIZE
    {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds > 0 || seconds < 0 {
        record(
            &mut records,
            b"mtime",
            time(seconds, nanoseconds).as_bytes(),
        );
    }
    for (name, value) in &entry.xattrs {
        // A record's key ends at its first equals sign.
        if !name.contains(&b'=') {
            let key = [b"SCHILY.xattr.", name.as_slice()].concat();
            record(&mut records, &key, value);
        }
    }
    records
}

/// Seconds with a fraction; one before 1970 is counted towards it.
fn time(seconds: i64, nanoseconds: u32) -> String {
    let text = match (seconds < 0, nanoseconds) {
        (_, 0) => return seconds.to_string(),
        (true, _) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarwalk::TarWalk;

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 4_000_000_000,
            mtime: (1_700_000_000, 123_000_000),
            xattrs: vec![(b"user.k".to_vec(), b"a\n\0=b".to_vec())],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = [b"d/".repeat(80), b"name".to_vec()].concat();
        let bytes = b"hello".as_slice();
        let file = EntryKind::File {
            size: 5,
            sparse: None,
        };
        let entries = [
            entry(b"dir/", EntryKind::Directory),
            entry(&long, file),
            entry(b"link", EntryKind::Symlink(long.clone())),
            entry(b"hard", EntryKind::Hardlink(b"dir/x".to_vec())),
            entry(b"null", EntryKind::CharDevice(1, 3)),
            entry(b"pipe", EntryKind::Fifo),
            Entry {
                mtime: (-2, 250_000_000),
                ..entry(b"old", EntryKind::Symlink(b"x".to_vec()))
            },
        ];
        let mut writer = TarWriter::new(Vec::new());
        for entry in &entries {
            writer.put(entry, &mut &*bytes).unwrap();
        }
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let mut walk = TarWalk::new(archive.as_slice());
        for entry in &entries {
            let read = walk.next_entry().unwrap().unwrap();
            let mut expected = entry.clone();
            // A trailing slash says directory and is no part of the path.
            if expected.path == b"dir/" && read.path == b"dir" {
                expected.path = b"dir".to_vec();
            }
            assert_eq!(read, expected);
        }
        assert!(walk.next_entry().unwrap().is_none());
    }

    #[test]
    fn body_that_ends_early_is_an_error() {
        let kind = EntryKind::File {
            size: 9,
            sparse: None,
        };
        let error = TarWriter::new(Vec::new())
            .put(&entry(b"f", kind), &mut b"short".as_slice())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn record_counts_its_own_length() {
        let mut records = Vec::new();
        record(&mut records, b"k", b"v");
        assert_eq!(records, b"6 k=v\n");
        let mut records = Vec::new();
        record(&mut records, b"key", &[b'x'; 91]);
        assert!(records.starts_with(b"99 key="), "{records:?}");
        assert_eq!(records.len(), 99);
        let mut records = Vec::new();
        record(&mut records, b"key", &[b'x'; 92]);
        assert_eq!(records.len(), 101);
    }
}
