//! The compile worker, seen from both sides.
//!
//! A front end asks for a module's compiled file ([`ensure_compiled`]). A hit is one small read
//! and one look-up. On a miss it starts `ketch` again with [`SUBCOMMAND`], the module on standard
//! input; that process (`main`, feature `compiler`) limits itself, compiles into the cache, and
//! answers with one [`Report`] on standard output. One lock file a digest keeps several front ends
//! from compiling the same module at once.

#[cfg(feature = "compiler")]
mod bounds;
#[cfg(feature = "compiler")]
mod compile;
mod report;
mod request;
mod variant;

#[cfg(feature = "compiler")]
pub use compile::main;
pub use report::Report;
pub use request::{CompileRequest, CompiledFile, WorkerError, ensure_compiled};
pub use variant::Variant;

/// The hidden subcommand of `ketch` that is the worker:
/// `ketch wasm-compile-worker ROOT RUN VARIANT DIGEST [EXPORT]`.
pub const SUBCOMMAND: &str = "wasm-compile-worker";
