//! What the registry tests need: a store, documents, a real registry, a server that lies.

pub(crate) mod real;
pub(crate) mod stub;

use image::{ContentStore, Digest};
use state::Layout;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An empty content store.
pub(crate) struct Place {
    pub(crate) content: ContentStore,
    layout: Layout,
    _dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        Self {
            content: ContentStore::open(&layout),
            layout,
            _dir: dir,
        }
    }

    pub(crate) fn leftovers(&self) -> usize {
        std::fs::read_dir(self.layout.tmp()).unwrap().count()
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({
        "mediaType": media_type,
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
    })
}

pub(crate) fn on_platform(
    descriptor: &serde_json::Value,
    os: &str,
    architecture: &str,
) -> serde_json::Value {
    let mut descriptor = descriptor.clone();
    descriptor["platform"] = serde_json::json!({"os": os, "architecture": architecture});
    descriptor
}

pub(crate) fn manifest_of(config: &serde_json::Value, layers: &[serde_json::Value]) -> Vec<u8> {
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    manifest.to_string().into_bytes()
}

pub(crate) fn index_of(entries: &[serde_json::Value]) -> Vec<u8> {
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": entries,
    });
    index.to_string().into_bytes()
}
