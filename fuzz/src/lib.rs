//! What must hold for any bytes. Each function panics when it does not; none may panic otherwise,
//! run for ever or take much memory.

use std::fs;
use std::io::{self, Read};

use image::{Digest, Document, Entry, EntryKind, Platform, Reference, Store, TarWalk, UnpackMode};
use state::Layout;

pub mod seeds;

/// How much of a file's body is read: sizes are claims.
const MAX_BODY: u64 = 1 << 20;

/// Gives its bytes one at a time.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

fn entries(input: impl Read) -> Vec<Option<Entry>> {
    let mut walk = TarWalk::new(input);
    let mut entries = Vec::new();
    loop {
        match walk.next_entry() {
            Ok(Some(entry)) => {
                if let EntryKind::File { .. } = entry.kind {
                    drop(io::copy(&mut walk.by_ref().take(MAX_BODY), &mut io::sink()));
                }
                entries.push(Some(entry));
            }
            // An error ends the list in its own way.
            Err(_) => {
                entries.push(None);
                return entries;
            }
            Ok(None) => return entries,
        }
    }
}

/// A tar archive is read the same however its bytes come, and no entry is larger than the archive.
pub fn tar(bytes: &[u8]) {
    let whole = entries(bytes);
    assert!(whole.len() <= bytes.len() / 512 + 1);
    assert!(whole == entries(Drip(bytes)));
}

/// A manifest or index that is accepted is one of the two, whatever it was announced as, and its
/// digests have one spelling.
pub fn documents(bytes: &[u8]) {
    let Ok(document) = Document::parse(bytes, None) else {
        return;
    };
    let (index, manifest) = (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
    );
    let wrong = match document {
        Document::Index(_) => manifest,
        Document::Manifest(manifest) => {
            for layer in manifest.layers() {
                let text = layer.digest().to_string();
                assert_eq!(Digest::parse(&text).unwrap().to_string(), text);
            }
            index
        }
    };
    assert!(Document::parse(bytes, Some(wrong)).is_err());
}

/// A reference, a platform or a digest that is accepted is written as what is read again.
pub fn references(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        assert!(!reference.repository().contains(".."));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
}

/// An archive is loaded whole, or leaves nothing; and nothing outside the store changes.
pub fn archive(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let (root, run) = (dir.path().join("root"), dir.path().join("run"));
    let layout = Layout::open(root, run).unwrap();
    let store = Store::open(&layout, UnpackMode::default()).unwrap();
    let loaded = store.load(bytes, None, &());
    store.empty_trash().unwrap();
    let count = |dir: std::path::PathBuf| fs::read_dir(dir).unwrap().count();
    assert_eq!(count(layout.tmp()), 0);
    if loaded.is_err() {
        assert_eq!(count(layout.content()) + count(layout.layers()), 0);
        assert!(store.list().unwrap().is_empty());
    }
    assert_eq!(count(dir.path().to_path_buf()), 2);
}
