//! Host interfaces besides WASI's own: `wasi:config`, `wasi:keyvalue`, `wasi:logging`.
//!
//! They are drafts of their proposals. Each is defined under the very name that a component imports,
//! so that the version is the component's choice; the types are checked when it is linked. Which of
//! them a guest gets is the user's choice, checked when the container is created.

mod config;
mod keyvalue;
mod logging;

use wasmtime::component::Linker;

use crate::link::Guest;
#[cfg(any(feature = "host", test))]
use crate::spec;

pub(crate) use keyvalue::Store;

/// What the interfaces of one container know. Instances of one server share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interfaces {
    config: Vec<(String, String)>,
    keyvalue: Store,
}

#[cfg(any(feature = "host", test))]
impl Interfaces {
    pub(crate) fn new(granted: &spec::Interfaces) -> Self {
        Self {
            config: granted.config.clone().unwrap_or_default(),
            keyvalue: Store::default(),
        }
    }
}

/// Whether an import is one of these.
#[cfg(feature = "compiler")]
pub(crate) fn provides(import: &str) -> bool {
    definition(import).is_some()
}

/// Defines an import, when it is one of these.
pub(crate) fn define(linker: &mut Linker<Guest>, import: &str) -> wasmtime::Result<()> {
    match definition(import) {
        Some(define) => define(linker, import),
        None => Ok(()),
    }
}

type Define = fn(&mut Linker<Guest>, &str) -> wasmtime::Result<()>;

fn definition(import: &str) -> Option<Define> {
    let known: [(&str, Define); 5] = [
        ("wasi:config/store", config::define),
        ("wasi:keyvalue/store", keyvalue::define_store),
        ("wasi:keyvalue/atomics", keyvalue::define_atomics),
        ("wasi:keyvalue/batch", keyvalue::define_batch),
        ("wasi:logging/logging", logging::define),
    ];
    let name = import.split('@').next().unwrap_or(import);
    let found = known.iter().find(|(path, _)| *path == name);
    found.map(|(_, define)| *define)
}
