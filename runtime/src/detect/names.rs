//! The names that the field uses.

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
pub(super) const WASM_CONFIGS: [&str; 3] = [
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

/// Whether a layer of this type is a module itself, neither tar nor compressed.
#[must_use]
pub fn is_wasm_layer(media_type: &str) -> bool {
    WASM_LAYERS.contains(&media_type)
}
