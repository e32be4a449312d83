//! What a container is created with, besides its image.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use image::Platform;
use network::{DnsOptions, HostTarget, PortRequest, Publish};
use runtime::detect::{Choice, RuntimeOverride};
use runtime::{Console, RestartPolicy};

use crate::{EngineError, HealthOptions, LogOptions};

use crate::isolation::IsolationOptions;
use crate::mounts::MountRequest;

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// A namespace of its own with the loopback link.
    #[default]
    None,
    /// The default network where this host can have it, or else a namespace of its own.
    Default,
    /// The host's.
    Host,
    /// Another container's, by its name or id.
    Container(String),
    /// A namespace of its own on networks.
    Joined(Vec<Join>),
}

/// A network that a container is put on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// The network, by name or id.
    pub network: String,
    /// Further names of the container on it.
    pub aliases: Vec<String>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Addresses that are valid on the link only.
    pub link_local: Vec<IpAddr>,
    /// The network with the highest number is the way outside.
    pub gateway_priority: i32,
    /// The link's name in the container.
    pub link: Option<String>,
}

/// What of a container's network does not belong to one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// Publish every exposed port.
    pub publish_all: bool,
    /// Ports to expose besides the image's, as `PORT[-PORT][/PROTOCOL]`.
    pub exposed: Vec<String>,
    /// How ports are published.
    pub publish: Publish,
    /// The host's addresses of ports that name none.
    pub publish_addresses: Vec<IpAddr>,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<(String, HostTarget)>,
    /// How names are resolved.
    pub dns: DnsOptions,
    /// The container's domain.
    pub domainname: Option<String>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            publish_all: false,
            exposed: Vec::new(),
            publish: Publish::Kernel,
            publish_addresses: crate::network::every_address(),
            extra_hosts: Vec::new(),
            dns: DnsOptions::default(),
            domainname: None,
        }
    }
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
    /// What is mounted besides the image.
    pub mounts: Vec<MountRequest>,
    /// Containers whose mounts are taken over, and whether read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// Network.
    pub network: Network,
    /// What of it does not belong to one network.
    pub network_options: NetworkOptions,
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
    /// What else stands between it and the host.
    pub isolation: IsolationOptions,
    /// A terminal of this size.
    pub console: Option<Console>,
    /// Keep standard input open.
    pub interactive: bool,
    /// Remove the container when it has ended.
    pub auto_remove: bool,
    /// Labels, beside the image's.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the specification.
    pub annotations: BTreeMap<String, String>,
    /// The signal that asks it to end, by name or number; the image's when absent.
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL; 10 when absent.
    pub stop_timeout: Option<u64>,
    /// Where the caller writes the id to.
    pub cid_file: Option<PathBuf>,
    /// A file that the steps of the start and their times are added to.
    pub trace: Option<PathBuf>,
    /// What happens when its program has ended by itself.
    pub restart: RestartPolicy,
    /// How its output is recorded.
    pub log: LogOptions,
    /// How it is found out whether it is healthy.
    pub health: HealthOptions,
    /// What only a wasm container has.
    pub wasm: WasmOptions,
}

/// Options of wasm containers. A native container refuses each of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct WasmOptions {
    /// `--invoke`: the export to call instead of the entry point.
    pub invoke: Option<String>,
    /// `--wasm-timeout`: the guest, or one request, is ended after so many milliseconds.
    pub timeout_ms: Option<u64>,
    /// `--wasm-fuel`: units of work.
    pub fuel: Option<u64>,
    /// `--wasm-deterministic`.
    pub deterministic: bool,
    /// `--wasm-no-files`: the guest has no directory.
    pub no_files: bool,
    /// `--wasm-http-port`: where an HTTP world listens.
    pub http_port: Option<u16>,
    /// `--wasm-http-reuse`: requests that one instance answers.
    pub http_reuse: Option<u32>,
    /// `--wasm-http-concurrency`: requests that are answered at once.
    pub http_concurrency: Option<u32>,
    /// `--wasm-config`: what `wasi:config` shows.
    pub config: Vec<(String, String)>,
    /// `--wasm-keyvalue`: grants `wasi:keyvalue`, in memory.
    pub keyvalue: bool,
    /// `--wasm-logging`: grants `wasi:logging`, to standard error.
    pub logging: bool,
}

impl WasmOptions {
    /// Refuses every option for a native container.
    pub(crate) fn refuse(&self, choice: &Choice) -> Result<(), EngineError> {
        match self.first_given() {
            Some(option) => Err(EngineError::Unsupported(format!(
                "cannot use {option}: the image is no wasm image ({})",
                choice.reason
            ))),
            None => Ok(()),
        }
    }

    /// The first option that was given, as the user writes it.
    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--invoke", self.invoke.is_some()),
            ("--wasm-timeout", self.timeout_ms.is_some()),
            ("--wasm-fuel", self.fuel.is_some()),
            ("--wasm-deterministic", self.deterministic),
            ("--wasm-no-files", self.no_files),
            ("--wasm-http-port", self.http_port.is_some()),
            ("--wasm-http-reuse", self.http_reuse.is_some()),
            ("--wasm-http-concurrency", self.http_concurrency.is_some()),
            ("--wasm-config", !self.config.is_empty()),
            ("--wasm-keyvalue", self.keyvalue),
            ("--wasm-logging", self.logging),
        ];
        given
            .iter()
            .find(|(_, given)| *given)
            .map(|(name, _)| *name)
    }
}
