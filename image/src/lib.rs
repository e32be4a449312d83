//! Images: references, the registry client, the content store, the layer store, names, archives.
//!
//! It owns `content/`, `layers/` and `images/` below the root (DESIGN section 4). It never mounts
//! anything, never starts anything and knows no container: the engine tells it which images are in
//! use. What has its final name here was verified while it was written.
#![forbid(unsafe_code)]

mod content;
mod digest;
mod error;

pub use content::{BlobWriter, ContentStore};
pub use digest::{DiffId, Digest};
pub use error::{BoxedCause, ErrorKind, ImageError};
