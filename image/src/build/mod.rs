//! Layers and images that are made here: the builder's side of the store.
//!
//! A layer is made as the directory that overlayfs stacks. Its archive, which gives it its diff ID, is
//! a function of that directory ([`pack`]): it is hashed and thrown away, and made again when somebody
//! wants the blob ([`crate::ContentStore`]).

mod beside;
mod compose;
mod layout;
mod pack;
mod pins;
mod session;

pub use compose::NewImage;
pub use layout::LayoutReference;
pub(crate) use pack::{ArchiveRecord, archive_record_path, pack};
pub use session::{
    BuildSession, BuiltLayer, LayerDraft, pack_directory, unpack_context, unpack_directory,
};
