//! The front end's side.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use state::Layout;
use sys::lock::{FileLock, Mode};

use crate::cache::{CacheError, ModuleCache, ModuleDigest, remembered_engine_key};
use crate::engine::Serving;
use crate::info::WasmInfo;
use crate::worker::{Report, SUBCOMMAND, Variant};

/// How long another front end may take to compile the same module: the worker's own limit on CPU
/// time is below it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1200);

/// The longest answer that is read.
const MAX_REPORT: u64 = 1 << 20;

/// Why there is no compiled file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The module cannot be run: exit code 126.
    #[error("{0}")]
    Refused(String),
    /// The worker failed.
    #[error("cannot compile the module: {0}")]
    Failed(String),
    /// The worker was stopped by one of its limits, or crashed.
    #[error(
        "the compiler was stopped by signal {0}: the module needs more time or memory than it may have"
    )]
    Killed(i32),
    /// The worker ended without an answer.
    #[error("the compiler ended without an answer ({0})")]
    NoAnswer(ExitStatus),
    /// The module cannot be opened.
    #[error("cannot open the module `{}`", path.display())]
    Open {
        /// The module.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else has been compiling it for very long.
    #[error("cannot lock `{}`", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The worker could not be started or heard.
    #[error("cannot run the compiler `{}`", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What a front end wants compiled.
#[derive(Debug, Clone, Copy)]
pub struct CompileRequest<'a> {
    /// The program to run again as the worker.
    pub ketch: &'a Path,
    /// The module.
    pub module: &'a Path,
    /// The SHA-256 of its bytes, which the worker checks.
    pub digest: &'a str,
    /// In which form.
    pub variant: Variant,
    /// The export that is to be called instead of the entry point.
    pub invoke: Option<&'a str>,
}

/// A compiled file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledFile {
    /// Where it is.
    pub path: PathBuf,
    /// As what it is run.
    pub serving: Serving,
    /// What the module says about itself.
    pub info: WasmInfo,
}

/// Returns the compiled file of a module, compiling it first when it is not in the cache.
///
/// # Errors
/// [`WorkerError::Refused`] when the module cannot be run; otherwise when compiling failed.
pub fn ensure_compiled(
    layout: &Layout,
    request: CompileRequest<'_>,
) -> Result<CompiledFile, WorkerError> {
    let digest = ModuleDigest::parse(request.digest)?;
    if let Some(found) = lookup(layout, &digest, &request)? {
        return Ok(found);
    }
    let lock = layout.locks().join(format!("wasm-{}", digest.hex()));
    let _held = FileLock::acquire(&lock, Mode::Exclusive, LOCK_TIMEOUT)
        .map_err(|source| WorkerError::Lock { path: lock, source })?;
    // Whoever held the lock before may have done it.
    if let Some(found) = lookup(layout, &digest, &request)? {
        return Ok(found);
    }
    match run_worker(layout, &request, &digest)? {
        Report::Compiled { .. } => lookup(layout, &digest, &request)?
            .ok_or_else(|| WorkerError::Failed("the result is not in the cache".to_owned())),
        Report::Refused { reason } => Err(WorkerError::Refused(reason)),
        Report::Failed { reason } => Err(WorkerError::Failed(reason)),
    }
}

/// Looks in the caches of both kinds of program. What the module says about itself decides whether
/// the file is of the right kind: an HTTP component can be compiled for one of its exports, too.
fn lookup(
    layout: &Layout,
    digest: &ModuleDigest,
    request: &CompileRequest<'_>,
) -> Result<Option<CompiledFile>, WorkerError> {
    for serving in [Serving::Command, Serving::Http] {
        let profile = request.variant.profile(serving);
        let Some(key) = remembered_engine_key(layout, profile) else {
            continue;
        };
        let cache = ModuleCache::new(layout, &key);
        let (Some(path), Some(record)) = (cache.lookup(digest), cache.record(digest)) else {
            continue;
        };
        let wanted = record
            .info
            .check_entry(request.invoke)
            .map_err(|error| WorkerError::Refused(error.to_string()))?;
        if wanted == serving {
            return Ok(Some(CompiledFile {
                path,
                serving,
                info: record.info,
            }));
        }
    }
    Ok(None)
}

fn run_worker(
    layout: &Layout,
    request: &CompileRequest<'_>,
    digest: &ModuleDigest,
) -> Result<Report, WorkerError> {
    let input = File::open(request.module).map_err(|source| WorkerError::Open {
        path: request.module.to_path_buf(),
        source,
    })?;
    let failed = |source| WorkerError::Spawn {
        program: request.ketch.to_path_buf(),
        source,
    };
    // No environment: nothing in it is the compiler's business.
    let mut child = Command::new(request.ketch)
        .arg(SUBCOMMAND)
        .args([layout.root().as_os_str(), layout.run().as_os_str()])
        .args([request.variant.name(), digest.hex()])
        .args(request.invoke.map(OsStr::new))
        .env_clear()
        .current_dir("/")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut answer = Vec::new();
    let read = match child.stdout.take() {
        Some(output) => output.take(MAX_REPORT).read_to_end(&mut answer),
        None => Ok(0),
    };
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Err(WorkerError::Killed(signal));
    }
    serde_json::from_slice(&answer).map_err(|_| WorkerError::NoAnswer(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{ArtifactRecord, remember_engine_key};
    use crate::info::World;
    use runtime::detect::BinaryKind;

    fn layout(dir: &Path) -> Layout {
        Layout::open(dir.join("root"), dir.join("run")).unwrap()
    }

    fn module(dir: &Path) -> (PathBuf, String) {
        let path = dir.join("module");
        File::create(&path).unwrap();
        (path, ModuleDigest::of(b"").hex().to_owned())
    }

    fn request<'a>(ketch: &'a str, module: &'a Path, digest: &'a str) -> CompileRequest<'a> {
        CompileRequest {
            ketch: Path::new(ketch),
            module,
            digest,
            variant: Variant::default(),
            invoke: None,
        }
    }

    /// Puts a file and its record into the cache of this kind of program.
    fn store(layout: &Layout, digest: &str, serving: Serving, world: World) -> PathBuf {
        let profile = Variant::default().profile(serving);
        let key = format!("key-{profile}");
        remember_engine_key(layout, profile, &key).unwrap();
        let info = WasmInfo {
            kind: BinaryKind::Component,
            world,
            imports: Vec::new(),
            exports: vec!["greet".to_owned()],
        };
        let digest = ModuleDigest::parse(digest).unwrap();
        let record = ArtifactRecord::for_tests(&digest, info);
        let cache = ModuleCache::new(layout, &key);
        cache.store(&digest, b"code", &record).unwrap()
    }

    #[test]
    fn ensure_compiled_on_a_hit_starts_no_worker() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let (module, digest) = module(dir.path());
        let http = World::HttpProxy("0.2.0".to_owned());
        let file = store(&layout, &digest, Serving::Http, http.clone());
        let found = ensure_compiled(&layout, request("/nowhere", &module, &digest)).unwrap();
        assert_eq!((found.path, found.serving), (file, Serving::Http));
        // Compiled for an export once, it is still an HTTP component.
        let command = store(&layout, &digest, Serving::Command, http);
        let found = ensure_compiled(&layout, request("/nowhere", &module, &digest)).unwrap();
        assert_eq!(found.serving, Serving::Http);
        let mut export = request("/nowhere", &module, &digest);
        export.invoke = Some("greet");
        let found = ensure_compiled(&layout, export).unwrap();
        assert_eq!((found.path, found.serving), (command, Serving::Command));
        export.invoke = Some("shout");
        let error = ensure_compiled(&layout, export).unwrap_err();
        assert_eq!(error.to_string(), "the module exports no `shout`");
    }

    #[test]
    fn ensure_compiled_with_a_worker_that_fails_says_how() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let (module, digest) = module(dir.path());
        let ask = |program: &str| {
            ensure_compiled(&layout, request(program, &module, &digest)).unwrap_err()
        };
        assert!(matches!(ask("/nowhere"), WorkerError::Spawn { .. }));
        assert!(matches!(ask("/bin/false"), WorkerError::NoAnswer(_)));
        let error = ensure_compiled(&layout, request("/", &module, "no digest")).unwrap_err();
        assert!(matches!(error, WorkerError::Cache(CacheError::Digest(_))));
    }
}
