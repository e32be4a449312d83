//! The fuzz targets on a stable toolchain: their seeds, and seeds changed at random, the same ones
//! each time. `KETCH_FUZZ_ITERATIONS` makes it longer; `cargo +nightly fuzz run tar` in `fuzz/` looks
//! for new paths.
#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library for the fuzzer")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::Digest;

/// Changes for each seed.
const ITERATIONS: u64 = 300;

/// A generator that gives the same numbers each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// Changes some bytes, cuts something out, or repeats something.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = b"\0/.0179\xff"[random.below(8)],
            3 => bytes.truncate(at),
            _ => {
                let end = (at + random.below(1024)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Makes the checksums of headers right again: otherwise nothing behind them is reached.
fn sign(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

fn run(name: &str, seeds: &[Vec<u8>], share: u64, target: fn(&[u8])) {
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
    let wanted = std::env::var("KETCH_FUZZ_ITERATIONS").ok();
    let iterations = wanted.map_or(ITERATIONS, |text| text.parse().unwrap()) / share;
    for (number, seed) in seeds.iter().enumerate() {
        target(seed);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 + number as u64);
        for iteration in 0..iterations {
            let mut bytes = mutate(seed, &mut random);
            if iteration % 4 != 0 {
                sign(&mut bytes);
            }
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                panic!(
                    "{name}, seed {number}, iteration {iteration}: {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
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
fn archives() -> Vec<Vec<u8>> {
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

#[test]
fn tar_of_any_bytes_is_read_in_one_way() {
    run("tar", &[layer(), archives().remove(0)], 1, targets::tar);
}

#[test]
fn documents_of_any_bytes_are_one_thing_or_refused() {
    let manifest = manifest(b"{}", b"layer");
    let seeds = [index(&manifest), manifest];
    run("documents", &seeds, 1, targets::documents);
}

#[test]
fn references_of_any_bytes_have_one_meaning() {
    let seeds = [
        "alpine",
        "docker.io/library/alpine:3.20",
        "localhost:5000/a/b_c--d/e.f:Tag-1.0@sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
        "[::1]:5000/x",
        "linux/arm64/v8",
        "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
    ];
    let seeds = seeds.map(|text| text.as_bytes().to_vec());
    run("references", &seeds, 1, targets::references);
}

#[test]
fn archive_of_any_bytes_is_loaded_whole_or_leaves_nothing() {
    run("archive", &archives(), 10, targets::archive);
}
