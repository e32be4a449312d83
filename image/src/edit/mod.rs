//! Making images of images: recompressed, wrapped around a module, put together into an index.

mod convert;
mod index;
mod wrap;

pub use convert::ConvertOptions;
pub use index::{EntryChange, IndexEntry};
pub use wrap::WasmArtifact;
