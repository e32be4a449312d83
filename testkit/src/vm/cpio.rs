//! The archive that the kernel unpacks as its first root file system: `cpio`, "newc"
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeMap;
use std::path::Path;

/// Files by path, without a leading slash; directories before what is in them.
#[derive(Debug, Default)]
pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    bytes: Vec<u8>,
}

impl Archive {
    pub(super) fn directory(&mut self, path: &str) {
        self.put(path, 0o040_755, (0, 0), Vec::new());
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8], mode: u32) {
        self.put(path, 0o100_000 | mode, (0, 0), bytes.to_vec());
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.put(path, 0o120_777, (0, 0), target.as_bytes().to_vec());
    }

    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.put(path, 0o020_600, (major, minor), Vec::new());
    }

    fn put(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: Vec<u8>) {
        let path = path.trim_start_matches('/');
        for parent in Path::new(path).ancestors().skip(1) {
            let parent = parent.to_str().unwrap();
            if !parent.is_empty() && !self.entries.contains_key(parent) {
                self.directory(parent);
            }
        }
        let entry = Entry {
            mode,
            device,
            bytes,
        };
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive's bytes.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            append(&mut out, number, path, entry);
        }
        let trailer = Entry {
            mode: 0,
            device: (0, 0),
            bytes: Vec::new(),
        };
        append(&mut out, 0, "TRAILER!!!", &trailer);
        out
    }
}

fn append(out: &mut Vec<u8>, number: u32, path: &str, entry: &Entry) {
    let (major, minor) = entry.device;
    let size = u32::try_from(entry.bytes.len()).unwrap();
    let name_size = u32::try_from(path.len() + 1).unwrap();
    out.extend_from_slice(b"070701");
    // ino, mode, uid, gid, nlink, mtime, filesize, device of the file, device of a node, namesize, check
    for field in [
        number, entry.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
    ] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(&entry.bytes);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_holds_parents_first_and_ends_with_its_trailer() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", b"text", 0o644);
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).unwrap();
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert!(text.contains("text") && text.contains("TRAILER!!!"));
        assert_eq!(text.len() % 4, 0);
    }
}
