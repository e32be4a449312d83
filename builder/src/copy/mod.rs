//! COPY and ADD: what is copied ([`select`]), and where it goes ([`place`]).
//!
//! Files are never written into a mounted file system: a layer is put together beside the layers below,
//! which are only looked at, to find out what a destination means there.

mod mode;
mod place;
mod select;

pub(crate) use mode::Chmod;
pub(crate) use place::{Attributes, Placer, Refusal};
pub(crate) use select::{NotPicked, Picked, Selection, select};

use std::io;

use image::Digest;
use sha2::{Digest as _, Sha256};

use crate::stamps::{self, Stamps};
use crate::tree::{NodeKind, Tree};

/// A digest of everything that is picked: names, types, modes, owners, links and contents, no times.
pub(crate) fn content_digest(
    tree: &Tree,
    picked: &[Picked],
    stamps: Option<&Stamps>,
) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for one in picked {
        field(b"source");
        field(&one.name);
        field(&one.prefix);
        for item in &one.items {
            let node = &item.node;
            field(&item.relative);
            field(&node.mode.to_le_bytes());
            field(&node.uid.to_le_bytes());
            field(&node.gid.to_le_bytes());
            match &node.kind {
                NodeKind::Directory => field(b"d"),
                NodeKind::Symlink(target) => {
                    field(b"l");
                    field(target);
                }
                NodeKind::Fifo => field(b"p"),
                NodeKind::Socket => field(b"s"),
                NodeKind::Device(block, major, minor) => {
                    field(if *block { b"b" } else { b"c" });
                    field(&major.to_le_bytes());
                    field(&minor.to_le_bytes());
                }
                NodeKind::File => {
                    field(b"f");
                    let open = || tree.open(&item.source);
                    let digest = match (stamps, &node.stamp) {
                        (Some(stamps), Some(stamp)) => stamps.hash(&item.source, stamp, open),
                        _ => open().and_then(stamps::hash),
                    };
                    let digest = digest.map_err(|error| about(&item.source, &error))?;
                    field(digest.hex().as_bytes());
                    if matches!(tree, Tree::Layers(_)) {
                        for (name, value) in tree.xattrs(&tree.open(&item.source)?)? {
                            field(&name);
                            field(&value);
                        }
                    }
                }
            }
        }
    }
    Ok(Digest::from_hasher(hasher))
}

/// Says which file an error is about.
pub(crate) fn about(path: &[u8], error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("`{}`: {error}", String::from_utf8_lossy(path)),
    )
}
