//! How registries are spoken to, as the caller says it.

use std::path::PathBuf;

use crate::auth::AuthConfig;
use crate::platform::Platform;

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Registries (`host:port`) or hosts that may be spoken to without TLS. Those of this machine
    /// always may.
    pub insecure: Vec<String>,
    /// Where credentials come from.
    pub auth: AuthConfig,
    /// Files of PEM certificates whose authorities are trusted beside those of the system.
    pub extra_ca: Vec<PathBuf>,
    /// Directories with one directory a registry (`host:port`), which holds authorities (`*.crt`)
    /// and our own certificate (`*.cert` with a `*.key` of the same name). All that exist are read.
    pub certificates: Vec<PathBuf>,
    /// Where images are looked for before their registry is asked, in this order.
    pub mirrors: Vec<Mirror>,
    /// The proxies on the way.
    pub proxies: Proxies,
    /// How we introduce ourselves.
    pub user_agent: &'static str,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            auth: AuthConfig::default(),
            extra_ca: Vec::new(),
            certificates: Vec::new(),
            mirrors: Vec::new(),
            proxies: Proxies::default(),
            user_agent: concat!("ketch/", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// A place that has the images of a registry, too. It gets its own credentials, never those of the
/// registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry that it stands for, as in references: `docker.io`.
    pub registry: String,
    /// `[http://|https://]host[:port][/prefix]`: the prefix goes before the repository.
    pub location: String,
}

/// Proxies, as `http_proxy` and its like name them. This machine is never asked through one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http` addresses.
    pub http: Option<String>,
    /// For `https` addresses.
    pub https: Option<String>,
    /// Hosts, domains and address ranges that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
}

/// Which images of an index are pulled. An image that is not in an index is pulled as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlatformChoice {
    /// The one for this machine, else the one for WASI.
    #[default]
    Default,
    /// The one for this platform.
    Only(Platform),
    /// All.
    All,
}
