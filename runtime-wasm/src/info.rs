//! What a module says about itself, as the cache records it.

use std::fmt;

use runtime::detect::BinaryKind;
use serde::{Deserialize, Serialize};

/// What a module or component is, read from its bytes once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmInfo {
    /// Module or component.
    pub kind: BinaryKind,
    /// What it is made to be run as.
    pub world: World,
    /// `module.name` of a core module, interface or function of a component, in order.
    pub imports: Vec<String>,
    /// Exported names, in order.
    pub exports: Vec<String>,
}

/// What a module is made to be run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum World {
    /// A core module with `_start`.
    CommandP1,
    /// `wasi:cli/command` of this version.
    Command(String),
    /// `wasi:http/proxy` of this version (WASI 0.2).
    HttpProxy(String),
    /// `wasi:http/service` of this version (WASI 0.3).
    HttpService(String),
    /// Exports without an entry point, initialised by `_initialize`.
    Reactor,
    /// Exports without an entry point.
    Library,
    /// Interface types and no code.
    WitPackage,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandP1 => f.write_str("wasi preview 1 command"),
            Self::Command(version) => write!(f, "wasi:cli/command@{version}"),
            Self::HttpProxy(version) => write!(f, "wasi:http/proxy@{version}"),
            Self::HttpService(version) => write!(f, "wasi:http/service@{version}"),
            Self::Reactor => f.write_str("reactor"),
            Self::Library => f.write_str("library"),
            Self::WitPackage => f.write_str("WIT package"),
        }
    }
}

/// Why a module cannot be the program of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EntryError {
    /// No entry point.
    #[error("the module is a {world} without an entry point; name an export with `--invoke`")]
    NoEntry {
        /// What it is.
        world: String,
    },
    /// The export that was asked for is absent.
    #[error("the module exports no `{0}`")]
    NoExport(String),
    /// Only types.
    #[error("the file is a WIT package: it has no code")]
    WitPackage,
    /// An HTTP world.
    #[error("the component implements {world}, which is not served yet")]
    Http {
        /// Which one.
        world: String,
    },
}

impl WasmInfo {
    /// Checks that the module can be started: at its entry point, or at the export `invoke`.
    ///
    /// # Errors
    /// When there is nothing to call.
    pub fn check_entry(&self, invoke: Option<&str>) -> Result<(), EntryError> {
        if self.world == World::WitPackage {
            return Err(EntryError::WitPackage);
        }
        if let Some(name) = invoke {
            let found = self.exports.iter().any(|export| export == name);
            return found
                .then_some(())
                .ok_or_else(|| EntryError::NoExport(name.to_owned()));
        }
        let world = self.world.to_string();
        match self.world {
            World::CommandP1 | World::Command(_) => Ok(()),
            World::HttpProxy(_) | World::HttpService(_) => Err(EntryError::Http { world }),
            _ => Err(EntryError::NoEntry { world }),
        }
    }
}
