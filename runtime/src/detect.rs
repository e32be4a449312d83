//! Which runtime an image gets: decided from bytes and config, never from names.
//!
//! Wasm reaches registries in many layouts, and none of them agrees with another on the config
//! type, the layer type or the platform. [`choose`] knows them all and is a pure function of the
//! manifest, the config and the first bytes of the entrypoint. Its answer names the fact that
//! decided, which `ketch run --explain` prints.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Media types of the layouts that carry wasm, and of the ordinary configs beside them.
pub mod media_type {
    /// Config of a CNCF Wasm OCI artifact, version 0.
    pub const WASM_CONFIG_V0: &str = "application/vnd.wasm.config.v0+json";
    /// Config of the artifacts that `wasm-to-oci` and Kubewarden push.
    pub const WASM_CONFIG_V1: &str = "application/vnd.wasm.config.v1+json";
    /// Config of the older Solo and wasmCloud artifacts.
    pub const MODULE_CONFIG_V1: &str = "application/vnd.module.wasm.config.v1+json";
    /// A raw module or component.
    pub const WASM: &str = "application/wasm";
    /// A raw module, as `wasm-to-oci` calls it.
    pub const WASM_CONTENT_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
    /// A raw module, as older wasmCloud tools call it.
    pub const MODULE_CONTENT_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
    /// A raw component, as runwasi called it before the CNCF format.
    pub const COMPONENT_LAYER: &str =
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
    /// The locked application of a Spin image.
    pub const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";
    /// The empty config of a bare OCI 1.1 artifact.
    pub const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
    /// An ordinary image's config.
    pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An ordinary image's config, as Docker calls it.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
}

/// Labels and annotations that say how an image is to be run.
pub mod annotation {
    /// `compat` or `compat-smart`: the image's entrypoint is wasm.
    pub const VARIANT: &str = "module.wasm.image/variant";
    /// `wasm` or `wasm-smart`: what crun reads.
    pub const HANDLER: &str = "run.oci.handler";
    /// Present in a Spin image's config.
    pub const SPIN_DIGEST: &str = "com.fermyon.spin.lockedAppDigest";
}

/// The config types that say "wasm" by themselves.
const WASM_CONFIGS: [&str; 3] = [
    media_type::WASM_CONFIG_V0,
    media_type::WASM_CONFIG_V1,
    media_type::MODULE_CONFIG_V1,
];

/// The layer types whose blob is a module or component, neither tar nor compressed.
const WASM_LAYERS: [&str; 4] = [
    media_type::WASM,
    media_type::WASM_CONTENT_LAYER,
    media_type::MODULE_CONTENT_LAYER,
    media_type::COMPONENT_LAYER,
];

/// How many bytes of a file [`Entrypoint::from_bytes`] and [`binary_kind`] want to see.
pub const HEADER_LEN: usize = 8;

const MODULE_HEADER: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT_HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

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

    fn kind(self) -> Option<BinaryKind> {
        match self {
            Self::Wasm(kind) => Some(kind),
            _ => None,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The runtime.
    pub runtime: RuntimeKind,
    /// Where the module lies, for the wasm runtime.
    pub source: Option<WasmSource>,
    /// Module or component, where the entrypoint's bytes were seen. For a layer, [`binary_kind`]
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

/// Decides which runtime an image gets. `probe` looks at the entrypoint in the root file system
/// and is called only when nothing stronger has decided.
///
/// # Errors
/// When the image carries wasm in a form that cannot be run.
pub fn choose(
    facts: &ManifestFacts,
    over: RuntimeOverride,
    probe: impl FnOnce() -> Entrypoint,
) -> Result<Choice, Unsupported> {
    refuse_foreign(facts)?;
    if over == RuntimeOverride::Native {
        return Ok(native(Reason::Override(RuntimeKind::Native)));
    }
    if let Some(reason) = artifact_reason(facts) {
        return from_layer(facts, reason);
    }
    if is_wasm_architecture(&facts.architecture) {
        let reason = Reason::Platform {
            os: facts.os.clone(),
            architecture: facts.architecture.clone(),
        };
        return from_image(facts, reason, probe);
    }
    if over == RuntimeOverride::Wasm {
        return from_image(facts, Reason::Override(RuntimeKind::Wasm), probe);
    }
    if let Some(reason) = annotation_reason(facts) {
        return from_image(facts, reason, probe);
    }
    Ok(from_entrypoint(facts, probe()))
}

/// Decides for a bare file that the user named: `ketch run ./app.wasm`.
///
/// # Errors
/// When its first bytes are no wasm. `name` is for the message.
pub fn choose_file(name: &str, first_bytes: &[u8]) -> Result<Choice, Unsupported> {
    let kind = binary_kind(name, first_bytes)?;
    Ok(Choice {
        runtime: RuntimeKind::Wasm,
        source: Some(WasmSource::File),
        kind: Some(kind),
        reason: Reason::EntrypointWasm(kind),
    })
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

/// Whether a layer of this type is a module itself, neither tar nor compressed.
#[must_use]
pub fn is_wasm_layer(media_type: &str) -> bool {
    WASM_LAYERS.contains(&media_type)
}

/// Brings the spellings of a wasm platform to one: `wasi/wasm`, or `wasi/wasm64`. Others are
/// returned in lower case.
///
/// ```
/// use runtime::detect::normalise_platform;
/// assert_eq!(normalise_platform("Wasip1", "wasm32"), ("wasi".into(), "wasm".into()));
/// assert_eq!(normalise_platform("linux", "arm64"), ("linux".into(), "arm64".into()));
/// ```
#[must_use]
pub fn normalise_platform(os: &str, architecture: &str) -> (String, String) {
    let os = os.to_ascii_lowercase();
    let architecture = architecture.to_ascii_lowercase();
    let os = match os.as_str() {
        "wasip1" | "wasip2" | "wasip3" => "wasi".to_owned(),
        _ => os,
    };
    let architecture = match architecture.as_str() {
        "wasm32" => "wasm".to_owned(),
        _ => architecture,
    };
    (os, architecture)
}

/// Whether a platform is one of WebAssembly's, however it is spelt.
#[must_use]
pub fn is_wasm_platform(os: &str, architecture: &str) -> bool {
    let (os, _) = normalise_platform(os, architecture);
    os == "wasi" || is_wasm_architecture(architecture)
}

fn is_wasm_architecture(architecture: &str) -> bool {
    ["wasm", "wasm32", "wasm64"]
        .iter()
        .any(|name| architecture.eq_ignore_ascii_case(name))
}

/// Refuses what no override can make runnable.
fn refuse_foreign(facts: &ManifestFacts) -> Result<(), Unsupported> {
    let is_spin = facts
        .layer_media_types
        .iter()
        .any(|layer| layer == media_type::SPIN_APPLICATION)
        || facts.annotations.contains_key(annotation::SPIN_DIGEST);
    if is_spin {
        return Err(Unsupported::SpinApplication);
    }
    let compat = facts
        .annotations
        .get(annotation::VARIANT)
        .is_some_and(|value| value == "compat");
    let platform_is_wasm = is_wasm_platform(&facts.os, &facts.architecture);
    // The same key means "run the entrypoint as wasm" on a container and "proxy-wasm plugin" on
    // an image that has no platform of its own to run on.
    if compat && facts.os.is_empty() && !platform_is_wasm {
        return Err(Unsupported::ProxyWasm);
    }
    Ok(())
}

fn artifact_reason(facts: &ManifestFacts) -> Option<Reason> {
    if WASM_CONFIGS.contains(&facts.config_media_type.as_str()) {
        return Some(Reason::ConfigMediaType(facts.config_media_type.clone()));
    }
    let artifact_type = facts.artifact_type.as_deref().unwrap_or_default();
    if WASM_CONFIGS.contains(&artifact_type) {
        return Some(Reason::ArtifactType(artifact_type.to_owned()));
    }
    let layer = facts.layer_media_types.first()?;
    let bare = facts.config_media_type == media_type::EMPTY_CONFIG;
    let all_wasm = facts
        .layer_media_types
        .iter()
        .all(|layer| is_wasm_layer(layer));
    (bare && all_wasm).then(|| Reason::LayerMediaType(layer.clone()))
}

fn annotation_reason(facts: &ManifestFacts) -> Option<Reason> {
    let wanted = [
        (annotation::VARIANT, "compat"),
        (annotation::HANDLER, "wasm"),
    ];
    wanted.iter().find_map(|(key, value)| {
        let found = facts.annotations.get(*key)?;
        (found == value).then(|| Reason::Annotation {
            key: (*key).to_owned(),
            value: found.clone(),
        })
    })
}

/// The one wasm layer of an artifact.
fn from_layer(facts: &ManifestFacts, reason: Reason) -> Result<Choice, Unsupported> {
    let layers: Vec<usize> = facts
        .layer_media_types
        .iter()
        .enumerate()
        .filter_map(|(index, layer)| is_wasm_layer(layer).then_some(index))
        .collect();
    match layers.as_slice() {
        [] => Err(Unsupported::NoWasmLayer),
        [index] => Ok(Choice {
            runtime: RuntimeKind::Wasm,
            source: Some(WasmSource::Layer(*index)),
            kind: None,
            reason,
        }),
        many => Err(Unsupported::MultipleLayers(many.len())),
    }
}

/// An image that is wasm for `reason`: its wasm layer, or else its entrypoint.
fn from_image(
    facts: &ManifestFacts,
    reason: Reason,
    probe: impl FnOnce() -> Entrypoint,
) -> Result<Choice, Unsupported> {
    if facts.layer_media_types.iter().any(|l| is_wasm_layer(l)) {
        return from_layer(facts, reason);
    }
    let entrypoint = probe();
    if entrypoint == Entrypoint::Elf {
        return Err(Unsupported::Precompiled("entrypoint".to_owned()));
    }
    Ok(Choice {
        runtime: RuntimeKind::Wasm,
        source: Some(WasmSource::File),
        kind: entrypoint.kind(),
        reason,
    })
}

fn from_entrypoint(facts: &ManifestFacts, entrypoint: Entrypoint) -> Choice {
    match entrypoint {
        Entrypoint::Wasm(kind) => Choice {
            runtime: RuntimeKind::Wasm,
            source: Some(WasmSource::File),
            kind: Some(kind),
            reason: Reason::EntrypointWasm(kind),
        },
        Entrypoint::Elf => native(Reason::EntrypointElf),
        Entrypoint::Script => native(Reason::EntrypointScript),
        Entrypoint::Missing | Entrypoint::WasmOther | Entrypoint::Unknown => {
            native(Reason::LinuxPlatform(facts.architecture.clone()))
        }
    }
}

fn native(reason: Reason) -> Choice {
    Choice {
        runtime: RuntimeKind::Native,
        source: None,
        kind: None,
        reason,
    }
}

#[cfg(test)]
mod tests;
