//! Names, platforms, removal.

use std::path::Path;

use crate::host::{Host, Tar};
use image::{
    Descriptor, Digest, ErrorKind, Force, ImageError, LayeredRoot, Platform, Reference, Removed,
};

fn tar(name: &str) -> Vec<u8> {
    Tar::new().file(name, name.as_bytes()).end()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// An index with an image for each of these platforms.
fn index(host: &Host, platforms: &[(&str, &str)]) -> Descriptor {
    let mut manifests = Vec::new();
    for (os, architecture) in platforms {
        let layer = tar(&format!("{os}-{architecture}"));
        let diff_id = Digest::of(&layer);
        let top = host.put_image(os, architecture, &[layer], &[diff_id]);
        let mut entry = serde_json::to_value(top).unwrap();
        entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        manifests.push(entry);
    }
    let mut attestation = manifests[0].clone();
    attestation["platform"] = serde_json::json!({"os": "unknown", "architecture": "unknown"});
    manifests.insert(0, attestation);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    host.put(
        "application/vnd.oci.image.index.v1+json",
        index.to_string().as_bytes(),
    )
}

#[test]
fn resolve_chooses_by_platform() {
    let host = Host::new();
    let own = std::env::consts::ARCH;
    let all = [("wasip1", "wasm"), ("linux", own), ("linux", "s390x")];
    host.store
        .record_pulled(&name("all"), &index(&host, &all))
        .unwrap();
    let wasm = index(&host, &[("linux", "s390x"), ("Wasip1", "wasm32")]);
    host.store.record_pulled(&name("wasm"), &wasm).unwrap();
    let foreign = index(&host, &[("linux", "s390x")]);
    host.store
        .record_pulled(&name("foreign"), &foreign)
        .unwrap();
    let platform = |text: &str| text.parse::<Platform>().unwrap();
    let resolved = |text: &str, wanted: Option<Platform>| {
        host.store
            .resolve(text, wanted.as_ref())
            .map(|image| image.platform.to_string())
    };
    assert_eq!(resolved("all", None).unwrap(), Platform::host().to_string());
    assert_eq!(
        resolved("all", Some(platform("wasi/wasm"))).unwrap(),
        "wasi/wasm"
    );
    assert_eq!(
        resolved("all", Some(platform("wasip2/wasm32"))).unwrap(),
        "wasi/wasm"
    );
    assert_eq!(
        resolved("all", Some(platform("linux/s390x"))).unwrap(),
        "linux/s390x"
    );
    assert_eq!(resolved("wasm", None).unwrap(), "wasi/wasm");
    let error = resolved("foreign", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("it has linux/s390x"), "{error}");
    let id = host
        .store
        .resolve("foreign", Some(&platform("linux/s390x")))
        .unwrap()
        .id;
    assert_eq!(resolved(&id.short(), None).unwrap(), "linux/s390x");
}

#[test]
fn resolve_by_identifier_and_digest() {
    let host = Host::new();
    let image = host.image("app", &[tar("a")]);
    for text in [
        image.id.hex(),
        image.id.short(),
        image.id.to_string(),
        format!("app@{}", image.manifest_digest),
    ] {
        let found = host.store.resolve(&text, None).unwrap();
        assert_eq!(found.id, image.id, "{text}");
        assert_eq!(host.store.names_of(&found).unwrap(), [name("app")]);
    }
    let kind = |text: &str| host.store.resolve(text, None).unwrap_err().kind();
    assert_eq!(kind("absent"), ErrorKind::NotFound);
    assert_eq!(kind("0123456789ab"), ErrorKind::NotFound);
    assert_eq!(kind("UPPER/Case"), ErrorKind::InvalidInput);
}

#[test]
fn record_of_incomplete_image_is_refused() {
    let host = Host::new();
    let layer = tar("a");
    let top = host.put_image(
        "linux",
        "amd64",
        std::slice::from_ref(&layer),
        &[Digest::of(&layer)],
    );
    host.store.content().remove(&Digest::of(&layer)).unwrap();
    let error = host.store.record_pulled(&name("app"), &top).unwrap_err();
    assert!(matches!(error, ImageError::BlobMissing(_)));
    assert!(host.store.list().unwrap().is_empty());
}

#[test]
fn manifest_announced_as_something_else_is_refused() {
    let host = Host::new();
    let layer = tar("a");
    let mut top = host.put_image(
        "linux",
        "amd64",
        std::slice::from_ref(&layer),
        &[Digest::of(&layer)],
    );
    top.media_type = "application/vnd.oci.image.index.v1+json".to_owned();
    let error = host.store.record_pulled(&name("app"), &top).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn tag_then_remove_keeps_what_is_still_named() {
    let host = Host::new();
    let shared = tar("shared");
    let one = host.image("one", &[shared.clone(), tar("one")]);
    let two = host.image("two", &[shared.clone(), tar("two")]);
    host.store.ensure_unpacked(&one, &()).unwrap();
    host.store.ensure_unpacked(&two, &()).unwrap();
    host.store.tag("one", &name("alias:1")).unwrap();
    let removed = host.store.remove("one", Force::No, &|_| None).unwrap();
    assert_eq!(removed, [Removed::Untagged(name("one"))]);
    assert_eq!(host.store.resolve("alias:1", None).unwrap().id, one.id);
    let removed = host.store.remove("alias:1", Force::No, &|_| None).unwrap();
    assert_eq!(
        removed,
        [Removed::Untagged(name("alias:1")), Removed::Deleted(one.id)]
    );
    // The shared layer and blob are still there, the others are gone.
    let root = LayeredRoot::new(host.store.ensure_unpacked(&two, &()).unwrap());
    assert!(root.lookup(Path::new("/shared")).is_ok());
    assert_eq!(host.count(&host.layout.layers()), 4);
    assert!(host.store.content().has(&Digest::of(&shared)));
    assert!(!host.store.content().has(&Digest::of(&tar("one"))));
    assert_eq!(host.store.list().unwrap().len(), 1);
    host.assert_nothing_half_made();
}

#[test]
fn remove_image_in_use_needs_force_and_keeps_its_data() {
    let host = Host::new();
    let image = host.image("app", &[tar("a")]);
    let in_use = |id: &Digest| (*id == image.id).then(|| "web".to_owned());
    for text in ["app".to_owned(), image.id.short()] {
        let error = host.store.remove(&text, Force::No, &in_use).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.hint().is_some());
    }
    let removed = host.store.remove("app", Force::Yes, &in_use).unwrap();
    assert_eq!(removed, [Removed::Untagged(name("app"))]);
    let dangling = host.store.resolve(&image.id.hex(), None).unwrap();
    assert!(host.store.names_of(&dangling).unwrap().is_empty());
    host.store.ensure_unpacked(&dangling, &()).unwrap();
    host.store
        .remove(&image.id.hex(), Force::No, &|_| None)
        .unwrap();
    assert_eq!(host.count(&host.layout.content()), 0);
    assert_eq!(host.count(&host.layout.layers()), 0);
}

#[test]
fn remove_identifier_with_two_names_needs_force() {
    let host = Host::new();
    let image = host.image("one", &[tar("a")]);
    host.store.tag("one", &name("two")).unwrap();
    let error = host
        .store
        .remove(&image.id.short(), Force::No, &|_| None)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let removed = host
        .store
        .remove(&image.id.short(), Force::Yes, &|_| None)
        .unwrap();
    assert_eq!(removed.len(), 3);
    assert!(host.store.list().unwrap().is_empty());
}

#[test]
fn wasm_artifact_has_an_empty_root() {
    let host = Host::new();
    let module = host.put("application/wasm", b"\0asm\x01\0\0\0");
    let config = serde_json::json!({"architecture": "wasm", "os": "wasip1",
        "layerDigests": [module.digest]});
    let config = host.put(
        "application/vnd.wasm.config.v0+json",
        config.to_string().as_bytes(),
    );
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [module]});
    let top = host.put(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    host.store.record_pulled(&name("artifact"), &top).unwrap();
    let image = host.store.resolve("artifact", None).unwrap();
    assert_eq!(image.platform, Platform::wasi());
    assert_eq!(image.id, config.digest);
    assert_eq!(image.wasm_layers, [module]);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    assert_eq!(dirs.len(), 1);
    assert_eq!(host.count(&dirs[0]), 0);
}

#[test]
fn artifact_without_config_is_named_by_its_manifest() {
    let host = Host::new();
    let module = host.put("application/wasm", b"\0asm\x01\0\0\0");
    let config = host.put("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [module]});
    let top = host.put(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    host.store.record_pulled(&name("bare"), &top).unwrap();
    let image = host.store.resolve("bare", None).unwrap();
    assert_eq!((image.id, image.platform), (top.digest, Platform::wasi()));
}

#[test]
fn history_pairs_steps_with_layers() {
    let host = Host::new();
    let image = host.image("app", &[tar("a"), tar("b")]);
    let steps = host.store.history(&image).unwrap();
    let made: Vec<_> = steps
        .iter()
        .map(|step| (step.created_by.as_str(), step.layer.is_some()))
        .collect();
    assert_eq!(made, [("", true), ("ENV", false), ("RUN one", true)]);
}
