//! Pushes: to a real registry, and to one whose line breaks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use image::{
    Digest, ErrorKind, ImageError, PlatformChoice, Pushed, Reference, RegistryOptions,
    WasmArtifact, check_credentials, search, tags,
};

use crate::support::real::{Extra, Registry};
use crate::support::stub::{Answer, Stub};
use crate::support::{CONFIG, LAYER, MANIFEST, Place, RealImage, descriptor, manifest_of};

fn store_image(place: &Place, name: &str, image: &RealImage) {
    place.content.put(&image.layer).unwrap();
    place.content.put(&image.config).unwrap();
    place.content.put(&image.manifest).unwrap();
    let top = image::Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Digest::of(&image.manifest),
        size: image.manifest.len() as u64,
    };
    let name = Reference::parse(name).unwrap();
    place.store.record_pulled(&name, &top).unwrap();
}

fn push(place: &Place, source: &str, target: &str) -> Result<Pushed, ImageError> {
    let target = Reference::parse(target).unwrap();
    let options = RegistryOptions::default();
    place.store.push(source, &target, None, &options, &())
}

fn pull(place: &Place, name: &str) -> Digest {
    let reference = Reference::parse(name).unwrap();
    let (choice, options) = (PlatformChoice::Default, RegistryOptions::default());
    let pulled = place.store.pull(&reference, &choice, &options, &());
    pulled.unwrap().top.digest
}

#[test]
fn push_then_pull_elsewhere_keeps_every_digest() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let image = RealImage::large();
    let (here, there) = (Place::new(), Place::new());
    store_image(&here, "app", &image);
    let target = format!("{}/team/app:1", registry.host);
    let pushed = push(&here, "app", &target).unwrap();
    assert_eq!(pushed.top.digest, Digest::of(&image.manifest));
    assert!(!pushed.alone);
    assert_eq!(pull(&there, &target), Digest::of(&image.manifest));
    assert_eq!(there.layers(), 1);
    // And back: a pull and a push leave the bytes alone.
    let again = format!("{}/other/app:2", registry.host);
    assert_eq!(push(&there, &target, &again).unwrap().top, pushed.top);
    let reference = Reference::parse(&again).unwrap();
    let options = RegistryOptions::default();
    assert_eq!(tags(&reference, &options).unwrap(), ["2"]);
    let found = search(&registry.host, "team", 10, &options).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "team/app");
}

#[test]
fn push_of_what_is_there_sends_no_blob() {
    let image = Arc::new(RealImage::large());
    let served = Arc::clone(&image);
    let stub = Stub::start(move |request| match request.method.as_str() {
        "PUT" => Answer::new(201),
        _ => served.answer(request),
    });
    let place = Place::new();
    store_image(&place, "app", &image);
    push(&place, "app", &format!("{}/app:1", stub.host)).unwrap();
    assert_eq!(stub.count(|r| r.method == "POST" || r.method == "PATCH"), 0);
    assert_eq!(stub.count(|r| r.path == "/v2/app/manifests/1"), 1);
}

#[test]
fn push_mounts_from_a_repository_that_has_the_blob() {
    let image = RealImage::new(b"x");
    let layer = Digest::of(&image.layer).to_string();
    let stub = Stub::start(move |request| {
        let mounts = request
            .path
            .contains(&format!("mount={layer}&from=lib/base"));
        match request.method.as_str() {
            "HEAD" => Answer::new(404),
            "POST" if mounts => Answer::new(201),
            "POST" if request.path.contains("mount=") => {
                Answer::new(202).header("Location", "/v2/app/blobs/uploads/1")
            }
            "POST" => Answer::new(202).header("Location", "/v2/app/blobs/uploads/2"),
            "PUT" => Answer::new(201),
            _ => Answer::new(404),
        }
    });
    let place = Place::new();
    store_image(&place, &format!("{}/lib/base", stub.host), &image);
    store_image(&place, "app", &image);
    push(&place, "app", &format!("{}/app:1", stub.host)).unwrap();
    // The config went by the upload that the refused mount began.
    assert_eq!(
        stub.count(|r| r.path.starts_with("/v2/app/blobs/uploads/1")),
        1
    );
    assert_eq!(
        stub.count(|r| r.path.starts_with("/v2/app/blobs/uploads/2")),
        0
    );
}

#[test]
fn push_over_a_line_that_breaks_goes_on() {
    let bytes: Vec<u8> = (0..9_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let diff_ids = [Digest::of(&bytes).to_string()];
    let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let manifest = manifest_of(&descriptor(CONFIG, &config), &[descriptor(LAYER, &bytes)]);
    let image = RealImage {
        layer: bytes.clone(),
        config: config.clone(),
        manifest,
    };
    let got = Arc::new(Mutex::new(Vec::new()));
    let patches = Arc::new(AtomicUsize::new(0));
    let (received, count) = (Arc::clone(&got), Arc::clone(&patches));
    let stub = Stub::start(move |request| {
        let location = "/v2/app/blobs/uploads/u?state=1";
        let mut received = received.lock().unwrap();
        let range = |received: &[u8]| format!("0-{}", received.len().saturating_sub(1));
        match request.method.as_str() {
            "HEAD" if request.path.contains(&Digest::of(&config).to_string()) => Answer::new(200),
            "HEAD" => Answer::new(404),
            "POST" => Answer::new(202).header("Location", location),
            "PATCH" => {
                // Of the first body a part arrives, and the answer is an error.
                if count.fetch_add(1, Ordering::SeqCst) == 0 {
                    received.extend_from_slice(&request.body[..4_000_000]);
                    return Answer::new(502);
                }
                let start = format!("{}-", received.len());
                assert!(request.header("content-range").unwrap().starts_with(&start));
                received.extend_from_slice(&request.body);
                Answer::new(202)
                    .header("Location", location)
                    .header("Range", &range(&received))
            }
            "GET" => Answer::new(204).header("Range", &range(&received)),
            _ => Answer::new(201),
        }
    });
    let place = Place::new();
    store_image(&place, "broken", &image);
    push(&place, "broken", &format!("{}/app:1", stub.host)).unwrap();
    assert!(*got.lock().unwrap() == bytes);
    assert_eq!(patches.load(Ordering::SeqCst), 2);
}

#[test]
fn push_without_credentials_says_what_to_do() {
    let Some(registry) = Registry::start(Extra::Password) else {
        return;
    };
    let place = Place::new();
    store_image(&place, "app", &RealImage::new(b"x"));
    let error = push(&place, "app", &format!("{}/app", registry.host)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hint().unwrap().contains("ketch login"));
    let options = RegistryOptions::default();
    let password = |text: &str| image::Credentials::Password {
        username: "user".to_owned(),
        password: image::Secret::new(text.to_owned()),
    };
    check_credentials(&registry.host, &password("secret"), &options).unwrap();
    let error = check_credentials(&registry.host, &password("wrong"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[test]
fn wrapped_module_goes_through_a_registry() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let module = b"\0asm\x01\0\0\0".to_vec();
    let (here, there) = (Place::new(), Place::new());
    let name = Reference::parse(&format!("{}/wasm/app:1", registry.host)).unwrap();
    let artifact = WasmArtifact {
        component: None,
        created: Some("2025-01-01T00:00:00Z".to_owned()),
    };
    let wrap = |place: &Place| {
        let digest = place.store.wrap_wasm(module.as_slice(), &name, &artifact);
        digest.unwrap()
    };
    assert_eq!(
        wrap(&here),
        wrap(&Place::new()),
        "the same bytes, the same image"
    );
    let text = name.to_string();
    push(&here, &text, &text).unwrap();
    assert_eq!(pull(&there, &text), wrap(&here));
    let image = there.store.resolve(&text, None).unwrap();
    assert_eq!(image.wasm_layers.len(), 1);
    assert_eq!(image.platform, image::Platform::wasi());
    let error = here.store.wrap_wasm(&b"\x7fELF...."[..], &name, &artifact);
    assert!(error.is_err());
    assert_eq!(here.leftovers(), 0);
}

#[test]
fn index_made_by_hand_is_pushed_whole() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let place = Place::new();
    store_image(&place, "one", &RealImage::new(b"one"));
    store_image(&place, "two", &RealImage::new(b"two"));
    let name = Reference::parse(&format!("{}/multi:1", registry.host)).unwrap();
    let images = ["one".to_owned(), "two".to_owned()];
    place.store.create_index(&name, &images, false).unwrap();
    assert!(place.store.create_index(&name, &images, false).is_err());
    let change = image::EntryChange {
        architecture: Some("riscv64".to_owned()),
        ..image::EntryChange::default()
    };
    place.store.annotate_index(&name, "two", &change).unwrap();
    let entries = place.store.index_entries(&name).unwrap();
    assert_eq!(entries[1].platform.to_string(), "linux/riscv64");
    let text = name.to_string();
    let pushed = push(&place, &text, &text).unwrap();
    assert!(!pushed.alone);
    let there = Place::new();
    assert_eq!(pull(&there, &text), pushed.top.digest);
    // Only the one for this machine is there; it is pushed alone.
    let other = format!("{}/part:1", registry.host);
    let pushed = push(&there, &text, &other).unwrap();
    assert!(pushed.alone);
}
