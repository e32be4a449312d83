//! What a build is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use engine::{IsolationOptions, Network, NetworkOptions};
use image::{Compression, LayoutReference, Platform, Reference, RegistryOptions};

use crate::dockerfile::{Run, Security};
use crate::error::BuildError;

/// Gets an image from its registry: its name as it is written, and the platform.
pub type Fetch<'a> = dyn Fn(&str, &Platform) -> Result<(), BuildError> + Sync + 'a;

/// Options of a build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The Dockerfile's name, for messages.
    pub dockerfile_name: String,
    /// The text of the Dockerfile.
    pub dockerfile: String,
    /// The directory of the context; without one there is nothing to copy.
    pub context: Option<PathBuf>,
    /// The text of the `.dockerignore` beside the Dockerfile, which wins over the context's own.
    pub ignore: Option<String>,
    /// Further contexts by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--build-arg`.
    pub args: BTreeMap<String, String>,
    /// The stage to build; the last one when absent.
    pub target: Option<String>,
    /// What to build for; the host's when empty.
    pub platforms: Vec<Platform>,
    /// Names of the image.
    pub tags: Vec<Reference>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Which stages do not use the cache.
    pub no_cache: NoCache,
    /// The network of RUN.
    pub network: Network,
    /// Its details.
    pub network_options: NetworkOptions,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Sockets of SSH agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Who is asked for secrets and agents that are not among these.
    pub ask: Option<Ask>,
    /// No file that the build makes, and not the image, is newer than this: seconds. When absent, what an
    /// `ARG SOURCE_DATE_EPOCH` before the first FROM says, or 0.
    pub epoch: Option<i64>,
    /// Compress the image's own layers at once.
    pub compression: Option<Compression>,
    /// Ask registries for base images that are here.
    pub pull: bool,
    /// Where `wasm-artifact` and others want no image in the store.
    pub record: Record,
    /// Caches that other builds wrote.
    pub cache_from: Vec<CacheSource>,
    /// Where the cache of this build is written to.
    pub cache_to: Vec<CacheTarget>,
    /// Directory with the caches of mounts that another machine wrote.
    pub cache_mounts_from: Option<PathBuf>,
    /// Where the caches of the build's mounts are written to.
    pub cache_mounts_to: Option<PathBuf>,
    /// How servers are spoken to.
    pub http: RegistryOptions,
    /// Memory limit of RUN in bytes.
    pub memory_bytes: Option<i64>,
    /// What of RUN's isolation is not the usual one: limits, and where devices are described.
    pub isolation: IsolationOptions,
    /// What the Dockerfile may ask for beyond that.
    pub allowed: Allowed,
}

/// What a Dockerfile may ask for that lets a step out of its walls (`--allow`). By default nothing: who
/// builds a file of somebody else has not read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `RUN --network=host`.
    pub network_host: bool,
    /// `RUN --security=insecure`.
    pub security_insecure: bool,
    /// `RUN --device`.
    pub devices: AllowedDevices,
}

/// The devices that a Dockerfile may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedDevices {
    /// All that are described.
    All,
    /// Those with these names.
    Named(Vec<String>),
}

impl Default for AllowedDevices {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl Allowed {
    /// The first thing that a RUN asks for and is not allowed: as it is written, and the value of
    /// `--allow` that it takes.
    pub(crate) fn refuses(&self, run: &Run) -> Option<(String, String)> {
        if run.security == Security::Insecure && !self.security_insecure {
            let written = "--security=insecure".to_owned();
            return Some((written, "security.insecure".to_owned()));
        }
        if run.network.as_deref() == Some("host") && !self.network_host {
            return Some(("--network=host".to_owned(), "network.host".to_owned()));
        }
        let refused = run.devices.iter().find(|device| match &self.devices {
            AllowedDevices::All => false,
            AllowedDevices::Named(names) => !names.contains(&device.name),
        })?;
        let written = format!("--device={}", refused.name);
        Some((written, format!("device={}", refused.name)))
    }
}

/// Gives a secret by its id, or nothing when there is none; an error is a text.
pub type AskSecret = dyn Fn(&str) -> Result<Option<Vec<u8>>, String> + Send + Sync;

/// Gives the socket of an SSH agent by its id, or nothing when there is none; an error is a text.
pub type AskAgent = dyn Fn(&str) -> Result<Option<PathBuf>, String> + Send + Sync;

/// Who has secrets and agents, asked when a step needs one: what a Dockerfile names may stand in a variable.
#[derive(Clone)]
pub struct Ask {
    /// For secrets.
    pub secret: Arc<AskSecret>,
    /// For agents.
    pub agent: Arc<AskAgent>,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ask")
    }
}

/// Whether the image gets into the list of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Record {
    /// With its names, or as a dangling one.
    #[default]
    Yes,
    /// Not at all: only the files are wanted.
    No,
}

/// Where a cache that another build wrote is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    /// In a directory.
    Directory(PathBuf),
    /// In a registry: a cache of its own, or within an image.
    Registry(Reference),
}

/// Where a cache is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where.
    pub place: CachePlace,
    /// How much of it.
    pub mode: CacheMode,
}

/// A place for a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// A directory.
    Directory(PathBuf),
    /// A name in a registry.
    Registry(Reference),
    /// The image itself.
    Inline,
}

/// How much of a cache is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// The layers of the image.
    #[default]
    Min,
    /// Those of all stages.
    Max,
}

/// Which stages do not use the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// All use it.
    #[default]
    Never,
    /// None uses it.
    Always,
    /// These do not.
    Stages(Vec<String>),
}

/// A further context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// An image, or `scratch`.
    Image(String),
    /// An image of an OCI layout directory.
    Layout(PathBuf, LayoutReference),
}

/// Where a secret comes from. Its value is read when a step needs it.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A value that the caller has read.
    Value(Vec<u8>),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("[redacted]"),
        }
    }
}
