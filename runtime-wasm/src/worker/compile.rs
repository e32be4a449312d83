//! The worker's side.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use sha2::Digest as _;
use state::Layout;

use crate::cache::{
    ArtifactRecord, ModuleCache, ModuleDigest, RECORD_VERSION, prune, remember_engine_key,
};
use crate::compile::{CompileError, Compiled, MAX_MODULE_BYTES, compile};
use crate::engine::{Profile, WASMTIME_VERSION, engine, engine_key};
use crate::inspect::inspect;
use crate::worker::{Report, Variant, bounds};

/// Why the worker could not answer with a compiled file.
#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("cannot {0}")]
    Step(&'static str, #[source] Box<dyn Error + Send + Sync>),
    #[error("the module's digest is {found}, not the one that was asked for")]
    Digest { found: String },
    #[error("usage: ROOT RUN VARIANT DIGEST [EXPORT]")]
    Usage,
}

impl MainError {
    fn step<E: Into<Box<dyn Error + Send + Sync>>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Step(step, source.into())
    }
}

/// Runs the worker: reads the module from `input`, compiles it into the cache, and writes one
/// [`Report`] to `output`. `args` are those after [`SUBCOMMAND`](crate::worker::SUBCOMMAND).
///
/// It limits its own process and is meant to be all that the process does.
///
/// # Errors
/// When the report cannot be written; all else is in the report.
pub fn main(
    args: impl Iterator<Item = OsString>,
    input: File,
    mut output: impl Write,
) -> std::io::Result<()> {
    let report = match answer(args, input) {
        Ok(report) => report,
        Err(MainError::Compile(error)) => Report::Refused {
            reason: chain(&error),
        },
        Err(error) => Report::Failed {
            reason: chain(&error),
        },
    };
    output.write_all(&serde_json::to_vec(&report)?)?;
    output.flush()
}

fn answer(mut args: impl Iterator<Item = OsString>, input: File) -> Result<Report, MainError> {
    bounds::put_up().map_err(MainError::step("limit the compiler"))?;
    let mut next = || args.next().ok_or(MainError::Usage);
    let (root, run) = (PathBuf::from(next()?), PathBuf::from(next()?));
    let variant = next()?.into_string().map_err(|_| MainError::Usage)?;
    let variant = Variant::parse(&variant).ok_or(MainError::Usage)?;
    let digest = next()?.into_string().map_err(|_| MainError::Usage)?;
    let digest = ModuleDigest::parse(&digest).map_err(MainError::step("read the digest"))?;
    let invoke = args.next().map(OsString::into_string).transpose();
    let invoke = invoke.map_err(|_| MainError::Usage)?;
    let layout = Layout::open(root, run).map_err(MainError::step("open the store"))?;

    let bytes = read_module(input, &digest)?;
    let info = inspect(&bytes).map_err(CompileError::from)?;
    let serving = info
        .check_entry(invoke.as_deref())
        .map_err(CompileError::from)?;
    let profile = variant.profile(serving);
    let engine = engine(profile).map_err(CompileError::Engine)?;
    let key = engine_key(&engine, profile);
    let cache = ModuleCache::new(&layout, &key);
    // After a reboot the key was forgotten and the file is still there.
    if cache.lookup(&digest).is_none() || cache.record(&digest).is_none() {
        let start = Instant::now();
        let compiled = compile(&engine, &bytes, invoke.as_deref())?;
        let record = record(&digest, &bytes, &compiled, profile, start);
        cache
            .store(&digest, &compiled.artifact, &record)
            .map_err(MainError::step("store the compiled module"))?;
    }
    remember_engine_key(&layout, profile, &key).map_err(MainError::step("remember the engine"))?;
    // What cannot be removed now is tried again by the next worker.
    drop(prune(&layout, profile, &key));
    Ok(Report::Compiled {
        engine_key: key,
        serving,
    })
}

fn read_module(input: File, digest: &ModuleDigest) -> Result<Vec<u8>, MainError> {
    let size = input
        .metadata()
        .map_err(MainError::step("read the module"))?
        .len();
    if size > MAX_MODULE_BYTES {
        return Err(CompileError::TooLarge.into());
    }
    let mut bytes = Vec::new();
    let read = input.take(MAX_MODULE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(MainError::step("read the module"))?;
    let found = ModuleDigest::of(&bytes);
    if found != *digest {
        let found = found.hex().to_owned();
        return Err(MainError::Digest { found });
    }
    Ok(bytes)
}

fn record(
    digest: &ModuleDigest,
    bytes: &[u8],
    compiled: &Compiled,
    profile: Profile,
    start: Instant,
) -> ArtifactRecord {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    ArtifactRecord {
        version: RECORD_VERSION,
        module_digest: format!("sha256:{}", digest.hex()),
        module_bytes: length(bytes),
        artifact_bytes: length(&compiled.artifact),
        artifact_sha256: hex::encode(sha2::Sha256::digest(&compiled.artifact)),
        compile_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        wasmtime: WASMTIME_VERSION.to_owned(),
        profile: profile.to_string(),
        info: compiled.info.clone(),
    }
}

/// The error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
