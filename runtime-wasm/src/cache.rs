//! The cache of compiled modules: `compiled/<engine key>/<digest>.cwasm`, with a record beside it.
//!
//! Compiled code is machine code: the directory is reachable for its owner alone, files are
//! written by the compile worker alone, and nothing here ever looks into an image.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::Layout;
use sys::durable::{Durability, discard, make_private_dir, remove_tree, replace_file};

use crate::engine::{PROFILE_REVISION, Profile};
use crate::info::WasmInfo;

/// The version of [`ArtifactRecord`].
pub const RECORD_VERSION: u32 = 1;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The digest would not be a file name.
    #[error("`{0}` is no sha256 digest")]
    Digest(String),
    /// Something could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The record could not be encoded.
    #[error("cannot encode the record of a compiled module")]
    Encode(#[source] serde_json::Error),
}

/// What is recorded beside a compiled module, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The module's digest.
    pub module_digest: String,
    /// The module's size in bytes.
    pub module_bytes: u64,
    /// The compiled file's size in bytes.
    pub artifact_bytes: u64,
    /// The compiled file's SHA-256, in hexadecimal.
    pub artifact_sha256: String,
    /// How long the compiler took.
    pub compile_ms: u64,
    /// The wasmtime release.
    pub wasmtime: String,
    /// The engine's profile.
    pub profile: String,
    /// What the module is.
    pub info: WasmInfo,
}

#[cfg(test)]
impl ArtifactRecord {
    /// A record of a module of which nothing else is known.
    pub(crate) fn for_tests(digest: &ModuleDigest, info: WasmInfo) -> Self {
        Self {
            version: RECORD_VERSION,
            module_digest: digest.hex().to_owned(),
            module_bytes: 1,
            artifact_bytes: 4,
            artifact_sha256: String::new(),
            compile_ms: 0,
            wasmtime: String::new(),
            profile: String::new(),
            info,
        }
    }
}

/// The compiled modules of one engine.
#[derive(Debug, Clone)]
pub struct ModuleCache {
    dir: PathBuf,
}

impl ModuleCache {
    /// Names the cache of the engine with this key.
    #[must_use]
    pub fn new(layout: &Layout, engine_key: &str) -> Self {
        Self {
            dir: layout.compiled().join(engine_key),
        }
    }

    /// The compiled file of a module, when it is there.
    #[must_use]
    pub fn lookup(&self, digest: &ModuleDigest) -> Option<PathBuf> {
        let path = self.artifact(digest);
        path.is_file().then_some(path)
    }

    /// What is recorded about a compiled module. A record that cannot be read is none.
    #[must_use]
    pub fn record(&self, digest: &ModuleDigest) -> Option<ArtifactRecord> {
        let bytes = std::fs::read(self.sidecar(digest)).ok()?;
        let record: ArtifactRecord = serde_json::from_slice(&bytes).ok()?;
        (record.version == RECORD_VERSION).then_some(record)
    }

    /// Stores a compiled module. Its record is written first: what has its final name is complete.
    ///
    /// # Errors
    /// When the cache cannot be written to.
    pub fn store(
        &self,
        digest: &ModuleDigest,
        artifact: &[u8],
        record: &ArtifactRecord,
    ) -> Result<PathBuf, CacheError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| CacheError::Write { path, source }
        };
        make_private_dir(&self.dir).map_err(failed(&self.dir))?;
        let json = serde_json::to_vec(record).map_err(CacheError::Encode)?;
        let sidecar = self.sidecar(digest);
        replace_file(&sidecar, &json, Durability::Atomic).map_err(failed(&sidecar))?;
        let path = self.artifact(digest);
        // Synced: after a power cut a file of zeros would be refused at every start.
        replace_file(&path, artifact, Durability::Synced).map_err(failed(&path))?;
        Ok(path)
    }

    fn artifact(&self, digest: &ModuleDigest) -> PathBuf {
        self.dir.join(format!("{}.cwasm", digest.hex()))
    }

    fn sidecar(&self, digest: &ModuleDigest) -> PathBuf {
        self.dir.join(format!("{}.json", digest.hex()))
    }
}

/// The SHA-256 of a module's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleDigest {
    hex: String,
}

impl ModuleDigest {
    /// Reads `sha256:<hex>`, or the hexadecimal digits alone.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, CacheError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != 64 || !hex.bytes().all(is_digit) {
            return Err(CacheError::Digest(text.to_owned()));
        }
        Ok(Self {
            hex: hex.to_owned(),
        })
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self {
            hex: hex::encode(sha2::Sha256::digest(bytes)),
        }
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

/// Reads the key of this machine's engine, as the compile worker of this version of ketch found it
/// since the machine was started. It lies in the run directory: another boot may have another CPU.
#[must_use]
pub fn remembered_engine_key(layout: &Layout, profile: Profile) -> Option<String> {
    let key = std::fs::read_to_string(engine_key_file(layout, profile)).ok()?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let sound = !key.is_empty() && !key.starts_with('.') && key.bytes().all(is_name);
    sound.then_some(key)
}

/// Remembers the engine's key for [`remembered_engine_key`].
///
/// # Errors
/// When the run directory cannot be written to.
pub fn remember_engine_key(layout: &Layout, profile: Profile, key: &str) -> Result<(), CacheError> {
    let path = engine_key_file(layout, profile);
    replace_file(&path, key.as_bytes(), Durability::Atomic)
        .map_err(|source| CacheError::Write { path, source })
}

/// Removes what engines of this profile with other settings have compiled: after an update, or on
/// another CPU. A container that runs keeps the file that it has mapped.
///
/// # Errors
/// When something cannot be removed.
pub fn prune(layout: &Layout, profile: Profile, key: &str) -> Result<(), CacheError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        |source| CacheError::Write { path, source }
    };
    let dir = layout.compiled();
    for entry in std::fs::read_dir(&dir).map_err(failed(&dir))? {
        let entry = entry.map_err(failed(&dir))?;
        let name = entry.file_name();
        let other = name.to_str().is_some_and(|name| {
            let profile_part = name.rsplit_once('-').map_or(name, |(part, _)| part);
            name != key && profile_part.ends_with(&format!("-{profile}"))
        });
        if other {
            let path = entry.path();
            let discarded = discard(&path, &layout.trash()).map_err(failed(&path))?;
            if let Some(trashed) = discarded {
                remove_tree(&trashed).map_err(failed(&trashed))?;
            }
        }
    }
    Ok(())
}

fn engine_key_file(layout: &Layout, profile: Profile) -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    layout.run().join(format!(
        "wasm-engine-key-{version}-{PROFILE_REVISION}-{profile}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::World;
    use runtime::detect::BinaryKind;
    use std::os::unix::fs::PermissionsExt;

    fn layout(dir: &Path) -> Layout {
        Layout::open(dir.join("root"), dir.join("run")).unwrap()
    }

    fn record(digest: &ModuleDigest) -> ArtifactRecord {
        let info = WasmInfo {
            kind: BinaryKind::CoreModule,
            world: World::CommandP1,
            imports: Vec::new(),
            exports: Vec::new(),
        };
        ArtifactRecord::for_tests(digest, info)
    }

    #[test]
    fn stored_artifact_is_found_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ModuleCache::new(&layout(dir.path()), "key");
        let digest = ModuleDigest::of(b"module");
        assert_eq!(cache.lookup(&digest), None);
        let path = cache.store(&digest, b"code", &record(&digest)).unwrap();
        assert_eq!(cache.lookup(&digest), Some(path.clone()));
        assert_eq!(cache.record(&digest), Some(record(&digest)));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn prune_removes_other_engines_of_the_same_profile_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let digest = ModuleDigest::of(b"module");
        let keys = [
            "48.0.8-command-00000000000000aa",
            "47.0.1-command-00000000000000bb",
            "48.0.8-command-fuel-00000000000000cc",
            "48.0.8-http-00000000000000dd",
        ];
        for key in keys {
            let cache = ModuleCache::new(&layout, key);
            cache.store(&digest, b"code", &record(&digest)).unwrap();
        }
        prune(&layout, Profile::COMMAND, keys[0]).unwrap();
        let left = |key: &&str| layout.compiled().join(key).exists();
        let left: Vec<&str> = keys.into_iter().filter(left).collect();
        assert_eq!(left, [keys[0], keys[2], keys[3]]);
        assert_eq!(std::fs::read_dir(layout.trash()).unwrap().count(), 0);
    }

    #[test]
    fn engine_key_that_is_no_file_name_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        assert_eq!(remembered_engine_key(&layout, Profile::COMMAND), None);
        remember_engine_key(&layout, Profile::COMMAND, "48.0.8-command-00ff").unwrap();
        assert_eq!(
            remembered_engine_key(&layout, Profile::COMMAND).unwrap(),
            "48.0.8-command-00ff"
        );
        remember_engine_key(&layout, Profile::COMMAND, "../../etc").unwrap();
        assert_eq!(remembered_engine_key(&layout, Profile::COMMAND), None);
    }

    #[test]
    fn module_digest_of_another_form_is_refused() {
        let digest = ModuleDigest::of(b"");
        assert_eq!(
            ModuleDigest::parse(&format!("sha256:{}", digest.hex())).unwrap(),
            digest
        );
        for text in [
            "",
            "sha256:",
            "sha512:00",
            "../../../etc/passwd",
            &"A".repeat(64),
        ] {
            assert!(matches!(
                ModuleDigest::parse(text),
                Err(CacheError::Digest(_))
            ));
        }
    }
}
