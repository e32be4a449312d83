//! What the wasm host is told: everything that a container means, in the sandbox's terms.

use runtime::detect::BinaryKind;
use serde::{Deserialize, Serialize};

/// The version of this format. Front end and wasm host are built together; a mismatch means that
/// an old wasm host is still in the run directory.
pub const VERSION: u32 = 3;

/// The wasm host's descriptor with the encoded [`WasmSpec`].
pub const SPEC_FD: i32 = 3;

/// The wasm host's descriptor with the compiled module, open for reading.
pub const ARTIFACT_FD: i32 = 4;

/// The wasm host's descriptor for the one [`runtime::GuestReport`] of an end that an exit code does
/// not tell. A host that was started without it reports nothing.
pub const REPORT_FD: i32 = 5;

/// The wasm host's descriptor with the directory that the guest sees as `/`
/// ([`GuestRoot::Descriptor`]).
pub const ROOT_FD: i32 = 6;

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
    /// What the guest reads as its standard input.
    pub stdin: Stdin,
    /// The initial working directory. Preview 1 has no such notion: there it is `$PWD` only.
    pub cwd: String,
    /// What is run.
    pub entry: Entry,
    /// How the compiled file was made, besides [`Entry`].
    pub metering: Metering,
    /// The guest, or one request of an HTTP world, is ended after so many milliseconds.
    pub timeout_ms: Option<u64>,
    /// What of the container's network the guest may use.
    pub network: NetworkGrant,
    /// Bounds on what the guest makes the host allocate.
    pub limits: ResourceLimits,
    /// Where `/` is, the guest's only preopened directory.
    pub guest_root: GuestRoot,
    /// What the guest may do below it.
    pub root: RootAccess,
    /// Host interfaces that were asked for.
    pub interfaces: Interfaces,
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
            stdin: Stdin::default(),
            cwd: "/".to_owned(),
            entry: Entry::Command,
            metering: Metering::default(),
            timeout_ms: None,
            network: NetworkGrant::None,
            limits: ResourceLimits::default(),
            guest_root: GuestRoot::Path("/".to_owned()),
            root: RootAccess::ReadWrite,
            interfaces: Interfaces::default(),
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

/// What a command reads as its standard input. HTTP worlds read none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// That of the process.
    #[default]
    Inherit,
    /// Nothing: it is at its end.
    Empty,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The command's entry point.
    Command,
    /// This export.
    Export(String),
    /// The component answers HTTP requests.
    Http(HttpOptions),
}

/// How an HTTP world is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOptions {
    /// The address to listen at: the container's own network.
    pub address: std::net::SocketAddr,
    /// Requests that one instance answers, one after the other (WASI 0.3: also at once) before it is
    /// thrown away; 1 gives each request a fresh instance.
    pub requests_per_instance: u32,
    /// Requests that are answered at once; more wait.
    pub concurrent_requests: u32,
    /// Connections that are open at once; more wait in the kernel's queue.
    pub connections: u32,
    /// How long requests may go on after the signal to stop, in milliseconds.
    pub drain_ms: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            address: std::net::SocketAddr::from(([0, 0, 0, 0], Self::PORT)),
            requests_per_instance: 1,
            concurrent_requests: 128,
            connections: 1024,
            drain_ms: 8_000,
        }
    }
}

impl HttpOptions {
    /// The port when nothing says otherwise.
    pub const PORT: u16 = 8080;
    /// How long one request may take when nothing says otherwise, in milliseconds.
    pub const TIMEOUT_MS: u64 = 30_000;
}

/// What is compiled into the guest's code besides the guest. Both cost speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metering {
    /// How many units of work the guest may do, about one an instruction; unmeasured when absent.
    pub fuel: Option<u64>,
    /// The same input gives the same output: NaNs are canonical, clocks count how often they are
    /// read, random numbers come from one seed.
    pub deterministic: bool,
}

/// Where the directory is that the guest sees as `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestRoot {
    /// Inherited at [`ROOT_FD`]: the container's mount tree without the kernel's file systems.
    Descriptor,
    /// This path.
    Path(String),
    /// Nowhere: the guest has no directory.
    None,
}

/// Host interfaces besides WASI's own. Each is there only when it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interfaces {
    /// `wasi:config/store` with these values.
    pub config: Option<Vec<(String, String)>>,
    /// `wasi:keyvalue`.
    pub keyvalue: Option<KeyValue>,
    /// `wasi:logging/logging`, to standard error.
    pub logging: bool,
}

/// Where `wasi:keyvalue` keeps what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyValue {
    /// In memory, until the container ends.
    Memory,
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
    /// Bytes of the header fields of one message.
    pub http_fields_bytes: u64,
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
            http_fields_bytes: 128 << 10,
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
        spec.entry = Entry::Export("greet".to_owned());
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
