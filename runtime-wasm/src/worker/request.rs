//! The front end's side.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use state::Layout;
use sys::lock::{FileLock, Mode};

use crate::cache::{CacheError, ModuleCache, ModuleDigest, remembered_engine_key};
use crate::worker::{Report, SUBCOMMAND};

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

/// Returns the compiled file of a module, compiling it first when it is not in the cache.
///
/// `digest` is the SHA-256 of the module's bytes, which the worker checks. `invoke` names the
/// export that is to be called instead of the entry point. `ketch` is the program to run again as
/// the worker.
///
/// # Errors
/// [`WorkerError::Refused`] when the module cannot be run; otherwise when compiling failed.
pub fn ensure_compiled(
    layout: &Layout,
    ketch: &Path,
    module: &Path,
    digest: &str,
    invoke: Option<&str>,
) -> Result<PathBuf, WorkerError> {
    let digest = ModuleDigest::parse(digest)?;
    if let Some(path) = lookup(layout, &digest) {
        return Ok(path);
    }
    let lock = layout.locks().join(format!("wasm-{}", digest.hex()));
    let _held = FileLock::acquire(&lock, Mode::Exclusive, LOCK_TIMEOUT)
        .map_err(|source| WorkerError::Lock { path: lock, source })?;
    // Whoever held the lock before may have done it.
    if let Some(path) = lookup(layout, &digest) {
        return Ok(path);
    }
    match run_worker(layout, ketch, module, &digest, invoke)? {
        Report::Compiled { engine_key } => ModuleCache::new(layout, &engine_key)
            .lookup(&digest)
            .ok_or_else(|| WorkerError::Failed("the result is not in the cache".to_owned())),
        Report::Refused { reason } => Err(WorkerError::Refused(reason)),
        Report::Failed { reason } => Err(WorkerError::Failed(reason)),
    }
}

fn lookup(layout: &Layout, digest: &ModuleDigest) -> Option<PathBuf> {
    let key = remembered_engine_key(layout)?;
    ModuleCache::new(layout, &key).lookup(digest)
}

fn run_worker(
    layout: &Layout,
    ketch: &Path,
    module: &Path,
    digest: &ModuleDigest,
    invoke: Option<&str>,
) -> Result<Report, WorkerError> {
    let input = File::open(module).map_err(|source| WorkerError::Open {
        path: module.to_path_buf(),
        source,
    })?;
    let failed = |source| WorkerError::Spawn {
        program: ketch.to_path_buf(),
        source,
    };
    // No environment: nothing in it is the compiler's business.
    let mut child = Command::new(ketch)
        .arg(SUBCOMMAND)
        .args([layout.root().as_os_str(), layout.run().as_os_str()])
        .arg(digest.hex())
        .args(invoke.map(OsStr::new))
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
    if let Some(signal) = status.signal() {
        return Err(WorkerError::Killed(signal));
    }
    serde_json::from_slice(&answer).map_err(|_| WorkerError::NoAnswer(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::remember_engine_key;

    fn layout(dir: &Path) -> Layout {
        Layout::open(dir.join("root"), dir.join("run")).unwrap()
    }

    fn module(dir: &Path) -> (PathBuf, String) {
        let path = dir.join("module");
        File::create(&path).unwrap();
        (path, ModuleDigest::of(b"").hex().to_owned())
    }

    #[test]
    fn ensure_compiled_on_a_hit_starts_no_worker() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let (module, digest) = module(dir.path());
        remember_engine_key(&layout, "key").unwrap();
        std::fs::create_dir(layout.compiled().join("key")).unwrap();
        let file = layout.compiled().join(format!("key/{digest}.cwasm"));
        File::create(&file).unwrap();
        let found = ensure_compiled(&layout, Path::new("/nowhere"), &module, &digest, None);
        assert_eq!(found.unwrap(), file);
    }

    #[test]
    fn ensure_compiled_with_a_worker_that_fails_says_how() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let (module, digest) = module(dir.path());
        let ask = |program: &str| {
            ensure_compiled(&layout, Path::new(program), &module, &digest, None).unwrap_err()
        };
        assert!(matches!(ask("/nowhere"), WorkerError::Spawn { .. }));
        assert!(matches!(ask("/bin/false"), WorkerError::NoAnswer(_)));
        let digest = "no digest";
        let error = ensure_compiled(&layout, Path::new("/"), &module, digest, None).unwrap_err();
        assert!(matches!(error, WorkerError::Cache(CacheError::Digest(_))));
    }
}
