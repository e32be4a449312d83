//! Which runtime an image gets: decided from bytes and config, never from names.
//!
//! Wasm reaches registries in many layouts, and none of them agrees with another on the config
//! type, the layer type or the platform. [`choose`] knows them all and is a pure function of the
//! manifest, the config and the first bytes of the entrypoint. Its answer names the fact that
//! decided, which `ketch run --explain` prints.

mod choice;
mod choose;
mod header;
mod names;
mod platform;

pub use choice::{
    Choice, ManifestFacts, Reason, RuntimeKind, RuntimeOverride, Unsupported, WasmSource,
};
pub use choose::{choose, choose_file};
pub use header::{BinaryKind, Entrypoint, HEADER_LEN, binary_kind};
pub use names::{annotation, is_wasm_layer, media_type};
pub use platform::{is_wasm_platform, normalise_platform};

#[cfg(test)]
mod tests;
