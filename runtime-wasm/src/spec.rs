//! What the wasm host is told: everything that a container means, in the sandbox's terms.

use runtime::detect::BinaryKind;
use serde::{Deserialize, Serialize};

/// The version of this format. Front end and wasm host are built together; a mismatch means that
/// an old wasm host is still in the run directory.
pub const VERSION: u32 = 1;

/// The wasm host's descriptor with the encoded [`WasmSpec`].
pub const SPEC_FD: i32 = 3;

/// The wasm host's descriptor with the compiled module, open for reading.
pub const ARTIFACT_FD: i32 = 4;

/// The wasm host's descriptor for the one [`runtime::GuestReport`] of an end that an exit code does
/// not tell. A host that was started without it reports nothing.
pub const REPORT_FD: i32 = 5;

/// Why a spec could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The bytes are no spec.
    #[error("cannot decode the wasm container's spec")]
    Decode(#[source] postcard::Error),
    /// The spec could not be encoded.
    #[error("cannot encode the wasm container's spec")]
    Encode(#[source] postcard::Error),
    /// Written by another version of ketch.
    #[error("the wasm container's spec has version {found}, this program reads {VERSION}")]
    Version {
        /// The version that was found.
        found: u32,
    },
}

/// One wasm container. It travels on descriptor 3, in a sealed memfd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmSpec {
    /// [`VERSION`].
    pub version: u32,
    /// What the compiled file on descriptor 4 was made from.
    pub kind: BinaryKind,
    /// Arguments; the first is the program as the image writes it.
    pub args: Vec<String>,
    /// The environment. Of two variables with one name the later one counts.
    pub env: Vec<(String, String)>,
    /// The initial working directory. Preview 1 has no such notion: there it is `$PWD` only.
    pub cwd: String,
    /// The export to call instead of the command's entry point.
    pub invoke: Option<String>,
    /// What of the container's network the guest may use.
    pub network: NetworkGrant,
    /// Bounds on what the guest makes the host allocate.
    pub limits: ResourceLimits,
    /// What the guest may do below `/`, its only preopened directory.
    pub root: RootAccess,
}

impl WasmSpec {
    /// A container with arguments and defaults for all else: no environment, working directory
    /// `/`, no network, a writable root.
    #[must_use]
    pub fn new(kind: BinaryKind, args: Vec<String>) -> Self {
        Self {
            version: VERSION,
            kind,
            args,
            env: Vec::new(),
            cwd: "/".to_owned(),
            invoke: None,
            network: NetworkGrant::None,
            limits: ResourceLimits::default(),
            root: RootAccess::ReadWrite,
        }
    }

    /// Encodes the spec for the memfd.
    ///
    /// # Errors
    /// When a field cannot be represented, which would be a bug of this crate.
    pub fn encode(&self) -> Result<Vec<u8>, SpecError> {
        postcard::to_stdvec(self).map_err(SpecError::Encode)
    }

    /// Decodes what [`WasmSpec::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no spec or one of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SpecError> {
        let (version, _) = postcard::take_from_bytes::<u32>(bytes).map_err(SpecError::Decode)?;
        if version != VERSION {
            return Err(SpecError::Version { found: version });
        }
        postcard::from_bytes(bytes).map_err(SpecError::Decode)
    }
}

/// What of the container's network the guest may use. The network itself is the container's
/// namespace; this is the sandbox's own gate in front of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkGrant {
    /// No socket, no name look-up.
    #[default]
    None,
    /// Whatever the container's namespace reaches.
    Inherit,
}

/// What the guest may do below `/`. The mount tree has its own say: a read-only volume is
/// read-only in both cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootAccess {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Read: for `--read-only` containers that have no writable mount.
    ReadOnly,
}

/// Bounds on what the guest makes the host allocate. The control group is the truth; these lie
/// below it, so that a guest fails with a message instead of being killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// All linear memories together, in bytes; `None` leaves it to the control group.
    pub memory_bytes: Option<u64>,
    /// Elements of each table.
    pub table_elements: u64,
    /// Core instances.
    pub instances: u32,
    /// Linear memories.
    pub memories: u32,
    /// Tables.
    pub tables: u32,
    /// Bytes that one call into the host may copy out of the guest.
    pub hostcall_bytes: u64,
    /// Entries of the resource table: open files, sockets, streams.
    pub resources: u64,
    /// Random bytes that one call may ask for.
    pub random_bytes: u64,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            table_elements: 10_000_000,
            instances: 10_000,
            memories: 1_000,
            tables: 1_000,
            hostcall_bytes: 128 << 20,
            resources: 100_000,
            random_bytes: 64 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_encoded_and_decoded_is_the_same() {
        let mut spec = WasmSpec::new(BinaryKind::Component, vec!["/app.wasm".to_owned()]);
        spec.env.push(("NAME".to_owned(), "ketch".to_owned()));
        spec.invoke = Some("greet".to_owned());
        let bytes = spec.encode().unwrap();
        assert_eq!(WasmSpec::decode(&bytes).unwrap(), spec);
    }

    #[test]
    fn spec_of_another_version_is_refused() {
        let mut spec = WasmSpec::new(BinaryKind::CoreModule, Vec::new());
        spec.version = VERSION + 1;
        let error = WasmSpec::decode(&spec.encode().unwrap()).unwrap_err();
        assert!(matches!(error, SpecError::Version { found } if found == VERSION + 1));
        assert!(matches!(WasmSpec::decode(&[]), Err(SpecError::Decode(_))));
    }
}
