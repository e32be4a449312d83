//! The first bytes of a file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::choice::Unsupported;

/// How many bytes of a file [`Entrypoint::from_bytes`] and [`binary_kind`] want to see.
pub const HEADER_LEN: usize = 8;

const MODULE_HEADER: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT_HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

/// The two binary formats of WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinaryKind {
    /// A core module: WASI preview 1.
    CoreModule,
    /// A component: WASI preview 2 and later.
    Component,
}

impl fmt::Display for BinaryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoreModule => "core module",
            Self::Component => "component",
        })
    }
}

/// What the entrypoint's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrypoint {
    /// There is no such file: execution reports it.
    Missing,
    /// `\x7fELF`.
    Elf,
    /// `#!`, whatever the file is called.
    Script,
    /// `\0asm` and a version that this engine knows.
    Wasm(BinaryKind),
    /// `\0asm` and another version.
    WasmOther,
    /// Anything else: the kernel decides.
    Unknown,
}

impl Entrypoint {
    /// Reads the first [`HEADER_LEN`] bytes of the entrypoint; fewer when the file is shorter.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"\x7fELF") {
            Self::Elf
        } else if bytes.starts_with(b"#!") {
            Self::Script
        } else if bytes.starts_with(MODULE_HEADER) {
            Self::Wasm(BinaryKind::CoreModule)
        } else if bytes.starts_with(COMPONENT_HEADER) {
            Self::Wasm(BinaryKind::Component)
        } else if bytes.starts_with(b"\0asm") {
            Self::WasmOther
        } else {
            Self::Unknown
        }
    }

    pub(super) fn kind(self) -> Option<BinaryKind> {
        match self {
            Self::Wasm(kind) => Some(kind),
            _ => None,
        }
    }
}

/// Tells a module from a component by the first [`HEADER_LEN`] bytes of what a media type, a
/// platform or a user promised to be wasm. `name` is for the message.
///
/// # Errors
/// [`Unsupported::Precompiled`] for an ELF file, [`Unsupported::NotWasm`] for anything else.
pub fn binary_kind(name: &str, first_bytes: &[u8]) -> Result<BinaryKind, Unsupported> {
    match Entrypoint::from_bytes(first_bytes) {
        Entrypoint::Wasm(kind) => Ok(kind),
        Entrypoint::WasmOther => Err(Unsupported::UnknownVersion(name.to_owned())),
        Entrypoint::Elf => Err(Unsupported::Precompiled(name.to_owned())),
        _ => Err(Unsupported::NotWasm(name.to_owned())),
    }
}
