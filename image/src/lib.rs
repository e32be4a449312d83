//! Images: references, the registry client, the content store, the layer store, names, archives.
//!
//! It owns `content/`, `layers/` and `images/` below the root (DESIGN section 4). It never mounts
//! anything, never starts anything and knows no container: the engine tells it which images are in
//! use. What has its final name here was verified while it was written.
#![forbid(unsafe_code)]

mod content;
mod decode;
mod digest;
mod error;
mod layers;
mod progress;
mod reference;
mod tarwalk;
mod unpack;

pub use content::{BlobWriter, ContentStore};
pub use decode::Compression;
pub use digest::{DiffId, Digest};
pub use error::{BoxedCause, ErrorKind, ImageError};
pub use progress::{Outcome, Progress, Task};
pub use reference::Reference;
pub use tarwalk::{Entry, EntryKind, EntryPath, Segment, TarWalk};
pub use unpack::UnpackMode;
