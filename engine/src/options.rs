//! What a container is created with, besides its image.

use std::path::PathBuf;

use image::Platform;
use runtime::Console;
use runtime::detect::RuntimeOverride;

/// The network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A namespace of its own with the loopback link.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A path of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute.
    pub target: PathBuf,
    /// Nothing below it can be written.
    pub readonly: bool,
}

/// Options of `run` and `create`.
#[derive(Debug, Clone, Default)]
pub struct ContainerOptions {
    /// The image as the user wrote it.
    pub image: String,
    /// A module outside of the store, absolute; `image` is then its name as the user wrote it.
    pub module: Option<PathBuf>,
    /// The name; made up when absent.
    pub name: Option<String>,
    /// Which of an index's images.
    pub platform: Option<Platform>,
    /// `--runtime`.
    pub runtime: RuntimeOverride,
    /// Arguments after the image.
    pub command: Vec<String>,
    /// In place of the image's entrypoint; an empty one removes it.
    pub entrypoint: Option<Vec<String>>,
    /// `KEY=value` and, to remove a key, `KEY`; later ones win.
    pub env: Vec<String>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Host name; the short id when absent.
    pub hostname: Option<String>,
    /// Host paths.
    pub binds: Vec<Bind>,
    /// Network.
    pub network: Network,
    /// Memory limit in bytes.
    pub memory_bytes: Option<i64>,
    /// Processors, in billionths.
    pub nano_cpus: Option<i64>,
    /// How many processes.
    pub pids_limit: Option<i64>,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// A terminal of this size.
    pub console: Option<Console>,
    /// Keep standard input open.
    pub interactive: bool,
    /// Remove the container when it has ended.
    pub auto_remove: bool,
}
