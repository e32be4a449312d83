//! The decision.

use super::choice::{
    Choice, ManifestFacts, Reason, RuntimeKind, RuntimeOverride, Unsupported, WasmSource,
};
use super::header::{Entrypoint, binary_kind};
use super::names::{WASM_CONFIGS, annotation, is_wasm_layer, media_type};
use super::platform::{is_wasm_architecture, is_wasm_platform};

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
