//! Which runtime a container gets: decided from the image's content, never from names, by the pure
//! function of [`runtime::detect`]; and, for wasm, the module compiled into the store's cache.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::{Image, LayeredRoot};
use runtime::WasmPlan;
use runtime::detect::{
    self, BinaryKind, Choice, Entrypoint, HEADER_LEN, ManifestFacts, RuntimeOverride, WasmSource,
};
use runtime_wasm::compile::MAX_MODULE_BYTES;
use runtime_wasm::engine::Serving;
use runtime_wasm::worker::{self, CompileRequest, CompiledFile, WorkerError};
use runtime_wasm::{
    Entry, GuestRoot, HttpOptions, Interfaces, KeyValue, Metering, NetworkGrant, RootAccess,
    WasmInfo, WasmSpec,
};
use sha2::{Digest, Sha256};

use crate::options::WasmOptions;
use crate::{Engine, EngineError};

/// The module of a wasm container.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct WasmModule {
    /// The file with the module's bytes: a blob, a file of a layer, or the user's own.
    pub(crate) path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub(crate) digest: String,
    pub(crate) kind: BinaryKind,
    /// As what it is run.
    pub(crate) serving: Serving,
    /// The port of an HTTP world.
    pub(crate) port: u16,
    pub(crate) network: bool,
    pub(crate) readonly: bool,
    /// What the guest's memories may take together.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) options: WasmOptions,
}

impl WasmModule {
    fn metering(&self) -> Metering {
        Metering {
            fuel: self.options.fuel,
            deterministic: self.options.deterministic,
        }
    }

    /// Tells the wasm host what it is and how it is run.
    pub(crate) fn describe(&self, spec: &mut WasmSpec) {
        spec.entry = self.entry();
        spec.metering = self.metering();
        spec.timeout_ms = self.options.timeout_ms;
        spec.interfaces = interfaces(&self.options);
    }

    fn entry(&self) -> Entry {
        let options = &self.options;
        if let Some(export) = &options.invoke {
            return Entry::Export(export.clone());
        }
        if self.serving == Serving::Command {
            return Entry::Command;
        }
        let mut http = HttpOptions {
            address: ([0, 0, 0, 0], self.port).into(),
            ..HttpOptions::default()
        };
        if let Some(reuse) = options.http_reuse {
            http.requests_per_instance = reuse;
        }
        if let Some(concurrency) = options.http_concurrency {
            http.concurrent_requests = concurrency;
        }
        Entry::Http(http)
    }
}

/// The port that an image's HTTP world listens at: the smallest one that the image exposes.
pub(crate) fn exposed_port(image: &Image) -> Option<u16> {
    let exposed = image.config.config.exposed_ports.keys();
    let ports = exposed.filter_map(|text| text.split('/').next()?.parse::<u16>().ok());
    ports.min()
}

/// Splits `module.wasm#export`, when the root has no file of that whole name.
pub(crate) fn split_export(
    root: &LayeredRoot,
    program: &str,
    env: &[String],
) -> Option<(String, String)> {
    let (path, export) = program.split_once('#')?;
    let is_other = find(root, program, env).is_none() && !export.is_empty();
    is_other.then(|| (path.to_owned(), export.to_owned()))
}

/// Decides.
pub(crate) fn choose(
    image: &Image,
    over: RuntimeOverride,
    root: &LayeredRoot,
    program: &str,
    env: &[String],
) -> Result<Choice, EngineError> {
    let manifest = &image.manifest;
    let config = &image.config;
    let facts = ManifestFacts {
        config_media_type: manifest.config().media_type().to_string(),
        artifact_type: manifest.artifact_type().as_ref().map(ToString::to_string),
        layer_media_types: manifest
            .layers()
            .iter()
            .map(|l| l.media_type().to_string())
            .collect(),
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        annotations: manifest
            .annotations()
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    };
    detect::choose(&facts, over, || probe(root, program, env))
        .map_err(|reason| EngineError::Unsupported(format!("cannot run the image: {reason}")))
}

/// The first bytes of the program, found as `execve` would find it.
fn probe(root: &LayeredRoot, program: &str, env: &[String]) -> Entrypoint {
    let Some(path) = find(root, program, env) else {
        return Entrypoint::Missing;
    };
    let mut bytes = Vec::new();
    let read = root
        .open(&path)
        .map(|file| file.take(HEADER_LEN as u64).read_to_end(&mut bytes));
    match read {
        Ok(Ok(_)) => Entrypoint::from_bytes(&bytes),
        _ => Entrypoint::Unknown,
    }
}

pub(crate) fn find(root: &LayeredRoot, program: &str, env: &[String]) -> Option<PathBuf> {
    let exists = |path: &PathBuf| root.lookup(path).is_ok_and(|found| found.is_file());
    if program.contains('/') {
        return Some(Path::new("/").join(program)).filter(exists);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|pair| pair.strip_prefix("PATH="))
        .unwrap_or_default();
    path.split(':')
        .map(|dir| Path::new("/").join(dir).join(program))
        .find(exists)
}

/// The file with the module of a wasm image.
pub(crate) fn module_path(
    content: &Path,
    image: &Image,
    choice: &Choice,
    root: &LayeredRoot,
    program: &str,
) -> Result<PathBuf, EngineError> {
    if let Some(WasmSource::Layer(index)) = choice.source {
        let layer = image.manifest.layers().get(index);
        let layer = layer.ok_or_else(|| missing(program))?;
        return Ok(content.join(layer.digest().digest()));
    }
    let path = find(root, program, &image.config.config.env).ok_or_else(|| missing(program))?;
    Ok(root.lookup(&path)?.host_path)
}

/// The first bytes of a file that the user named.
pub(crate) fn head(path: &Path) -> Result<Vec<u8>, EngineError> {
    let failed = |source| EngineError::OpenModule {
        path: path.to_path_buf(),
        source,
    };
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEADER_LEN as u64).read_to_end(&mut head))
        .map_err(failed)?;
    Ok(head)
}

impl Engine {
    /// Compiles a module into the cache, as its first run would.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn compile_module(
        &self,
        path: &Path,
        name: &str,
        options: &WasmOptions,
    ) -> Result<CompiledFile, EngineError> {
        let (module, _) = self.module_at(path, name, options)?;
        self.compiled(&module)
    }

    /// Checks and compiles a module by its path.
    pub(crate) fn module_at(
        &self,
        path: &Path,
        name: &str,
        options: &WasmOptions,
    ) -> Result<(WasmModule, WasmInfo), EngineError> {
        let failed = EngineError::io("read the module");
        let mut file = File::open(path).map_err(&failed)?;
        // Before it is read to its end to be named.
        if file.metadata().map_err(&failed)?.len() > MAX_MODULE_BYTES {
            let most = MAX_MODULE_BYTES >> 20;
            return Err(cannot_start(format!(
                "cannot run `{name}`: the module is larger than {most} MiB"
            )));
        }
        let mut head = Vec::new();
        (&mut file)
            .take(HEADER_LEN as u64)
            .read_to_end(&mut head)
            .map_err(&failed)?;
        let kind = detect::binary_kind(name, &head).map_err(|reason| EngineError::Start {
            code: runtime::code::NOT_EXECUTABLE,
            message: format!("cannot run `{name}`: {reason}"),
        })?;
        let mut hasher = Sha256::new();
        hasher.update(&head);
        io::copy(&mut file, &mut hasher).map_err(&failed)?;
        let mut module = WasmModule {
            path: path.to_path_buf(),
            digest: hex::encode(hasher.finalize()),
            kind,
            serving: Serving::Command,
            port: HttpOptions::PORT,
            network: false,
            readonly: false,
            memory_bytes: None,
            options: options.clone(),
        };
        let compiled = self.compiled(&module)?;
        module.serving = compiled.serving;
        compiled
            .info
            .check_interfaces(&interfaces(options))
            .map_err(|error| cannot_start(error.to_string()))?;
        Ok((module, compiled.info))
    }

    /// What the wasm host needs for the module at `path`, which is called `name` and is the program of
    /// `process`: for bundles that come without an image.
    ///
    /// # Errors
    /// When it is no module, cannot be compiled, or the host cannot be put in place.
    pub fn wasm_bundle(
        &self,
        path: &Path,
        name: &str,
        process: &oci_spec::runtime::Process,
    ) -> Result<WasmPlan, EngineError> {
        let (mut module, _) = self.module_at(path, name, &WasmOptions::default())?;
        // The bundle's namespaces say what its network is.
        module.network = true;
        self.wasm_host_plan(&module, process)
    }

    /// The compiled module, from the cache or by a worker.
    pub(crate) fn compiled(&self, module: &WasmModule) -> Result<CompiledFile, EngineError> {
        let request = CompileRequest {
            ketch: &self.ketch,
            module: &module.path,
            digest: &module.digest,
            variant: module.metering().into(),
            invoke: module.options.invoke.as_deref(),
        };
        worker::ensure_compiled(&self.layout, request).map_err(|error| match error {
            WorkerError::Refused(reason) => cannot_start(reason),
            other => EngineError::Compile(other),
        })
    }
}

fn cannot_start(message: String) -> EngineError {
    EngineError::Start {
        code: runtime::code::NOT_EXECUTABLE,
        message,
    }
}

fn interfaces(options: &WasmOptions) -> Interfaces {
    Interfaces {
        config: (!options.config.is_empty()).then(|| options.config.clone()),
        keyvalue: options.keyvalue.then_some(KeyValue::Memory),
        logging: options.logging,
    }
}

/// What the wasm host is told.
pub(crate) fn wasm_spec(
    module: &WasmModule,
    process: &oci_spec::runtime::Process,
) -> Result<Vec<u8>, EngineError> {
    let mut spec = WasmSpec::new(module.kind, process.args().clone().unwrap_or_default());
    spec.env = process
        .env()
        .iter()
        .flatten()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    spec.cwd = process.cwd().to_string_lossy().into_owned();
    spec.network = if module.network {
        NetworkGrant::Inherit
    } else {
        NetworkGrant::None
    };
    spec.root = if module.readonly {
        RootAccess::ReadOnly
    } else {
        RootAccess::ReadWrite
    };
    spec.limits.memory_bytes = module.memory_bytes;
    module.describe(&mut spec);
    spec.guest_root = match module.options.no_files {
        true => GuestRoot::None,
        false => GuestRoot::Descriptor,
    };
    spec.encode().map_err(|error| {
        EngineError::io("encode the wasm host's specification")(io::Error::other(error))
    })
}

fn missing(program: &str) -> EngineError {
    EngineError::Start {
        code: runtime::code::NOT_FOUND,
        message: format!("cannot execute `{program}`: no such file in the image"),
    }
}
