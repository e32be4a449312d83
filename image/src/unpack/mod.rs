//! From a layer blob to a layer directory that overlayfs can mount (image-spec v1.1.1 `layer.md`).

mod attributes;
mod directories;
mod erofs;
mod fault;
mod pipe;
mod plain;
mod stream;
mod tree;
mod whiteout;

pub(crate) use erofs::{Written, archive_of, write_layer};
pub use plain::unpack_archive;
pub use stream::UnpackMode;
pub(crate) use stream::{LayerStream, Unpacked, unpack_layer};
pub(crate) use tree::{LayerTree, PendingLink, Skipped};
pub use whiteout::{is_opaque, is_whiteout};
