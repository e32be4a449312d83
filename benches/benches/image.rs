//! Parts of the way of an image: references, documents, archives.
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::io::{Write, copy, sink};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::write::GzEncoder;
use image::{Document, EntryKind, Reference, TarWalk, UnpackMode, unpack_archive};

/// Files in the archive, and the size of each.
const FILES: usize = 256;
const FILE_BYTES: usize = 16 << 10;

const REFERENCES: [&str; 4] = [
    "debian",
    "registry.example:5000/group/app:1.2.3",
    "localhost/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "ghcr.io/owner/name/with/many/parts:tag",
];

/// Text that compresses as programs do, by half or so.
fn archive() -> Vec<u8> {
    let mut state = 1_u32;
    let mut body = Vec::with_capacity(FILE_BYTES);
    while body.len() < FILE_BYTES {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        body.extend_from_slice(format!("{:x} mov rax, rbx\n", state >> 8).as_bytes());
    }
    body.truncate(FILE_BYTES);
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..FILES {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let path = format!("usr/lib/{}/{number}.so", number % 16);
        builder.append_data(&mut header, path, &body[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn manifest() -> Vec<u8> {
    let digest = |number: usize| format!("sha256:{number:064x}");
    let layers: Vec<serde_json::Value> = (0..20)
        .map(|number| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest(number),
                "size": 1000 + number,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(99),
            "size": 3000,
        },
        "layers": layers,
    });
    serde_json::to_vec(&manifest).unwrap()
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reference");
    group.throughput(Throughput::Elements(REFERENCES.len() as u64));
    group.bench_function("parse/4", |bench| {
        bench.iter(|| {
            for text in REFERENCES {
                let reference = Reference::parse(black_box(text)).unwrap();
                assert!(!reference.repository().is_empty());
            }
        });
    });
    group.finish();
    let manifest = manifest();
    let mut group = criterion.benchmark_group("manifest");
    group.throughput(Throughput::Bytes(manifest.len() as u64));
    group.bench_function("parse/20-layers", |bench| {
        bench.iter(|| {
            let document = Document::parse(black_box(&manifest), None).unwrap();
            let Document::Manifest(manifest) = document else {
                panic!("it is an index");
            };
            assert_eq!(manifest.layers().len(), 20);
        });
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let plain = archive();
    let mut group = criterion.benchmark_group("tar");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("read/4MiB", |bench| {
        bench.iter(|| {
            let mut walk = TarWalk::new(black_box(&plain[..]));
            let mut files = 0;
            while let Some(entry) = walk.next_entry().unwrap() {
                if let EntryKind::File { .. } = entry.kind {
                    copy(&mut walk, &mut sink()).unwrap();
                    files += 1;
                }
            }
            assert_eq!(files, FILES);
        });
    });
    group.finish();
}

fn unpack(criterion: &mut Criterion) {
    let plain = archive();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(&plain).unwrap();
    let archives = [
        ("plain", plain.clone()),
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::encode_all(&plain[..], 3).unwrap()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut group = criterion.benchmark_group("unpack");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.sample_size(20);
    for (name, archive) in &archives {
        group.bench_function(format!("{name}/4MiB"), |bench| {
            bench.iter(|| {
                number += 1;
                let target = dir.path().join(number.to_string());
                std::fs::create_dir(&target).unwrap();
                let lost = unpack_archive(&archive[..], &target, UnpackMode::default()).unwrap();
                assert!(lost.is_empty());
                assert!(target.join("usr/lib/15/255.so").exists());
                std::fs::remove_dir_all(&target).unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse, read, unpack);
criterion_main!(benches);
