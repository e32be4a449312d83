//! A module as a CNCF Wasm OCI artifact (version 0): an OCI layout with one raw layer.

use std::path::Path;

use anyhow::Context as _;
use runtime::detect::{BinaryKind, media_type};
use runtime_wasm::WasmInfo;
use runtime_wasm::cache::ModuleDigest;
use serde_json::{Value, json};
use sys::durable::{Durability, replace_file};

use super::wasm::artifact_os;

/// Writes the layout into an empty directory.
pub(crate) fn write(
    dir: &Path,
    name: &str,
    title: &str,
    module: &[u8],
    info: &WasmInfo,
) -> anyhow::Result<()> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).context("cannot write the artifact")?;
    let put = |media_type: &str, bytes: &[u8]| -> anyhow::Result<Value> {
        let digest = ModuleDigest::of(bytes);
        replace_file(&blobs.join(digest.hex()), bytes, Durability::Atomic)
            .context("cannot write the artifact")?;
        Ok(json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", digest.hex()),
            "size": bytes.len(),
        }))
    };
    let mut layer = put(media_type::WASM, module)?;
    let mut config = json!({
        "architecture": "wasm",
        "os": artifact_os(info.kind),
        "layerDigests": [layer["digest"]],
    });
    if info.kind == BinaryKind::Component {
        config["component"] = json!({ "exports": info.exports, "imports": info.imports });
    }
    layer["annotations"] = json!({ "org.opencontainers.image.title": title });
    let config = put(media_type::WASM_CONFIG_V0, &serde_json::to_vec(&config)?)?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [layer],
    });
    let mut manifest = put(manifest_type, &serde_json::to_vec(&manifest)?)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    let files = [
        ("index.json", serde_json::to_vec(&index)?),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
    ];
    for (file, bytes) in files {
        replace_file(&dir.join(file), &bytes, Durability::Atomic)
            .context("cannot write the artifact")?;
    }
    Ok(())
}
