//! Images: references, the registry client, the content store, the layer store, names, archives.
//!
//! It owns `content/`, `layers/` and `images/` below the root (DESIGN section 4). It never starts
//! anything and knows no container: the engine tells it which images are in use. It mounts only
//! what it is asked to mount, and layers that are file systems themselves. What has its final name
//! here was verified while it was written.
#![forbid(unsafe_code)]

mod archive;
mod auth;
mod build;
mod check;
mod commit;
mod config;
mod content;
mod decode;
mod digest;
mod document;
mod edit;
mod error;
mod events;
mod fixup;
mod form;
mod graph;
mod history;
mod layers;
mod lease;
mod links;
mod lookup;
mod mounts;
mod names;
mod pack;
mod platform;
mod progress;
mod prune;
mod records;
mod reference;
mod registry;
mod remove;
mod store;
mod tarwalk;
mod tree;
mod unpack;
mod usage;

pub use archive::{ImportOptions, Loaded, SaveOptions, apply_change, write_tree};
pub use auth::{AuthConfig, CredentialFile, Credentials, Kept, Secret};
pub use build::{
    BuildSession, BuiltLayer, LayerDraft, LayoutReference, NewImage, pack_directory,
    unpack_context, unpack_directory,
};
pub use check::{Damage, Repair};
pub use commit::CommitOptions;
pub use config::{Healthcheck, HistoryEntry, ImageConfig, RootFs, RunConfig};
pub use content::{BlobWriter, ContentStore};
pub use decode::{Compression, compressed, decoder, decompressed};
pub use digest::{DiffId, Digest};
pub use document::{Descriptor, Document, MAX_DOCUMENT};
pub use edit::{ConvertOptions, EntryChange, IndexEntry, WasmArtifact};
pub use error::{BoxedCause, ErrorKind, ImageError};
pub use form::LayerForm;
pub use history::HistoryStep;
pub use lookup::{Found, LayeredRoot};
pub use pack::{TarWriter, Visited, names, pack_layer, walk, walk_tree};
pub use platform::Platform;
pub use progress::{Outcome, Progress, Task};
pub use prune::{PruneOptions, Pruned};
pub use reference::Reference;
pub use registry::{
    Asked, Bundle, Mirror, PlatformChoice, Proxies, Pulled, Pushed, Referrer, RegistryError,
    RegistryOptions, RemoteBundle, RemoteFile, SearchResult, Statement, Validator,
    check_credentials, fetch_changed, fetch_manifest, fetch_url, name_of_url, pull, referrers,
    search, tags,
};
pub use remove::{Force, Removed};
pub use store::{Image, ImageSummary, NamedImages, Store};
pub use tarwalk::{Entry, EntryKind, EntryPath, Segment, TarWalk, Xattrs};
pub use tree::{ChangeKind, PathChange};
pub use unpack::{UnpackMode, is_opaque, is_whiteout, unpack_archive};
pub use usage::{ImageUsage, Usage};
