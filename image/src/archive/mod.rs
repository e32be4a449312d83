//! Archives of images: OCI layouts (image-spec v1.1.1 `image-layout.md`) as tar and as directory,
//! Docker's `save` format, and plain root filesystems.

mod change;
#[cfg(target_os = "linux")]
mod docker;
mod import;
#[cfg(target_os = "linux")]
mod intake;
#[cfg(target_os = "linux")]
mod load;
mod manifest;
#[cfg(target_os = "linux")]
mod save;
#[cfg(target_os = "linux")]
mod settle;
#[cfg(target_os = "linux")]
mod tree;

pub use change::apply_change;
pub use import::ImportOptions;
#[cfg(target_os = "linux")]
pub use load::Loaded;
#[cfg(target_os = "linux")]
pub(crate) use load::{NAME_ANNOTATION, REF_ANNOTATION};
pub(crate) use manifest::put_manifest;
#[cfg(target_os = "linux")]
pub use save::SaveOptions;
#[cfg(target_os = "linux")]
pub use tree::write_tree;
