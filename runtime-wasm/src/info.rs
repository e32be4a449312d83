//! What a module says about itself, as the cache records it.

use std::fmt;

use runtime::detect::BinaryKind;
use serde::{Deserialize, Serialize};

use crate::engine::Serving;
use crate::spec::Interfaces;

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
}

/// Host interfaces that a module imports and that nobody granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the module imports what was not granted: {0}")]
pub struct UngrantedImports(String);

impl WasmInfo {
    /// Checks that the module can be started, at its entry point or at the export `invoke`, and
    /// tells as what. An export of a component's instance is written `interface#function`.
    ///
    /// # Errors
    /// When there is nothing to call.
    pub fn check_entry(&self, invoke: Option<&str>) -> Result<Serving, EntryError> {
        if self.world == World::WitPackage {
            return Err(EntryError::WitPackage);
        }
        if let Some(name) = invoke {
            let exported = name.rsplit_once('#').map_or(name, |(instance, _)| instance);
            let found = self.exports.iter().any(|export| export == exported);
            return found
                .then_some(Serving::Command)
                .ok_or_else(|| EntryError::NoExport(name.to_owned()));
        }
        match self.world {
            World::CommandP1 | World::Command(_) => Ok(Serving::Command),
            World::HttpProxy(_) | World::HttpService(_) => Ok(Serving::Http),
            _ => Err(EntryError::NoEntry {
                world: self.world.to_string(),
            }),
        }
    }

    /// Checks that every optional host interface that the module imports was asked for.
    ///
    /// # Errors
    /// With all of those that were not, and how to ask for each.
    pub fn check_interfaces(&self, granted: &Interfaces) -> Result<(), UngrantedImports> {
        let options = [
            ("wasi:config/", granted.config.is_some(), "--wasm-config"),
            (
                "wasi:keyvalue/",
                granted.keyvalue.is_some(),
                "--wasm-keyvalue",
            ),
            ("wasi:logging/", granted.logging, "--wasm-logging"),
        ];
        let mut ungranted = Vec::new();
        for import in &self.imports {
            let option = options
                .iter()
                .find(|(package, granted, _)| !granted && import.starts_with(package));
            if let Some((_, _, option)) = option {
                ungranted.push(format!("{import} (see {option})"));
            }
        }
        match ungranted.is_empty() {
            true => Ok(()),
            false => Err(UngrantedImports(ungranted.join(", "))),
        }
    }

    /// Functions of preview 1 sockets that the module imports. They are there and always fail:
    /// preview 1 has no way to make a socket.
    #[must_use]
    pub fn preview1_sockets(&self) -> Vec<&str> {
        let names = self.imports.iter().map(String::as_str);
        names
            .filter(|name| name.starts_with("wasi_snapshot_preview1.sock_"))
            .collect()
    }
}
