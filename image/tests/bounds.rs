//! How much memory hostile input can take: a test program of its own, because it looks at the
//! memory of the whole process.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::{self, Read};

use image::{ErrorKind, Store, TarWalk, UnpackMode};
use state::Layout;

/// What no input may make us hold.
const MAX_MEMORY: u64 = 256 * 1024 * 1024;

/// The most that this process ever held.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

fn header(path: &str, kind: tar::EntryType, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn store(dir: &tempfile::TempDir) -> (Layout, Store) {
    let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
    let store = Store::open(&layout, UnpackMode::default()).unwrap();
    (layout, store)
}

/// One test, so that nothing else counts.
#[test]
fn hostile_sizes_stay_within_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, store) = store(&dir);

    // An index of five gigabytes: refused after what a document may have.
    let size = 5_000_000_000;
    let head = header("index.json", tar::EntryType::Regular, size);
    let error = store
        .load(
            head.as_slice().chain(io::repeat(b' ').take(size)),
            None,
            &(),
        )
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");

    // Two hundred extended headers of a megabyte, one after another.
    let record = format!("1048576 comment={}\n", "x".repeat(1_048_576 - 17));
    let mut pax = header("h", tar::EntryType::XHeader, record.len() as u64);
    pax.extend_from_slice(record.as_bytes());
    pax.resize(pax.len().next_multiple_of(512), 0);
    pax.extend(header("f", tar::EntryType::Regular, 0));
    let mut walk = TarWalk::new(Repeat::new(pax, 200));
    let mut count = 0;
    while walk.next_entry().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 200);

    // A million entries.
    let file = header("x", tar::EntryType::Regular, 0);
    let many = Repeat::new(file, 1_000_000);
    let mut walk = TarWalk::new(many);
    let mut count = 0;
    while walk.next_entry().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 1_000_000);

    // A layer that is hundreds of times its size: what it unpacks to is on disk, not in memory.
    let body = 512 * 200_000;
    let bomb = header("zeros", tar::EntryType::Regular, body);
    let mut packed = flate2::read::GzEncoder::new(
        bomb.as_slice().chain(io::repeat(0).take(body)),
        flate2::Compression::fast(),
    );
    let options = image::ImportOptions::default();
    let mut small = Vec::new();
    packed.read_to_end(&mut small).unwrap();
    assert!(small.len() < 1_000_000);
    let id = store.import(&small[..], &options).unwrap();
    let image = store.resolve(&id.to_string(), None).unwrap();
    store.ensure_unpacked(&image, &()).unwrap();

    assert!(peak_memory() < MAX_MEMORY, "{}", peak_memory());
    store.empty_trash().unwrap();
    assert_eq!(std::fs::read_dir(layout.tmp()).unwrap().count(), 0);
}

/// The same bytes again and again.
struct Repeat {
    bytes: Vec<u8>,
    position: usize,
    left: usize,
}

impl Repeat {
    fn new(bytes: Vec<u8>, times: usize) -> Self {
        Self {
            bytes,
            position: 0,
            left: times,
        }
    }
}

impl Read for Repeat {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let rest = &self.bytes[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        if self.position == self.bytes.len() {
            self.position = 0;
            self.left -= 1;
        }
        Ok(count)
    }
}
