//! The tar walker against a second reader, and against noise.

use std::io::Read;

use image::{EntryKind, TarWalk};
use proptest::prelude::*;

use crate::host::Tar;

/// One entry as both readers see it: path, type flag, link target, content.
type Seen = (Vec<u8>, u8, Vec<u8>, Vec<u8>);

fn walked(bytes: &[u8]) -> Result<Vec<Seen>, image::ImageError> {
    let mut walk = TarWalk::new(bytes);
    let mut seen = Vec::new();
    while let Some(entry) = walk.next_entry()? {
        let mut content = Vec::new();
        let read = walk.read_to_end(&mut content);
        read.map_err(|source| image::ImageError::ReadStream {
            what: "the archive",
            source,
        })?;
        let (flag, link) = match entry.kind {
            EntryKind::File { .. } => (b'0', Vec::new()),
            EntryKind::Hardlink(target) => (b'1', target),
            EntryKind::Symlink(target) => (b'2', target),
            EntryKind::CharDevice(..) => (b'3', Vec::new()),
            EntryKind::BlockDevice(..) => (b'4', Vec::new()),
            EntryKind::Directory => (b'5', Vec::new()),
            EntryKind::Fifo => (b'6', Vec::new()),
        };
        seen.push((entry.path, flag, link, content));
    }
    Ok(seen)
}

fn second_reader(bytes: &[u8]) -> Vec<Seen> {
    let mut archive = tar::Archive::new(bytes);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let link = entry.link_name_bytes().unwrap_or_default().into_owned();
            let flag = entry.header().entry_type().as_byte();
            (entry.path_bytes().into_owned(), flag, link, content)
        })
        .collect()
}

#[derive(Debug, Clone)]
struct Made {
    path: String,
    kind: u8,
    link: String,
    content: Vec<u8>,
    form: u8,
}

fn made() -> impl Strategy<Value = Made> {
    let path = "[a-z]{1,8}(/[a-zA-Z0-9._-]{1,60}){0,5}";
    let content = prop::collection::vec(any::<u8>(), 0..1500);
    (path, 0..3_u8, "[a-z/]{1,150}", content, 0..3_u8).prop_map(
        |(path, kind, link, content, form)| Made {
            path,
            kind,
            link,
            content,
            form,
        },
    )
}

/// Writes with the three ways that archivers know for long names.
fn archive(entries: &[Made]) -> Vec<u8> {
    let mut tar = Tar::new();
    for made in entries {
        let (mut path, mut link) = (made.path.as_str(), made.link.as_str());
        if made.form == 1 {
            tar = tar.pax(&[("path", path.as_bytes()), ("linkpath", link.as_bytes())]);
            (path, link) = ("short", "short");
        } else if made.form == 2 {
            tar = tar
                .extended(b'L', format!("{path}\0").as_bytes())
                .extended(b'K', format!("{link}\0").as_bytes());
            (path, link) = ("short", "short");
        }
        (path, link) = (&path[..path.len().min(99)], &link[..link.len().min(99)]);
        tar = match made.kind {
            0 => tar.file(path, &made.content),
            1 => tar.symlink(path, link),
            _ => tar.dir(path, 0o755),
        };
    }
    tar.end()
}

proptest! {
    #[test]
    fn walk_of_any_archive_is_as_a_second_reader_sees_it(
        entries in prop::collection::vec(made(), 0..12)
    ) {
        let bytes = archive(&entries);
        let ours = walked(&bytes).unwrap();
        let mut theirs = second_reader(&bytes);
        // The other reader also gives links to what has none.
        for seen in &mut theirs {
            if seen.1 != b'2' && seen.1 != b'1' {
                seen.2.clear();
            }
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn walk_of_damaged_archive_ends_without_panic(
        entries in prop::collection::vec(made(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = archive(&entries);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        drop(walked(&bytes));
    }

    #[test]
    fn walk_of_noise_ends_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        drop(walked(&bytes));
    }
}
