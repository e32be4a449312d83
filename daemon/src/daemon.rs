//! What all requests share.

use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use image::RegistryOptions;
use network::Publish;

use crate::attaches::Attaches;
use crate::blocking::Limits;
use crate::buildkit::BuildKit;
use crate::execs::Execs;
use crate::hub::Hub;
use crate::metrics::Metrics;

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// How registries are spoken to, besides what a request says.
    pub registry: RegistryOptions,
    /// How ports are published.
    pub publish: Publish,
    /// The host's addresses of ports that name none.
    pub publish_addresses: Vec<std::net::IpAddr>,
    /// Directories with CDI specifications, the most important last.
    pub cdi_dirs: Vec<std::path::PathBuf>,
    /// The version that clients are told.
    pub version: &'static str,
    /// How long a client may take for the head of a request, and between two requests of one
    /// connection.
    pub head_timeout: Duration,
}

/// The daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) options: Options,
    pub(crate) limits: Limits,
    pub(crate) hub: Hub,
    pub(crate) attaches: Attaches,
    pub(crate) execs: Arc<Execs>,
    pub(crate) buildkit: BuildKit,
    pub(crate) metrics: Metrics,
}

impl Daemon {
    pub(crate) fn new(engine: Engine, options: Options) -> Self {
        Self {
            engine,
            options,
            limits: Limits::default(),
            hub: Hub::default(),
            attaches: Attaches::default(),
            execs: Arc::default(),
            buildkit: BuildKit::default(),
            metrics: Metrics::default(),
        }
    }
}
