//! Images: references, the registry client, the content store, the layer store, names, archives.
//!
//! It owns `content/`, `layers/` and `images/` below the root (DESIGN section 4). It never starts
//! anything and knows no container: the engine tells it which images are in use. It mounts only
//! what it is asked to mount, and layers that are file systems themselves. What has its final name
//! here was verified while it was written.
//!
//! Where the system is not Linux there is no layer store: images are pulled, listed, made of modules
//! and removed, and [`Store::assemble`] makes one plain directory of an image's layers.
#![forbid(unsafe_code)]

mod archive;
mod auth;
#[cfg(target_os = "linux")]
mod build;
#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod commit;
mod config;
mod content;
mod decode;
mod digest;
mod document;
mod edit;
mod error;
mod events;
#[cfg(target_os = "linux")]
mod fixup;
#[cfg(target_os = "linux")]
mod form;
mod graph;
mod history;
#[cfg_attr(not(target_os = "linux"), path = "layers_elsewhere.rs")]
mod layers;
mod lease;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod lookup;
#[cfg(target_os = "linux")]
mod mounts;
mod names;
#[cfg(target_os = "linux")]
mod pack;
mod platform;
mod progress;
#[cfg(target_os = "linux")]
mod prune;
mod records;
mod reference;
mod registry;
mod remove;
#[cfg(target_os = "linux")]
mod stack;
mod store;
mod tarwalk;
#[cfg(target_os = "linux")]
mod tree;
mod unpack;
#[cfg(target_os = "linux")]
mod usage;

pub use archive::{ImportOptions, apply_change};
#[cfg(target_os = "linux")]
pub use archive::{Loaded, SaveOptions, write_tree};
pub use auth::{AuthConfig, CredentialFile, Credentials, Kept, Secret};
#[cfg(target_os = "linux")]
pub use build::{
    BuildSession, BuiltLayer, LayerDraft, LayoutReference, NewImage, pack_directory,
    unpack_context, unpack_directory,
};
#[cfg(target_os = "linux")]
pub use check::{Damage, Repair};
#[cfg(target_os = "linux")]
pub use commit::CommitOptions;
pub use config::{Healthcheck, HistoryEntry, ImageConfig, RootFs, RunConfig};
pub use content::{BlobWriter, ContentStore};
pub use decode::{Compression, compressed, decoder, decompressed};
pub use digest::{DiffId, Digest};
pub use document::{Descriptor, Document, MAX_DOCUMENT};
pub use edit::{ConvertOptions, EntryChange, IndexEntry, WasmArtifact};
pub use error::{BoxedCause, ErrorKind, ImageError};
#[cfg(target_os = "linux")]
pub use form::LayerForm;
pub use history::HistoryStep;
#[cfg(target_os = "linux")]
pub use lookup::{Found, LayeredRoot};
#[cfg(target_os = "linux")]
pub use pack::{TarWriter, Visited, names, pack_layer, walk, walk_tree};
pub use platform::Platform;
pub use progress::{Outcome, Progress, Task};
#[cfg(target_os = "linux")]
pub use prune::{PruneOptions, Pruned};
pub use reference::Reference;
pub use registry::{
    Asked, Mirror, PlatformChoice, Proxies, Pulled, Pushed, Referrer, RegistryError,
    RegistryOptions, RemoteFile, SearchResult, Validator, check_credentials, fetch_changed,
    fetch_manifest, fetch_url, name_of_url, pull, referrers, search, tags,
};
#[cfg(target_os = "linux")]
pub use registry::{Bundle, RemoteBundle, Statement};
pub use remove::{Force, Removed};
pub use store::{Image, ImageSummary, NamedImages, Store};
pub use tarwalk::{Entry, EntryKind, EntryPath, Segment, TarWalk, Xattrs};
#[cfg(target_os = "linux")]
pub use tree::{ChangeKind, PathChange};
pub use unpack::{AssembledRoot, UnpackMode};
#[cfg(target_os = "linux")]
pub use unpack::{is_opaque, is_whiteout, unpack_archive};
#[cfg(target_os = "linux")]
pub use usage::{ImageUsage, Usage};
