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
use runtime_wasm::worker::{self, WorkerError};
use runtime_wasm::{NetworkGrant, RootAccess, WasmSpec};
use sha2::{Digest, Sha256};

use crate::{Engine, EngineError};

/// The module of a wasm container.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct WasmModule {
    /// The file with the module's bytes: a blob, a file of a layer, or the user's own.
    pub(crate) path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub(crate) digest: String,
    pub(crate) kind: BinaryKind,
    pub(crate) network: bool,
    pub(crate) readonly: bool,
    /// What the guest's memories may take together.
    pub(crate) memory_bytes: Option<u64>,
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

fn find(root: &LayeredRoot, program: &str, env: &[String]) -> Option<PathBuf> {
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
    /// Checks and compiles a module by its path.
    pub(crate) fn module_at(&self, path: &Path, name: &str) -> Result<WasmModule, EngineError> {
        let failed = EngineError::io("read the module");
        let mut file = File::open(path).map_err(&failed)?;
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
        let module = WasmModule {
            path: path.to_path_buf(),
            digest: hex::encode(hasher.finalize()),
            kind,
            network: false,
            readonly: false,
            memory_bytes: None,
        };
        self.compiled(&module)?;
        Ok(module)
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
        let mut module = self.module_at(path, name)?;
        // The bundle's namespaces say what its network is.
        module.network = true;
        self.wasm_host_plan(&module, process)
    }

    /// The compiled module, from the cache or by a worker.
    pub(crate) fn compiled(&self, module: &WasmModule) -> Result<PathBuf, EngineError> {
        worker::ensure_compiled(
            &self.layout,
            &self.ketch,
            &module.path,
            &module.digest,
            None,
        )
        .map_err(|error| match error {
            WorkerError::Refused(reason) => EngineError::Start {
                code: runtime::code::NOT_EXECUTABLE,
                message: reason,
            },
            other => EngineError::Compile(other),
        })
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
