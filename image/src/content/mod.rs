//! The content store: blobs as they came, named by their digest. A name exists only for bytes that
//! were hashed on their way in, so a blob needs no lock and no second check.

#[cfg(target_os = "linux")]
mod built;
mod growth;
mod partial;
mod store;
#[cfg(not(target_os = "linux"))]
mod unbuilt;
mod writer;

pub(crate) use partial::{Begin, PartialBlob};
pub use store::ContentStore;
pub use writer::BlobWriter;
pub(crate) use writer::VerifiedBlob;
