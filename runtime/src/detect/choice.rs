//! The question and the answer.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::header::BinaryKind;

/// What a manifest and its config say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// `config.mediaType`.
    pub config_media_type: String,
    /// `artifactType`.
    pub artifact_type: Option<String>,
    /// `layers[].mediaType`, in order.
    pub layer_media_types: Vec<String>,
    /// `os` of the config, else of the descriptor's platform.
    pub os: String,
    /// `architecture` of the config, else of the descriptor's platform.
    pub architecture: String,
    /// Annotations of the manifest and labels of the config.
    pub annotations: BTreeMap<String, String>,
}

/// What the user asked for with `--runtime`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeOverride {
    /// Nothing: the content decides.
    #[default]
    Auto,
    /// A Linux container.
    Native,
    /// A Wasmtime sandbox.
    Wasm,
}

/// The runtime of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeKind {
    /// Linux namespaces and cgroups.
    Native,
    /// A Wasmtime sandbox inside them.
    Wasm,
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Wasm => "wasm",
        })
    }
}

/// Where the module lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WasmSource {
    /// The layer with this index is the module itself.
    Layer(usize),
    /// The entrypoint in the root file system, or a file that the user named.
    File,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The runtime.
    pub runtime: RuntimeKind,
    /// Where the module lies, for the wasm runtime.
    pub source: Option<WasmSource>,
    /// Module or component, where the entrypoint's bytes were seen. For a layer, [`super::binary_kind`]
    /// tells it from the blob.
    pub kind: Option<BinaryKind>,
    /// The fact that decided.
    pub reason: Reason,
}

/// The fact that decided for a runtime. `Display` is the sentence that `--explain` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// `--runtime`.
    Override(RuntimeKind),
    /// The config's media type.
    ConfigMediaType(String),
    /// The manifest's artifact type.
    ArtifactType(String),
    /// An empty config and nothing but layers of this type.
    LayerMediaType(String),
    /// The platform in the image's config.
    Platform {
        /// As written there.
        os: String,
        /// As written there.
        architecture: String,
    },
    /// An annotation or a label.
    Annotation {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The entrypoint's first bytes.
    EntrypointWasm(BinaryKind),
    /// `\x7fELF`.
    EntrypointElf,
    /// `#!`.
    EntrypointScript,
    /// A Linux platform, and nothing in the entrypoint that speaks against it.
    LinuxPlatform(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Override(kind) => write!(f, "`--runtime {kind}` was given"),
            Self::ConfigMediaType(value) => write!(f, "config media type {value}"),
            Self::ArtifactType(value) => write!(f, "artifact type {value}"),
            Self::LayerMediaType(value) => write!(f, "empty config and layer media type {value}"),
            Self::Platform { os, architecture } => write!(f, "platform {os}/{architecture}"),
            Self::Annotation { key, value } => write!(f, "annotation {key}={value}"),
            Self::EntrypointWasm(kind) => write!(f, "entrypoint starts with \\0asm ({kind})"),
            Self::EntrypointElf => f.write_str("entrypoint starts with \\x7fELF"),
            Self::EntrypointScript => f.write_str("entrypoint starts with #!"),
            Self::LinuxPlatform(arch) => {
                write!(f, "platform linux/{arch}, and the entrypoint is no wasm")
            }
        }
    }
}

/// Why content that carries wasm is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// Several components and their routes, not one program.
    #[error("the image is a Spin application, not a container")]
    SpinApplication,
    /// CNCF Wasm OCI artifact v0: consumers should reject more than one layer.
    #[error("the wasm artifact has {0} wasm layers, and only one is allowed")]
    MultipleLayers(usize),
    /// No layer is a module.
    #[error("the wasm artifact has no wasm layer")]
    NoWasmLayer,
    /// A filter for Envoy.
    #[error("the image is a proxy-wasm plugin, which is no WASI program")]
    ProxyWasm,
    /// Machine code must never be taken from an image.
    #[error(
        "`{0}` is an ELF file where wasm was expected; compiled code is never taken from an image"
    )]
    Precompiled(String),
    /// A media type promised wasm.
    #[error("`{0}` does not start with \\0asm")]
    NotWasm(String),
    /// A future or an ancient version.
    #[error("`{0}` has an unknown WebAssembly version")]
    UnknownVersion(String),
}
