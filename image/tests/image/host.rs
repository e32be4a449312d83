//! A store of its own in a temporary directory, beside a canary that nothing may touch, and tar
//! archives made byte by byte.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use image::{Descriptor, Digest, Image, ImageError, Reference, Store, UnpackMode};
use state::Layout;

pub(crate) const ROOT: UnpackMode = UnpackMode {
    userns: false,
    flat_owner: false,
};

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) layout: Layout,
    pub(crate) store: Store,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with_mode(ROOT)
    }

    pub(crate) fn with_mode(mode: UnpackMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let store = Store::open(&layout, mode).unwrap();
        let host = Self { dir, layout, store };
        fs::create_dir(host.canary()).unwrap();
        fs::set_permissions(host.canary(), Permissions::from_mode(0o700)).unwrap();
        let secret = host.canary().join("secret");
        fs::copy("/proc/self/cmdline", &secret).unwrap();
        fs::set_permissions(secret, Permissions::from_mode(0o600)).unwrap();
        host
    }

    /// A directory outside the store.
    pub(crate) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    pub(crate) fn assert_canary_unchanged(&self) {
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&self.canary()), 0o700);
        let names: Vec<_> = fs::read_dir(self.canary())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        let secret = self.canary().join("secret");
        assert_eq!(mode(&secret), 0o600);
        let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&secret).unwrap());
        assert_eq!(links, 1);
        assert_eq!(
            fs::read(secret).unwrap(),
            fs::read("/proc/self/cmdline").unwrap()
        );
    }

    /// How many things are in a directory of the store.
    pub(crate) fn count(&self, dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    pub(crate) fn assert_nothing_half_made(&self) {
        self.store.empty_trash().unwrap();
        assert_eq!(self.count(&self.layout.tmp()), 0);
        assert_eq!(self.count(&self.layout.trash()), 0);
    }

    /// Stores an image with these layers (tar archives, the lowest first) as `name`.
    pub(crate) fn image(&self, name: &str, layers: &[Vec<u8>]) -> Image {
        let diff_ids: Vec<_> = layers.iter().map(|tar| Digest::of(tar)).collect();
        self.image_with(name, layers, &diff_ids)
    }

    /// Stores an image whose config claims these diff IDs.
    pub(crate) fn image_with(&self, name: &str, blobs: &[Vec<u8>], diff_ids: &[Digest]) -> Image {
        let top = self.put_image("linux", std::env::consts::ARCH, blobs, diff_ids);
        let reference = Reference::parse(name).unwrap();
        self.store.record_pulled(&reference, &top).unwrap();
        self.store.resolve(name, None).unwrap()
    }

    pub(crate) fn put(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: self.store.content().put(bytes).unwrap(),
            size: bytes.len() as u64,
        }
    }

    pub(crate) fn put_image(
        &self,
        os: &str,
        architecture: &str,
        blobs: &[Vec<u8>],
        diff_ids: &[Digest],
    ) -> Descriptor {
        let config = serde_json::json!({
            "created": "2025-01-01T00:00:00Z", "os": os, "architecture": architecture,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": "RUN one"}, {"created_by": "ENV", "empty_layer": true}],
        });
        let config = self.put(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layer = |blob: &Vec<u8>| self.put("application/vnd.oci.image.layer.v1.tar+gzip", blob);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": blobs.iter().map(layer).collect::<Vec<_>>(),
        });
        self.put(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )
    }

    /// Unpacks an image with these layers.
    pub(crate) fn unpack(&self, layers: &[Vec<u8>]) -> Result<Vec<PathBuf>, ImageError> {
        let image = self.image("unpack", layers);
        self.store.ensure_unpacked(&image, &())
    }

    /// Unpacks an image with one layer.
    pub(crate) fn unpack_one(&self, layer: Tar) -> Result<PathBuf, ImageError> {
        self.unpack(&[layer.end()])
            .map(|dirs| dirs.last().unwrap().clone())
    }
}

/// The messages of an error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A tar archive that is being made, right or wrong.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// The fields of a header that tests set.
pub(crate) struct Field<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) link: &'a [u8],
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
}

impl Default for Field<'_> {
    fn default() -> Self {
        Self {
            path: b"file",
            flag: b'0',
            mode: 0o644,
            link: b"",
            size: 0,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn header(mut self, field: &Field<'_>) -> Self {
        let mut block = [0_u8; 512];
        let put = |block: &mut [u8; 512], at: usize, bytes: &[u8]| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut block, 0, field.path);
        put(&mut block, 100, format!("{:07o}", field.mode).as_bytes());
        put(&mut block, 108, b"0000000");
        put(&mut block, 116, b"0000000");
        put(&mut block, 124, format!("{:011o}", field.size).as_bytes());
        put(&mut block, 136, b"14000000000");
        block[156] = field.flag;
        put(&mut block, 157, field.link);
        put(&mut block, 257, b"ustar\x0000");
        put(
            &mut block,
            329,
            format!("{:07o}", field.device.0).as_bytes(),
        );
        put(
            &mut block,
            337,
            format!("{:07o}", field.device.1).as_bytes(),
        );
        sign(&mut block);
        self.0.extend_from_slice(&block);
        self
    }

    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, body: &[u8]) -> Self {
        self.header(&Field {
            path: path.as_bytes(),
            size: body.len() as u64,
            ..Field::default()
        })
        .body(body)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.header(&Field {
            path: path.as_bytes(),
            flag: b'5',
            mode,
            ..Field::default()
        })
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(b'2', path, target)
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.link(b'1', path, target)
    }

    fn link(self, flag: u8, path: &str, target: &str) -> Self {
        self.header(&Field {
            path: path.as_bytes(),
            flag,
            mode: 0o777,
            link: target.as_bytes(),
            ..Field::default()
        })
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.extended(b'x', &body)
    }

    pub(crate) fn extended(self, flag: u8, body: &[u8]) -> Self {
        self.header(&Field {
            path: b"extended",
            flag,
            size: body.len() as u64,
            ..Field::default()
        })
        .body(body)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Puts the right checksum into a header.
pub(crate) fn sign(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
