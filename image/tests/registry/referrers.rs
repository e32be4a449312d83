//! What refers to an image: by the registry's own answer, and by the tag that stands for it.

use image::{Digest, Reference, RegistryOptions, referrers};

use crate::support::real::{Extra, Registry};
use crate::support::stub::{Answer, Stub};
use crate::support::{INDEX, MANIFEST, Place, RealImage, descriptor};

/// An artifact that refers to `subject`.
fn artifact(subject: &[u8], kind: &str) -> Vec<u8> {
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.empty.v1+json", b"{}")],
        "subject": descriptor(MANIFEST, subject), "annotations": {"by": "test"},
    });
    manifest.to_string().into_bytes()
}

fn store(place: &Place, name: &str, blobs: &[&[u8]], manifest: &[u8]) {
    for blob in blobs {
        place.content.put(blob).unwrap();
    }
    place.content.put(manifest).unwrap();
    let top = image::Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Digest::of(manifest),
        size: manifest.len() as u64,
    };
    let name = Reference::parse(name).unwrap();
    place.store.record_pulled(&name, &top).unwrap();
}

fn list(name: &str, kind: Option<&str>) -> Vec<(Digest, Option<String>)> {
    let reference = Reference::parse(name).unwrap();
    let found = referrers(&reference, kind, &RegistryOptions::default()).unwrap();
    let line = |found: image::Referrer| (found.descriptor.digest, found.artifact_type);
    found.into_iter().map(line).collect()
}

#[test]
fn referrers_of_a_registry_that_does_not_list_them_are_kept_under_the_tag() {
    // Debian's registry is of before the question.
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let image = RealImage::new(b"signed");
    let place = Place::new();
    let name = format!("{}/app:1", registry.host);
    let push = |source: &str, target: &str| {
        let target = Reference::parse(target).unwrap();
        let options = RegistryOptions::default();
        place.store.push(source, &target, None, &options, &())
    };
    store(
        &place,
        "app",
        &[&image.layer, &image.config],
        &image.manifest,
    );
    push("app", &name).unwrap();
    assert_eq!(list(&name, None), []);
    let (signature, parts) = (
        artifact(&image.manifest, "application/signature"),
        artifact(&image.manifest, "application/parts"),
    );
    for (at, artifact) in [&signature, &parts, &signature].into_iter().enumerate() {
        let source = format!("artifact{at}");
        store(&place, &source, &[b"{}"], artifact);
        push(&source, &format!("{}/app:artifact", registry.host)).unwrap();
    }
    let line = |artifact: &[u8], kind: &str| (Digest::of(artifact), Some(kind.to_owned()));
    assert_eq!(
        list(&name, None),
        [
            line(&signature, "application/signature"),
            line(&parts, "application/parts")
        ]
    );
    assert_eq!(
        list(&name, Some("application/parts")),
        [line(&parts, "application/parts")]
    );
    assert_eq!(list(&name, Some("application/else")), []);
    let digest = Digest::of(&image.manifest);
    assert_eq!(
        list(&format!("{}/app@{digest}", registry.host), None).len(),
        2
    );
}

#[test]
fn referrers_of_a_registry_that_lists_them_come_in_pages_and_are_not_kept_twice() {
    let image = RealImage::new(b"signed");
    let manifest = image.manifest.clone();
    let page = |entries: &[serde_json::Value]| {
        let index =
            serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        index.to_string()
    };
    let entry = |body: &[u8], kind: &str| {
        let mut entry = descriptor(MANIFEST, body);
        entry["artifactType"] = kind.into();
        entry
    };
    let (first, second) = (page(&[entry(b"1", "a/a")]), page(&[entry(b"2", "b/b")]));
    let stub = Stub::start(move |request| {
        let answer = |body: &str| {
            Answer::new(200)
                .header("Content-Type", INDEX)
                .body(body.as_bytes())
        };
        match (request.method.as_str(), request.path.as_str()) {
            (_, path) if path.ends_with("last=1") => answer(&second),
            ("GET", path) if path.contains("/referrers/") => {
                let next = format!("<{}?last=1>; rel=\"next\"", path.split('?').next().unwrap());
                answer(&first).header("Link", &next)
            }
            ("HEAD", path) if path.contains("/blobs/") => Answer::new(200),
            ("PUT", _) => Answer::new(201).header("OCI-Subject", "sha256:00"),
            _ => image.answer(request),
        }
    });
    let name = format!("{}/app", stub.host);
    assert_eq!(list(&name, None).len(), 2);
    // It does not filter, so we do.
    assert_eq!(
        list(&name, Some("b/b")),
        [(Digest::of(b"2"), Some("b/b".to_owned()))]
    );
    let place = Place::new();
    store(&place, "artifact", &[b"{}"], &artifact(&manifest, "a/a"));
    let target = Reference::parse(&name).unwrap();
    let options = RegistryOptions::default();
    place
        .store
        .push("artifact", &target, None, &options, &())
        .unwrap();
    assert_eq!(
        stub.count(|r| r.method == "PUT"),
        1,
        "the registry keeps it"
    );
}
