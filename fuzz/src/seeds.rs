//! Inputs to start from, and what keeps changed ones worth reading.

use image::Digest;

/// Makes the checksums of headers right again: otherwise nothing behind them is reached.
pub fn sign(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

/// Entries of every kind, with PAX and GNU headers.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, body: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(body.len() as u64);
        match link {
            Some(link) => tar.append_link(&mut header, path, link).unwrap(),
            None => tar.append_data(&mut header, path, body).unwrap(),
        }
    };
    add("d", tar::EntryType::Directory, b"", None);
    add("d/f", tar::EntryType::Regular, &[7; 700], None);
    add("d/l", tar::EntryType::Symlink, b"", Some("../f"));
    add("h", tar::EntryType::Link, b"", Some("d/f"));
    add("d/.wh.x", tar::EntryType::Regular, b"", None);
    add(&"long/".repeat(60), tar::EntryType::Directory, b"", None);
    let records = [("SCHILY.xattr.user.a", &b"b"[..]), ("mtime", b"1.5")];
    tar.append_pax_extensions(records).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    tar.append_data(&mut header, "p", &b"x"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn manifest(config: &[u8], layer: &[u8]) -> Vec<u8> {
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": Digest::of(config).to_string(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": Digest::of(layer).to_string(), "size": layer.len()}],
    });
    manifest.to_string().into_bytes()
}

fn index(manifest: &[u8]) -> Vec<u8> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                       "digest": Digest::of(manifest).to_string(), "size": manifest.len(),
                       "annotations": {"org.opencontainers.image.ref.name": "app:1"}}],
    });
    index.to_string().into_bytes()
}

/// An OCI layout, and a Docker archive.
pub fn archives() -> Vec<Vec<u8>> {
    let layer = layer();
    let diff_ids = [Digest::of(&layer).to_string()];
    let config = serde_json::json!({
        "os": "linux", "architecture": std::env::consts::ARCH,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let manifest = manifest(&config, &layer);
    let pack = |files: &[(String, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, body) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            tar.append_data(&mut header, path, *body).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let index = index(&manifest);
    let docker = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l/layer.tar"]}]"#;
    vec![
        pack(&[
            (blob(&layer), &layer),
            (blob(&config), &config),
            (blob(&manifest), &manifest),
            ("index.json".to_owned(), &index),
        ]),
        pack(&[
            ("l/layer.tar".to_owned(), &layer),
            ("c.json".to_owned(), &config),
            ("manifest.json".to_owned(), docker),
        ]),
    ]
}

/// A layer, and an archive of an image.
pub fn tars() -> Vec<Vec<u8>> {
    vec![layer(), archives().remove(0)]
}

/// An index and its manifest.
pub fn documents() -> Vec<Vec<u8>> {
    let manifest = manifest(b"{}", b"layer");
    vec![index(&manifest), manifest]
}

/// References in every form, a platform and a digest.
pub fn references() -> Vec<Vec<u8>> {
    let seeds = [
        "alpine",
        "docker.io/library/alpine:3.20",
        "localhost:5000/a/b_c--d/e.f:Tag-1.0@sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
        "[::1]:5000/x",
        "linux/arm64/v8",
        "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
    ];
    seeds.map(|text| text.as_bytes().to_vec()).into()
}
