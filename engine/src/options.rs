//! What a container is created with, besides its image.

use std::path::PathBuf;

use image::Platform;
use runtime::Console;
use runtime::detect::{Choice, RuntimeOverride};

use crate::EngineError;

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
