//! Archives of images: OCI layouts (image-spec v1.1.1 `image-layout.md`) as tar and as directory,
//! Docker's `save` format, and plain root filesystems.

mod change;
mod docker;
mod import;
mod intake;
mod load;
mod save;
mod settle;
mod tree;

pub use change::apply_change;
pub(crate) use docker::put_manifest;
pub use import::ImportOptions;
pub use load::Loaded;
pub(crate) use load::{NAME_ANNOTATION, REF_ANNOTATION};
pub use save::SaveOptions;
pub use tree::write_tree;
