//! What the registry tests need: a store, documents, a real registry, a server that lies.

pub(crate) mod real;
pub(crate) mod stub;

use std::io::Write as _;

use image::{ContentStore, Digest, Store, UnpackMode};
use state::Layout;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An empty content store.
pub(crate) struct Place {
    pub(crate) content: ContentStore,
    pub(crate) store: Store,
    layout: Layout,
    _dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        Self {
            content: ContentStore::open(&layout),
            store: Store::open(&layout, UnpackMode::default()).unwrap(),
            layout,
            _dir: dir,
        }
    }

    /// The beginnings of blobs.
    pub(crate) fn beginnings(&self) -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(self.layout.content()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "part"))
            .collect()
    }

    /// How many layers are unpacked.
    pub(crate) fn layers(&self) -> usize {
        let files = std::fs::read_dir(self.layout.layers()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.extension().is_none()).count()
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

/// A real image: a layer with one file of these bytes, its config and its manifest.
pub(crate) struct RealImage {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl RealImage {
    pub(crate) fn new(content: &[u8]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "file", content).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let layer = gzip.finish().unwrap();
        let host = image::Platform::host();
        let config = serde_json::json!({
            "os": host.os(), "architecture": host.architecture(), "config": {"Cmd": ["/file"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_string()]},
        });
        let config = config.to_string().into_bytes();
        let gzipped = format!("{LAYER}+gzip");
        let layers = [descriptor(&gzipped, &layer)];
        let manifest = manifest_of(&descriptor(CONFIG, &config), &layers);
        Self {
            layer,
            config,
            manifest,
        }
    }

    /// Bytes that do not compress.
    pub(crate) fn large() -> Self {
        let mut state = 1_u64;
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        Self::new(&(0..3_000_000).map(next).collect::<Vec<u8>>())
    }

    /// Where its layer is.
    pub(crate) fn layer_path(&self) -> String {
        format!("/v2/app/blobs/{}", Digest::of(&self.layer))
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, request: &stub::Request) -> stub::Answer {
        let is = |bytes: &[u8]| request.path == format!("/v2/app/blobs/{}", Digest::of(bytes));
        match request.path.as_str() {
            "/v2/" => stub::Answer::new(200),
            path if path.starts_with("/v2/app/manifests/") => stub::Answer::new(200)
                .header("Content-Type", MANIFEST)
                .header(
                    "Docker-Content-Digest",
                    &Digest::of(&self.manifest).to_string(),
                )
                .body(&self.manifest),
            _ if is(&self.config) => stub::Answer::new(200).body(&self.config),
            _ if is(&self.layer) => stub::Answer::new(200).body(&self.layer),
            _ => stub::Answer::new(404),
        }
    }
}
