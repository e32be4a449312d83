//! OCI images that carry WebAssembly, run by Wasmtime.
//!
//! A module goes through two processes, neither of which is a front end: the **compile worker**
//! ([`worker`], feature `compiler`) checks and compiles it into the store's cache, and the **wasm
//! host** (module `host`, feature `host`) loads the result inside the container and runs it. Front ends
//! only ask for the compiled file ([`worker::ensure_compiled`]) and write a [`WasmSpec`].
//!
//! Compiler and host make their engine with the one function in [`engine`]: settings that differ
//! make the host refuse the compiler's output. Compiled code is read from the cache alone, never
//! from an image.

pub mod cache;
#[cfg(feature = "compiler")]
pub mod compile;
#[cfg(feature = "compiler")]
pub mod compose;
pub mod engine;
#[cfg(any(feature = "host", test))]
pub mod host;
mod info;
#[cfg(feature = "compiler")]
pub mod inspect;
#[cfg(any(feature = "compiler", feature = "host", test))]
mod interfaces;
#[cfg(any(feature = "compiler", feature = "host", test))]
mod limits;
#[cfg(any(feature = "compiler", feature = "host", test))]
mod link;
#[cfg(any(feature = "compiler", feature = "host", test))]
mod memory;
#[cfg(any(feature = "compiler", feature = "host", test))]
mod outgoing;
mod spec;
pub mod worker;

pub use info::{EntryError, UngrantedImports, WasmInfo, World};
pub use spec::{
    ARTIFACT_FD, Entry, GuestRoot, HttpOptions, Interfaces, KeyValue, Metering, NetworkGrant,
    REPORT_FD, ROOT_FD, ResourceLimits, RootAccess, SPEC_FD, SpecError, Stdin, VERSION, WasmSpec,
};
