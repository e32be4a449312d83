//! From layer blobs to files (image-spec v1.1.1 `layer.md`): to a layer directory that overlayfs can
//! mount, and, on every system, to one plain directory with all layers of an image.

mod assemble;
#[cfg(target_os = "linux")]
mod attributes;
#[cfg(target_os = "linux")]
mod directories;
#[cfg(target_os = "linux")]
mod erofs;
mod fault;
#[cfg(target_os = "linux")]
mod layer;
#[cfg(target_os = "linux")]
mod marks;
mod pipe;
#[cfg(target_os = "linux")]
mod plain;
mod stream;
#[cfg(target_os = "linux")]
mod tree;
mod whiteout;

pub use assemble::AssembledRoot;
#[cfg(target_os = "linux")]
pub(crate) use erofs::{Written, archive_of, write_layer};
#[cfg(target_os = "linux")]
pub(crate) use layer::{Unpacked, unpack_layer};
#[cfg(target_os = "linux")]
pub use marks::{is_opaque, is_whiteout};
#[cfg(target_os = "linux")]
pub use plain::unpack_archive;
#[cfg(target_os = "linux")]
pub(crate) use stream::LayerStream;
pub use stream::UnpackMode;
#[cfg(target_os = "linux")]
pub(crate) use tree::{LayerTree, PendingLink, Skipped};
