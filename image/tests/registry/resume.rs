//! Bad lines, bad servers, and pulls that go on where an earlier one ended.

use image::{ErrorKind, ImageError, PlatformChoice, Pulled, Reference, RegistryOptions};

use crate::support::stub::{Answer, Request, Stub};
use crate::support::{Place, RealImage};

fn pull(place: &Place, host: &str) -> Result<Pulled, ImageError> {
    pull_with(place, host, &RegistryOptions::default())
}

fn pull_with(place: &Place, host: &str, options: &RegistryOptions) -> Result<Pulled, ImageError> {
    let reference = Reference::parse(&format!("{host}/app")).unwrap();
    let choice = PlatformChoice::Default;
    place.store.pull(&reference, &choice, options, &())
}

/// Where a request for a range begins.
fn offset(request: &Request) -> usize {
    let range = request.header("range").unwrap_or("bytes=0-");
    let start = range.strip_prefix("bytes=").unwrap();
    start.trim_end_matches('-').parse().unwrap()
}

/// The rest of the bytes from where the request wants them.
fn rest(bytes: &[u8], request: &Request) -> Answer {
    let from = offset(request);
    if from == 0 {
        return Answer::new(200).body(bytes);
    }
    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    Answer::new(206)
        .header("Content-Range", &range)
        .body(&bytes[from..])
}

#[test]
fn pull_cut_again_and_again_goes_on_and_unpacks() {
    let image = RealImage::large();
    let layer = image.layer_path();
    // A cut after each megabyte and a bit: more often than attempts in a row are made.
    let stub = Stub::start(move |request| match request.path == layer {
        true => rest(&image.layer, request).truncate(1_100_000),
        false => image.answer(request),
    });
    let place = Place::new();
    pull(&place, &stub.host).unwrap();
    assert_eq!(place.layers(), 1);
    assert!(place.beginnings().is_empty());
    assert_eq!(stub.count(|request| request.header("range").is_some()), 2);
}

#[test]
fn pull_after_a_failed_one_asks_for_the_rest_only() {
    let image = RealImage::large();
    let (layer, whole) = (image.layer_path(), image.layer.len());
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = std::sync::Arc::clone(&down);
    let stub = Stub::start(move |request| {
        let broken = is_down.load(std::sync::atomic::Ordering::SeqCst);
        match request.path == layer {
            true if broken && offset(request) > 0 => Answer::new(416),
            true if broken => rest(&image.layer, request).truncate(2_000_000),
            true => rest(&image.layer, request),
            false => image.answer(request),
        }
    });
    let place = Place::new();
    pull(&place, &stub.host).unwrap_err();
    // Not a bad line but a wrong answer: nothing is kept.
    assert!(place.beginnings().is_empty());
    assert_eq!(place.content.list().unwrap().len(), 0);

    down.store(false, std::sync::atomic::Ordering::SeqCst);
    // What a killed pull leaves.
    let digest = image::Digest::of(&RealImage::large().layer);
    let mut part = place.content.path(&digest).into_os_string();
    part.push(".part");
    let layer = RealImage::large().layer;
    sys::durable::replace_file(
        std::path::Path::new(&part),
        &layer[..1_500_000],
        sys::durable::Durability::Atomic,
    )
    .unwrap();
    pull(&place, &stub.host).unwrap();
    assert_eq!(place.layers(), 1);
    let resumed = |request: &Request| request.header("range") == Some("bytes=1500000-");
    assert_eq!(stub.count(resumed), 1);
    assert_eq!(place.content.size(&digest).unwrap(), whole as u64);
}

#[test]
fn pull_of_a_registry_that_goes_down_keeps_the_beginning() {
    let image = RealImage::large();
    let layer = image.layer_path();
    let stub = Stub::start(move |request| match request.path == layer {
        true if offset(request) > 0 => Answer::new(503).header("Retry-After", "3600"),
        true => rest(&image.layer, request).truncate(2_000_000),
        false => image.answer(request),
    });
    let place = Place::new();
    let error = pull(&place, &stub.host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let [part] = place.beginnings().try_into().unwrap();
    assert_eq!(std::fs::metadata(part).unwrap().len(), 2_000_000);
    assert_eq!(place.leftovers(), 0);
    assert_eq!(place.layers(), 0);
    // Nobody wants it any more.
    let pruned = place
        .store
        .prune(&image::PruneOptions::default(), &|_| None);
    assert!(pruned.unwrap().freed >= 2_000_000);
    assert!(place.beginnings().is_empty());
    assert_eq!(place.content.list().unwrap().len(), 0);
}

#[test]
fn pull_with_a_damaged_beginning_fetches_all_of_it() {
    let image = RealImage::large();
    let (layer, digest) = (image.layer_path(), image::Digest::of(&image.layer));
    let stub = Stub::start(move |request| match request.path == layer {
        true => rest(&image.layer, request),
        false => image.answer(request),
    });
    let place = Place::new();
    let mut part = place.content.path(&digest).into_os_string();
    part.push(".part");
    sys::durable::replace_file(
        std::path::Path::new(&part),
        &[0; 1_000_000],
        sys::durable::Durability::Atomic,
    )
    .unwrap();
    pull(&place, &stub.host).unwrap();
    assert_eq!(place.layers(), 1);
    assert!(place.beginnings().is_empty());
}

#[test]
fn pull_from_a_server_that_knows_no_ranges_skips_what_is_there() {
    let image = RealImage::large();
    let layer = image.layer_path();
    let stub = Stub::counting(move |request, earlier| match request.path == layer {
        true if earlier == 0 => Answer::new(200).body(&image.layer).truncate(1_500_000),
        true => Answer::new(200).body(&image.layer),
        false => image.answer(request),
    });
    let place = Place::new();
    pull(&place, &stub.host).unwrap();
    assert_eq!(place.layers(), 1);
}

#[test]
fn pull_from_a_server_that_sends_another_range_is_refused() {
    let image = RealImage::large();
    let layer = image.layer_path();
    let stub = Stub::counting(move |request, earlier| match request.path == layer {
        true if earlier == 0 => Answer::new(200).body(&image.layer).truncate(1_500_000),
        true => Answer::new(206)
            .header("Content-Range", "bytes 5-9/10")
            .body(b"wrong"),
        false => image.answer(request),
    });
    let place = Place::new();
    let error = pull(&place, &stub.host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert_eq!((place.layers(), place.leftovers()), (0, 0));
    assert!(place.beginnings().is_empty());
}

#[test]
fn pull_of_a_blob_with_another_content_leaves_nothing() {
    let image = RealImage::large();
    let layer = image.layer_path();
    let stub = Stub::start(move |request| match request.path == layer {
        true => Answer::new(200).body(&vec![7; image.layer.len()]),
        false => image.answer(request),
    });
    let place = Place::new();
    let error = pull(&place, &stub.host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert_eq!((place.layers(), place.leftovers()), (0, 0));
    assert!(place.beginnings().is_empty());
    assert_eq!(place.content.list().unwrap().len(), 0);
    let name = format!("{}/app", stub.host);
    assert!(place.store.resolve(&name, None).is_err());
}

#[test]
fn pull_of_a_known_tag_is_one_head_request() {
    let image = RealImage::new(b"x");
    let stub = Stub::start(move |request| image.answer(request));
    let place = Place::new();
    pull(&place, &stub.host).unwrap();
    let before = stub.count(|_| true);
    pull(&place, &stub.host).unwrap();
    assert_eq!(stub.count(|_| true) - before, 1);
    assert_eq!(stub.count(|request| request.method == "HEAD"), 1);
}

#[test]
fn pull_of_a_tag_that_moved_brings_the_new_image() {
    let (old, new) = (RealImage::new(b"old"), RealImage::new(b"new"));
    let expected = image::Digest::of(&new.manifest);
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let has_moved = std::sync::Arc::clone(&moved);
    let stub =
        Stub::start(
            move |request| match has_moved.load(std::sync::atomic::Ordering::SeqCst) {
                true => new.answer(request),
                false => old.answer(request),
            },
        );
    let place = Place::new();
    pull(&place, &stub.host).unwrap();
    moved.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(pull(&place, &stub.host).unwrap().top.digest, expected);
    assert_eq!(place.store.list().unwrap().len(), 2);
}

#[test]
fn pull_with_tokens_that_end_asks_for_new_ones() {
    let image = RealImage::large();
    let layer = image.layer_path();
    let number = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let issued = std::sync::Arc::clone(&number);
    let service = Stub::start(move |_| {
        let number = issued.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        Answer::new(200).body(format!("{{\"token\": \"t{number}\"}}").as_bytes())
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        service.host
    );
    let stub = Stub::start(move |request| {
        // The first token is good for manifests only.
        let good = match request.header("authorization") {
            Some("Bearer t1") => request.path != layer,
            Some(_) => true,
            None => false,
        };
        match good {
            true => image.answer(request),
            false => Answer::new(401).header("WWW-Authenticate", &challenge),
        }
    });
    let place = Place::new();
    pull(&place, &stub.host).unwrap();
    assert_eq!(number.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn pull_and_prune_at_the_same_time_keep_the_image() {
    let image = RealImage::large();
    let layer = image.layer_path();
    let place = std::sync::Arc::new(Place::new());
    let pruner = std::sync::Arc::clone(&place);
    let stub = Stub::start(move |request| {
        // In the middle of the pull: config and manifest are here, and nobody names them.
        if request.path == layer {
            let options = image::PruneOptions {
                all: true,
                ..image::PruneOptions::default()
            };
            pruner.store.prune(&options, &|_| None).unwrap();
        }
        image.answer(request)
    });
    pull(&place, &stub.host).unwrap();
    let name = format!("{}/app", stub.host);
    let image = place.store.resolve(&name, None).unwrap();
    assert!(place.store.ensure_unpacked(&image, &()).is_ok());
}
