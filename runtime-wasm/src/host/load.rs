//! Loads compiled code: the only unsafe calls of this crate.

use std::fs::File;
use std::io::Read;

use runtime::detect::BinaryKind;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// Why compiled code was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Compiled by another version of ketch, or for another CPU.
    #[error(
        "the compiled module does not fit this engine; remove it from the store's `compiled` directory"
    )]
    Incompatible(#[source] wasmtime::Error),
    /// The engine cannot be made on this machine.
    #[error("cannot make the WebAssembly engine")]
    Engine(#[source] wasmtime::Error),
    /// The event loop cannot be made.
    #[error("cannot make the event loop")]
    Runtime(#[source] std::io::Error),
    /// The process could not be confined to what the guest needs.
    #[error("cannot confine the wasm host")]
    Confine(#[source] std::io::Error),
    /// The signals that ask for the end cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// It could not be read.
    #[error("cannot read the compiled module")]
    Read(#[source] std::io::Error),
}

/// Compiled code.
#[derive(Debug)]
pub(super) enum Code {
    /// Of a core module.
    Module(Module),
    /// Of a component.
    Component(Component),
}

/// Maps the compiled file. `artifact` must come from the store's cache: this is machine code.
pub(super) fn load(engine: &Engine, kind: BinaryKind, artifact: File) -> Result<Code, LoadError> {
    match kind {
        BinaryKind::CoreModule => load_module(engine, artifact).map(Code::Module),
        BinaryKind::Component => load_component(engine, artifact).map(Code::Component),
    }
}

#[expect(
    unsafe_code,
    reason = "compiled code is loaded as it is; wasmtime has no safe call for it"
)]
fn load_module(engine: &Engine, artifact: File) -> Result<Module, LoadError> {
    // SAFETY: the bytes must come unmodified from `Module::serialize`. The front end opened the
    // file in the store's cache (directory 0700, file 0600), which the compile worker alone writes,
    // by rename, so that a mapped file never changes. No image and no guest reaches it.
    unsafe { Module::deserialize_open_file(engine, artifact) }.map_err(LoadError::Incompatible)
}

#[expect(
    unsafe_code,
    reason = "compiled code is loaded as it is; wasmtime has no safe call for it"
)]
fn load_component(engine: &Engine, mut artifact: File) -> Result<Component, LoadError> {
    // Components have no call that takes an open file. `/proc` may be missing in the container.
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", artifact.as_raw_fd());
        let path = std::path::Path::new(&path);
        if path.exists() {
            // SAFETY: as for modules; the path names the descriptor that the front end opened.
            return unsafe { Component::deserialize_file(engine, path) }
                .map_err(LoadError::Incompatible);
        }
    }
    let mut bytes = Vec::new();
    artifact.read_to_end(&mut bytes).map_err(LoadError::Read)?;
    // SAFETY: as for modules; these are the file's bytes.
    unsafe { Component::deserialize(engine, bytes) }.map_err(LoadError::Incompatible)
}
