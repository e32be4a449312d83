//! The rows of the security checklist about archives, images and registries, S20 to S30, over every
//! way by which bytes of others come in: pull, load of both kinds of archive, import; and for both
//! forms of layers. What single rules say in detail is in `unpack.rs`, `archives.rs` and the tests of
//! the registry client (S31: `hosts.rs`); what needs the program in `cli/tests/images/security.rs`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use image::{
    Digest, ErrorKind, ImageError, ImportOptions, LayerForm, Platform, PlatformChoice, Reference,
    RegistryOptions, SaveOptions,
};

use crate::host::{Field, Host, Tar, chain};
use crate::stub::{Answer, Stub};
use crate::unpack::hostile;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// By which way a layer comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pull,
    LoadOci,
    LoadDocker,
    Import,
}

const WAYS: [Way; 4] = [Way::Pull, Way::LoadOci, Way::LoadDocker, Way::Import];

/// Both forms of layers, where this machine has both.
fn forms() -> Vec<LayerForm> {
    let host = Host::new();
    match LayerForm::best(&host.layout) {
        LayerForm::Erofs => vec![LayerForm::Directory, LayerForm::Erofs],
        form => vec![form],
    }
}

fn host_of(form: LayerForm) -> Host {
    let mut host = Host::new();
    host.store = host.store.with_layer_form(form);
    host
}

/// An image with one layer, as documents.
struct Made {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Made {
    fn new(layer: &[u8]) -> Self {
        let config = serde_json::json!({
            "os": "linux", "architecture": Platform::host().architecture(), "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer).to_string()]},
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::of(bytes).to_string(), "size": bytes.len(),
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part("config.v1+json", &config), "layers": [part("layer.v1.tar", layer)],
        });
        Self {
            layer: layer.to_vec(),
            manifest: manifest.to_string().into_bytes(),
            config,
        }
    }

    fn registry(self) -> Stub {
        Stub::start(move |request| {
            let blob = |bytes: &[u8]| request.path.ends_with(&Digest::of(bytes).to_string());
            if request.path.contains("/manifests/") {
                Answer::new(200)
                    .header("Content-Type", MANIFEST)
                    .body(&self.manifest)
            } else if blob(&self.config) {
                Answer::new(200).body(&self.config)
            } else if blob(&self.layer) {
                Answer::new(200).body(&self.layer)
            } else {
                Answer::new(200)
            }
        })
    }

    fn layout(&self) -> Vec<u8> {
        let mut tar = Tar::new();
        for bytes in [&self.layer, &self.config, &self.manifest] {
            tar = tar.file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes);
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": Digest::of(&self.manifest).to_string(),
            "size": self.manifest.len(), "annotations": {"io.containerd.image.name": "app"}}]});
        tar.file("index.json", index.to_string().as_bytes()).end()
    }

    fn docker(&self) -> Vec<u8> {
        let manifest =
            serde_json::json!([{"Config": "c.json", "RepoTags": ["app"], "Layers": ["l.tar"]}]);
        Tar::new()
            .file("c.json", &self.config)
            .file("l.tar", &self.layer)
            .file("manifest.json", manifest.to_string().as_bytes())
            .end()
    }
}

/// Brings an image with this layer in, and unpacks it. Gives its directories.
fn bring(host: &Host, way: Way, layer: &[u8]) -> Result<Vec<PathBuf>, ImageError> {
    let made = Made::new(layer);
    let name = match way {
        Way::Pull => {
            let registry = made.registry();
            let name = format!("{}/app", registry.host);
            let reference = Reference::parse(&name).unwrap();
            let (choice, options) = (PlatformChoice::Default, RegistryOptions::default());
            host.store.pull(&reference, &choice, &options, &())?;
            name
        }
        Way::LoadOci => {
            host.store.load(&made.layout()[..], None, &())?;
            "app".to_owned()
        }
        Way::LoadDocker => {
            host.store.load(&made.docker()[..], None, &())?;
            "app".to_owned()
        }
        Way::Import => {
            let options = ImportOptions::default();
            host.store.import(layer, &options)?.to_string()
        }
    };
    let image = host.store.resolve(&name, None)?;
    host.store.ensure_unpacked(&image, &())
}

/// Removes everything; of layers that are mounted, the mounts too.
fn clear(host: &Host) {
    let all = image::PruneOptions {
        all: true,
        ..image::PruneOptions::default()
    };
    host.store.prune(&all, &|_| None).unwrap();
}

#[test]
fn s20_s21_archive_that_reaches_out_stays_inside_or_is_refused_whole() {
    for form in forms() {
        for way in WAYS {
            let host = host_of(form);
            let canary = host.canary();
            let canary = canary.to_str().unwrap().trim_start_matches('/').to_owned();
            let (mut refused, mut contained) = (0, 0);
            for (what, tar) in hostile(&canary) {
                let what = format!("{form} {way:?} {what}");
                match bring(&host, way, &tar.end()) {
                    Ok(_) => contained += 1,
                    Err(error) => {
                        let text = chain(&error);
                        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {text}");
                        // Nothing is there in part. What was imported is there until it is used, and
                        // so is a link that a layer below might have satisfied.
                        let waits = way == Way::Import || text.contains("in no layer below");
                        let left = host.store.list().unwrap().len();
                        assert!(left == 0 || waits, "{what}: {text}");
                        refused += 1;
                    }
                }
                clear(&host);
                host.assert_canary_unchanged();
                host.assert_nothing_half_made();
                assert_eq!(host.count(&host.layout.content()), 0, "{what}");
            }
            assert!(refused > 20 && contained > 3, "{refused} {contained}");
        }
    }
}

/// Where there is no layer store, and a guest's sandbox is the only wall, too.
#[test]
fn s20_s21_archive_that_reaches_out_stays_inside_an_assembled_root() {
    let host = Host::new();
    let canary = host.canary();
    let canary = canary.to_str().unwrap().trim_start_matches('/').to_owned();
    let (mut refused, mut contained) = (0, 0);
    for (what, tar) in hostile(&canary) {
        let image = host.image("hostile", &[tar.end()]);
        let root = tempfile::tempdir().unwrap();
        match host.store.assemble(&image, root.path(), &()) {
            Ok(_) => contained += 1,
            Err(error) => {
                let text = chain(&error);
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {text}");
                refused += 1;
            }
        }
        host.assert_canary_unchanged();
    }
    assert!(refused > 20 && contained > 3, "{refused} {contained}");
}

#[test]
fn s20_mode_of_a_directory_entry_onto_a_link_is_not_given_to_its_target() {
    for form in forms() {
        for way in WAYS {
            let host = host_of(form);
            let canary = host.canary();
            let tar = Tar::new()
                .symlink("d", canary.to_str().unwrap())
                .dir("d", 0o777);
            let dirs = bring(&host, way, &tar.end()).unwrap();
            let meta = fs::symlink_metadata(dirs.last().unwrap().join("d")).unwrap();
            assert!(
                meta.is_dir() && meta.mode() & 0o7777 == 0o777,
                "{form} {way:?}"
            );
            host.assert_canary_unchanged();
            clear(&host);
        }
    }
}

#[test]
fn s22_size_of_the_extended_header_counts_in_every_way_and_form() {
    // The body, 1024 bytes by the extended header and none by the other, looks like an entry.
    let inner = Tar::new().file("smuggled", b"x").0;
    assert_eq!(inner.len(), 1024);
    let mut tar = Tar::new().pax(&[("size", b"1024")]).header(&Field {
        path: b"outer",
        size: 0,
        ..Field::default()
    });
    tar.0.extend(inner);
    let bytes = tar.file("last", b"1").end();
    for form in forms() {
        for way in WAYS {
            let host = host_of(form);
            let dirs = bring(&host, way, &bytes).unwrap();
            let mut names: Vec<_> = fs::read_dir(dirs.last().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["last", "outer"], "{form} {way:?}");
            clear(&host);
        }
    }
}

#[test]
fn s22_malformed_extended_header_is_an_error_in_every_way_and_form() {
    let broken = [
        ("no newline", b"12 path=abcde".to_vec()),
        ("no number", b"x path=a\n".to_vec()),
        ("wrong length", b"99 path=a\n".to_vec()),
        ("no value", b"8 path\n\n".to_vec()),
    ];
    for (what, record) in broken {
        let bytes = Tar::new().extended(b'x', &record).file("f", b"x").end();
        for form in forms() {
            for way in WAYS {
                let host = host_of(form);
                let error = bring(&host, way, &bytes).unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::InvalidInput,
                    "{form} {way:?} {what}"
                );
                clear(&host);
                host.assert_nothing_half_made();
            }
        }
    }
}

#[test]
fn s25_s27_what_is_unpacked_and_kept_is_closed_to_other_users() {
    for form in forms() {
        let host = host_of(form);
        let tar = Tar::new().file("bin/su", b"#!/bin/sh\n").end();
        let dirs = bring(&host, Way::Pull, &tar).unwrap();
        let own = host.layout.layers();
        for dir in [own.parent().unwrap(), host.layout.tmp().as_path()] {
            let mode = fs::metadata(dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o077 & !0o011, 0, "{}: {mode:o}", dir.display());
        }
        if !rustix::process::geteuid().is_root() {
            continue;
        }
        for path in [
            &dirs.last().unwrap().join("bin/su"),
            &own,
            &host.layout.content(),
        ] {
            let done = Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "stat"])
                .arg(path)
                .output()
                .unwrap();
            assert!(!done.status.success(), "{form}: {}", path.display());
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(text.contains("Permission denied"), "{text}");
        }
        clear(&host);
    }
}

#[test]
fn s29_document_of_two_kinds_is_refused_in_every_archive() {
    let made = Made::new(&Tar::new().file("f", b"x").end());
    let mut both: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    both["manifests"] = serde_json::json!([]);
    let both = Made {
        manifest: both.to_string().into_bytes(),
        ..made
    };
    let host = Host::new();
    let error = host.store.load(&both.layout()[..], None, &()).unwrap_err();
    assert!(chain(&error).contains("both an index and a manifest"));
    let registry = both.registry();
    let name = Reference::parse(&format!("{}/app", registry.host)).unwrap();
    let (choice, options) = (PlatformChoice::Default, RegistryOptions::default());
    let error = host.store.pull(&name, &choice, &options, &()).unwrap_err();
    assert!(chain(&error).contains("both an index and a manifest"));
    assert_eq!(host.count(&host.layout.content()), 0);
}

#[test]
fn s30_digest_that_is_none_reaches_neither_a_path_nor_an_address() {
    let hex = Digest::of(b"x").hex();
    let bad = [
        "sha256:../../canary/secret".to_owned(),
        "sha256:".to_owned(),
        "sha256".to_owned(),
        format!("sha256:{}", &hex[..63]),
        format!("sha256:{hex}0"),
        format!("sha256:{}", hex.to_uppercase().replace('0', "A")),
        format!("SHA256:{hex}"),
        format!("sha999:{hex}"),
        format!("../{hex}"),
        format!("sha256:{hex}/../{hex}"),
    ];
    for digest in &bad {
        for field in ["config", "layers"] {
            let made = Made::new(&Tar::new().file("f", b"x").end());
            let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
            match field {
                "config" => manifest["config"]["digest"] = digest.as_str().into(),
                _ => manifest["layers"][0]["digest"] = digest.as_str().into(),
            }
            let made = Made {
                manifest: manifest.to_string().into_bytes(),
                ..made
            };
            let host = Host::new();
            let what = format!("{field} {digest}");
            let error = host.store.load(&made.layout()[..], None, &()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}");
            let registry = made.registry();
            let name = Reference::parse(&format!("{}/app", registry.host)).unwrap();
            let (choice, options) = (PlatformChoice::Default, RegistryOptions::default());
            let pulled = host.store.pull(&name, &choice, &options, &());
            let error = pulled.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}");
            assert_eq!(registry.count(|r| r.path.contains("/blobs/")), 0, "{what}");
            assert_eq!(host.count(&host.layout.content()), 0, "{what}");
            host.assert_canary_unchanged();
        }
    }
    // And where users type them.
    for digest in &bad {
        assert!(
            Reference::parse(&format!("app@{digest}")).is_err(),
            "{digest}"
        );
    }
}

#[test]
fn s28_layer_of_a_user_is_not_that_of_root() {
    // The other way round is in `unpack.rs`.
    let host = Host::with_mode(image::UnpackMode {
        userns: true,
        flat_owner: true,
    });
    let tar = Tar::new().file("f", b"x").end();
    let image = host.image("app", std::slice::from_ref(&tar));
    host.store.ensure_unpacked(&image, &()).unwrap();
    for form in forms() {
        let root = image::Store::open(&host.layout, image::UnpackMode::default()).unwrap();
        let root = root.with_layer_form(form);
        let before = host.count(&host.layout.layers());
        let image = root.resolve("app", None).unwrap();
        root.ensure_unpacked(&image, &()).unwrap();
        assert!(host.count(&host.layout.layers()) > before, "{form}");
        let saved = root.save(
            &["app".to_owned()],
            &SaveOptions::default(),
            std::io::sink(),
        );
        saved.unwrap();
        root.remove("app", image::Force::No, &|_| None).unwrap();
        host.image("app", std::slice::from_ref(&tar));
        host.store
            .ensure_unpacked(&host.store.resolve("app", None).unwrap(), &())
            .unwrap();
    }
}
