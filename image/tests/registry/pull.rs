//! Pulls from a real registry (Debian's `docker-registry`) and from servers that lie.

use std::fs;
use std::net::TcpListener;
use std::sync::Mutex;

use crate::support::real::{Extra, Registry, Tls};
use crate::support::stub::{Answer, Request, Stub};
use crate::support::{
    CONFIG, INDEX, LAYER, MANIFEST, Place, descriptor, index_of, manifest_of, on_platform,
};
use image::{
    AuthConfig, ContentStore, Digest, ErrorKind, ImageError, Outcome, Platform, PlatformChoice,
    Progress, Pulled, Reference, RegistryError, RegistryOptions, Task,
};

fn pull_with(
    place: &Place,
    name: &str,
    choice: &PlatformChoice,
    options: &RegistryOptions,
) -> Result<Pulled, ImageError> {
    let reference = Reference::parse(name).unwrap();
    let result = image::pull(&place.content, &reference, choice, options, &());
    assert_eq!(place.leftovers(), 0, "a pull leaves nothing in tmp");
    result
}

fn pull(place: &Place, name: &str) -> Result<Pulled, ImageError> {
    let (choice, options) = (PlatformChoice::Default, RegistryOptions::default());
    pull_with(place, name, &choice, &options)
}

fn registry_error(result: Result<Pulled, ImageError>) -> RegistryError {
    match result.unwrap_err() {
        ImageError::Registry(error) => *error,
        error => panic!("{error:?}"),
    }
}

fn cause(error: RegistryError) -> ImageError {
    match error {
        RegistryError::Fetch { source, .. } => *source,
        error => panic!("{error:?}"),
    }
}

fn all_there(content: &ContentStore, blobs: &[&[u8]]) {
    for blob in blobs {
        assert_eq!(content.read(&Digest::of(blob), 1 << 30).unwrap(), *blob);
    }
}

#[derive(Default)]
struct Record(Mutex<Vec<(Digest, String)>>);

impl Progress for Record {
    fn advance(&self, _: Task, blob: &Digest, bytes: u64) {
        self.0.lock().unwrap().push((*blob, format!("+{bytes}")));
    }

    fn end(&self, task: Task, blob: &Digest, outcome: Outcome) {
        let entry = (*blob, format!("{task:?} {outcome:?}"));
        self.0.lock().unwrap().push(entry);
    }
}

// --- a real registry ---

#[test]
fn pull_two_layers_brings_everything_once() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    // Larger than a chunk, and than what a socket buffers.
    let (low, high) = (vec![7_u8; 3_000_000], b"upper".to_vec());
    let (config, empty) = (b"{\"os\":\"linux\"}".to_vec(), Vec::new());
    let layers = [
        descriptor(LAYER, &low),
        descriptor(LAYER, &high),
        descriptor(LAYER, &low),
    ];
    let manifest = manifest_of(&descriptor(CONFIG, &config), &layers);
    registry.fill("team/app", &[&low, &high, &config, &empty]);
    registry.put_manifest("team/app", "1.0", MANIFEST, &manifest);

    let place = Place::new();
    let name = format!("{}/team/app:1.0", registry.host);
    let pulled = pull(&place, &name).unwrap();
    assert_eq!(pulled.top.digest, Digest::of(&manifest));
    assert_eq!(pulled.top.media_type, MANIFEST);
    assert_eq!(pulled.top.size, manifest.len() as u64);
    assert_eq!(pulled.manifests, [Digest::of(&manifest)]);
    all_there(&place.content, &[&low, &high, &config, &manifest]);
    assert_eq!(place.content.list().unwrap().len(), 4);

    place.content.remove(&Digest::of(&high)).unwrap();
    let record = Record::default();
    let reference = Reference::parse(&name).unwrap();
    let (choice, options) = (PlatformChoice::Default, RegistryOptions::default());
    image::pull(&place.content, &reference, &choice, &options, &record).unwrap();
    let mut entries = record.0.into_inner().unwrap();
    entries.sort();
    let mut expected = [
        (Digest::of(&low), "Download AlreadyThere".to_owned()),
        (Digest::of(&config), "Download AlreadyThere".to_owned()),
        (Digest::of(&high), "+5".to_owned()),
        (Digest::of(&high), "Download Done".to_owned()),
    ];
    expected.sort();
    assert_eq!(entries, expected);
}

#[test]
fn pull_index_brings_the_chosen_platforms() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let image = |text: &str| {
        let (config, layer) = (format!("{{\"x\":\"{text}\"}}"), format!("layer {text}"));
        let layers = [descriptor(LAYER, layer.as_bytes())];
        let manifest = manifest_of(&descriptor(CONFIG, config.as_bytes()), &layers);
        registry.fill("multi", &[config.as_bytes(), layer.as_bytes()]);
        let digest = Digest::of(&manifest).to_string();
        registry.put_manifest("multi", &digest, MANIFEST, &manifest);
        manifest
    };
    let host = Platform::host();
    let (native, other, wasm) = (image("native"), image("other"), image("wasm"));
    let entries = [
        on_platform(&descriptor(MANIFEST, &wasm), "wasip1", "wasm"),
        on_platform(&descriptor(MANIFEST, &other), "linux", "s390x"),
        on_platform(
            &descriptor(MANIFEST, &native),
            host.os(),
            host.architecture(),
        ),
    ];
    let index = index_of(&entries);
    registry.put_manifest("multi", "all", INDEX, &index);
    registry.put_manifest("multi", "foreign", INDEX, &index_of(&entries[..2]));
    registry.put_manifest("multi", "s390x", INDEX, &index_of(&entries[1..2]));

    let options = RegistryOptions::default();
    let only = |text: &str| PlatformChoice::Only(text.parse().unwrap());
    let digests = |manifests: &[&Vec<u8>]| -> Vec<Digest> {
        manifests.iter().map(|bytes| Digest::of(bytes)).collect()
    };
    let table = [
        ("all", PlatformChoice::Default, digests(&[&native])),
        ("all", only("linux/s390x"), digests(&[&other])),
        ("all", only("wasi/wasm"), digests(&[&wasm])),
        ("foreign", PlatformChoice::Default, digests(&[&wasm])),
        (
            "all",
            PlatformChoice::All,
            digests(&[&wasm, &other, &native]),
        ),
    ];
    for (tag, choice, expected) in table {
        let place = Place::new();
        let name = format!("{}/multi:{tag}", registry.host);
        let pulled = pull_with(&place, &name, &choice, &options).unwrap();
        assert_eq!(pulled.manifests, expected, "{tag} {choice:?}");
        assert_eq!(pulled.top.media_type, INDEX);
        assert_eq!(place.content.list().unwrap().len(), 1 + 3 * expected.len());
    }
    let place = Place::new();
    let error = pull(&place, &format!("{}/multi:s390x", registry.host)).unwrap_err();
    assert!(
        matches!(&error, ImageError::NoPlatform { present, .. } if present == &["linux/s390x"]),
        "{error:?}"
    );
    assert_eq!(place.content.list().unwrap().len(), 0);

    // By digest; and then without the registry asking for anything that is there.
    let name = format!("{}/multi@{}", registry.host, Digest::of(&native));
    assert_eq!(pull(&place, &name).unwrap().top.digest, Digest::of(&native));
    let gone = format!("127.0.0.1:1/multi@{}", Digest::of(&native));
    assert_eq!(pull(&place, &gone).unwrap().top.media_type, MANIFEST);
}

#[test]
fn pull_wasm_artifact_brings_its_blobs_as_they_are() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let module = b"\0asm\x01\0\0\0".to_vec();
    let config = br#"{"architecture":"wasm","os":"wasip1","layerDigests":[]}"#.to_vec();
    let empty = b"{}".to_vec();
    registry.fill("wasm", &[&module, &config, &empty, b""]);
    let layers = [descriptor("application/wasm", &module)];
    let cncf = manifest_of(
        &descriptor("application/vnd.wasm.config.v0+json", &config),
        &layers,
    );
    let oras = manifest_of(
        &descriptor("application/vnd.oci.empty.v1+json", &empty),
        &[layers[0].clone(), descriptor("text/plain", b"")],
    );
    registry.put_manifest("wasm", "cncf", MANIFEST, &cncf);
    registry.put_manifest("wasm", "oras", MANIFEST, &oras);
    let place = Place::new();
    for tag in ["cncf", "oras"] {
        pull(&place, &format!("{}/wasm:{tag}", registry.host)).unwrap();
    }
    all_there(
        &place.content,
        &[&module, &config, &empty, b"", &cncf, &oras],
    );
}

#[test]
fn pull_unknown_image_is_not_found() {
    let Some(registry) = Registry::start(Extra::None) else {
        return;
    };
    let place = Place::new();
    let error = registry_error(pull(&place, &format!("{}/no/such:tag", registry.host)));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "image `{0}/no/such:tag` not found in registry `{0}`",
            registry.host
        )
    );
}

#[test]
fn pull_with_password_needs_the_right_one() {
    let Some(registry) = Registry::start(Extra::Password) else {
        return;
    };
    let (config, layer) = (b"{}".to_vec(), vec![1; 100_000]);
    registry.fill("private", &[&config, &layer]);
    let manifest = manifest_of(&descriptor(CONFIG, &config), &[descriptor(LAYER, &layer)]);
    registry.put_manifest("private", "latest", MANIFEST, &manifest);
    let options = |password: &str| RegistryOptions {
        auth: AuthConfig::load(
            None,
            Some(&format!(
                r#"{{"auths": {{"{}": {{"username": "user", "password": "{password}"}}}}}}"#,
                registry.host
            )),
        )
        .unwrap(),
        ..RegistryOptions::default()
    };
    let name = format!("{}/private", registry.host);
    let place = Place::new();
    let choice = PlatformChoice::Default;
    for options in [options("wrong"), RegistryOptions::default()] {
        let error = registry_error(pull_with(&place, &name, &choice, &options));
        assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("ketch login"));
    }
    pull_with(&place, &name, &choice, &options("secret")).unwrap();
    all_there(&place.content, &[&config, &layer, &manifest]);
}

#[test]
fn pull_over_tls_needs_the_authority() {
    let Some(tls) = Tls::make() else { return };
    let Some(registry) = Registry::start(Extra::Tls(&tls)) else {
        return;
    };
    let (config, layer) = (b"{}".to_vec(), vec![1; 100_000]);
    registry.fill("app", &[&config, &layer]);
    let manifest = manifest_of(&descriptor(CONFIG, &config), &[descriptor(LAYER, &layer)]);
    registry.put_manifest("app", "latest", MANIFEST, &manifest);
    let name = format!("{}/app", registry.host);
    let place = Place::new();
    let error = registry_error(pull(&place, &name));
    assert!(matches!(error, RegistryError::Unreachable { .. }));
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("authority"), "{error:?}");
    let options = RegistryOptions {
        extra_ca: vec![tls.authority()],
        ..RegistryOptions::default()
    };
    pull_with(&place, &name, &PlatformChoice::Default, &options).unwrap();
    all_there(&place.content, &[&config, &layer, &manifest]);
}

#[test]
fn pull_over_tls_sends_no_credentials_to_a_plain_token_service() {
    let Some(tls) = Tls::make() else { return };
    let Some(registry) = Registry::start(Extra::PlainRealm(&tls)) else {
        return;
    };
    let auths = format!(
        r#"{{"auths": {{"{}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#,
        registry.host
    );
    let options = RegistryOptions {
        extra_ca: vec![tls.authority()],
        auth: AuthConfig::load(None, Some(&auths)).unwrap(),
        ..RegistryOptions::default()
    };
    let place = Place::new();
    let name = format!("{}/app", registry.host);
    let result = pull_with(&place, &name, &PlatformChoice::Default, &options);
    let error = registry_error(result);
    assert!(
        matches!(error, RegistryError::InsecureRealm { .. }),
        "{error:?}"
    );
}

// --- servers that lie ---

/// An image of one layer, as a stub serves it.
struct Served {
    config: Vec<u8>,
    layer: Vec<u8>,
    manifest: Vec<u8>,
}

impl Served {
    fn new() -> Self {
        let (config, layer) = (b"{}".to_vec(), vec![b'l'; 50_000]);
        let manifest = manifest_of(&descriptor(CONFIG, &config), &[descriptor(LAYER, &layer)]);
        Self {
            config,
            layer,
            manifest,
        }
    }

    /// What an honest registry answers.
    fn answer(&self, request: &Request) -> Answer {
        let blob = |bytes: &[u8]| request.path == format!("/v2/app/blobs/{}", Digest::of(bytes));
        match request.path.as_str() {
            "/v2/" => Answer::new(200),
            path if path.starts_with("/v2/app/manifests/") => Answer::new(200)
                .header("Content-Type", MANIFEST)
                .body(&self.manifest),
            _ if blob(&self.config) => Answer::new(200).body(&self.config),
            _ if blob(&self.layer) => Answer::new(200).body(&self.layer),
            _ => Answer::new(404),
        }
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&Digest::of(&self.layer).hex())
    }
}

#[test]
fn pull_wrong_blob_is_refused_and_not_stored() {
    let served = Served::new();
    let digest = Digest::of(&served.layer);
    let stub = Stub::start(move |request| {
        let wrong = vec![b'w'; served.layer.len()];
        match served.is_layer(request) {
            true => Answer::new(200).body(&wrong),
            false => served.answer(request),
        }
    });
    let place = Place::new();
    let error = cause(registry_error(pull(&place, &format!("{}/app", stub.host))));
    assert!(
        matches!(error, ImageError::DigestMismatch { expected, .. } if expected == digest),
        "{error:?}"
    );
    assert!(!place.content.has(&digest));
}

#[test]
fn pull_too_long_blob_is_refused() {
    for announce in [true, false] {
        let served = Served::new();
        let stub = Stub::start(move |request| {
            let long = vec![b'l'; served.layer.len() + 1];
            match (served.is_layer(request), announce) {
                (true, true) => Answer::new(200).body(&long),
                (true, false) => Answer::new(200).body_until_close(&long),
                (false, _) => served.answer(request),
            }
        });
        let place = Place::new();
        let error = cause(registry_error(pull(&place, &format!("{}/app", stub.host))));
        assert!(matches!(
            error,
            ImageError::SizeMismatch {
                expected: 50_000,
                ..
            }
        ));
    }
}

#[test]
fn pull_truncated_blob_is_tried_again_and_then_reported() {
    let served = Served::new();
    let stub = Stub::start(move |request| match served.is_layer(request) {
        true => Answer::new(200).body(&served.layer).truncate(20_000),
        false => served.answer(request),
    });
    let place = Place::new();
    let error = registry_error(pull(&place, &format!("{}/app", stub.host)));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        matches!(
            error,
            RegistryError::Truncated {
                expected: 50_000,
                actual: 20_000,
                ..
            }
        ),
        "{error:?}"
    );
    let layers =
        stub.count(|request| request.header("range").is_some() && request.path.contains("blobs"));
    assert_eq!(
        layers, 3,
        "the first attempt asks for all, the others for the rest"
    );
}

#[test]
fn pull_busy_registry_is_asked_again() {
    let served = Served::new();
    let stub = Stub::counting(move |request, earlier| {
        let is_manifest = request.path.contains("manifests");
        match (is_manifest || served.is_layer(request), earlier) {
            (true, 0) if is_manifest => Answer::new(429).header("Retry-After", "1"),
            (true, 0) => Answer::new(503),
            _ => served.answer(request),
        }
    });
    let place = Place::new();
    let begin = std::time::Instant::now();
    pull(&place, &format!("{}/app", stub.host)).unwrap();
    assert!(begin.elapsed() >= std::time::Duration::from_secs(1));
}

#[test]
fn pull_registry_that_asks_for_too_much_patience_is_given_up() {
    let stub = Stub::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(200),
        _ => Answer::new(503).header("Retry-After", "3600"),
    });
    let place = Place::new();
    let error = registry_error(pull(&place, &format!("{}/app", stub.host)));
    assert!(matches!(
        error,
        RegistryError::Unavailable { status: 503, .. }
    ));
    assert_eq!(stub.count(|request| request.path.contains("manifests")), 1);
}

#[test]
fn pull_with_token_service_shows_the_token_to_the_registry_only() {
    let served = Served::new();
    let storage = Stub::start({
        let layer = served.layer.clone();
        move |_| Answer::new(200).body(&layer)
    });
    let service = Stub::start(|request| {
        let user = request.header("authorization") == Some("Basic dXNlcjpwYXNz");
        let scope = "/token?scope=repository%3Aapp%3Apull&service=reg";
        match (user, request.path.starts_with(scope)) {
            (true, true) => Answer::new(200).body(br#"{"token":"t0ken","expires_in":60}"#),
            _ => Answer::new(401),
        }
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"x\"",
        service.host
    );
    let elsewhere = format!("http://{}/signed?x=y", storage.host);
    let stub = Stub::start(move |request| {
        if request.header("authorization") != Some("Bearer t0ken") {
            return Answer::new(401).header("WWW-Authenticate", &challenge);
        }
        match served.is_layer(request) {
            true => Answer::new(307).header("Location", &elsewhere),
            false => served.answer(request),
        }
    });
    let name = format!("{}/app", stub.host);
    let place = Place::new();
    let error = registry_error(pull(&place, &name));
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    let auths = format!(
        r#"{{"auths": {{"{}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#,
        stub.host
    );
    let options = RegistryOptions {
        auth: AuthConfig::load(None, Some(&auths)).unwrap(),
        ..RegistryOptions::default()
    };
    pull_with(&place, &name, &PlatformChoice::Default, &options).unwrap();
    assert_eq!(storage.count(|_| true), 1);
    assert_eq!(
        storage.count(|request| request.header("authorization").is_some()),
        0
    );
    assert_eq!(
        stub.count(|r| r.header("authorization") == Some("Basic dXNlcjpwYXNz")),
        0
    );
}

#[test]
fn pull_manifest_redirect_to_another_origin_carries_no_password() {
    let served = Served::new();
    let other = Stub::start({
        let manifest = served.manifest.clone();
        move |_| {
            Answer::new(200)
                .header("Content-Type", MANIFEST)
                .body(&manifest)
        }
    });
    let elsewhere = format!("http://{}/m", other.host);
    let stub = Stub::start(move |request| {
        match (
            request.header("authorization"),
            request.path.contains("manifests"),
        ) {
            (None, _) => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
            (_, true) => Answer::new(302).header("Location", &elsewhere),
            _ => served.answer(request),
        }
    });
    let auths = format!(
        r#"{{"auths": {{"{}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#,
        stub.host
    );
    let options = RegistryOptions {
        auth: AuthConfig::load(None, Some(&auths)).unwrap(),
        ..RegistryOptions::default()
    };
    let place = Place::new();
    let name = format!("{}/app", stub.host);
    pull_with(&place, &name, &PlatformChoice::Default, &options).unwrap();
    assert_eq!(
        other.count(|request| request.header("authorization").is_none()),
        1
    );
    assert_eq!(other.count(|_| true), 1);
}

#[test]
fn pull_token_that_expires_in_between_is_renewed() {
    let served = Served::new();
    let service = Stub::counting(|_, earlier| {
        Answer::new(200).body(format!(r#"{{"access_token":"t{earlier}"}}"#).as_bytes())
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", service.host);
    let stub = Stub::start(move |request| {
        let good = match request.path.contains("manifests") {
            true => "Bearer t0",
            false => "Bearer t1",
        };
        match request.header("authorization") == Some(good) {
            true => served.answer(request),
            false => Answer::new(401).header("WWW-Authenticate", &challenge),
        }
    });
    let place = Place::new();
    // One blob at a time, so that there is one renewal.
    let small = Served::new();
    place.content.put(&small.config).unwrap();
    pull(&place, &format!("{}/app", stub.host)).unwrap();
    assert_eq!(service.count(|_| true), 2);
}

#[test]
fn pull_with_identity_token_exchanges_it_by_post() {
    let served = Served::new();
    let service = Stub::start(|request| {
        let is_form = request.header("content-type") == Some("application/x-www-form-urlencoded");
        let form = "scope=repository%3Aapp%3Apull&service=s&client_id=ketch\
                    &grant_type=refresh_token&refresh_token=re%26fresh";
        match is_form && request.body == form.as_bytes() && request.path == "/token?x=1" {
            true => Answer::new(200).body(br#"{"access_token":"fresh"}"#),
            false => Answer::new(400),
        }
    });
    let challenge = format!(
        "Bearer realm=\"http://{}/token?x=1\",service=s",
        service.host
    );
    let stub =
        Stub::start(
            move |request| match request.header("authorization") == Some("Bearer fresh") {
                true => served.answer(request),
                false => Answer::new(401).header("WWW-Authenticate", &challenge),
            },
        );
    let auths = format!(
        r#"{{"auths": {{"{}": {{"identitytoken": "re&fresh"}}}}}}"#,
        stub.host
    );
    let options = RegistryOptions {
        auth: AuthConfig::load(None, Some(&auths)).unwrap(),
        ..RegistryOptions::default()
    };
    let name = format!("{}/app", stub.host);
    pull_with(&Place::new(), &name, &PlatformChoice::Default, &options).unwrap();
}

#[test]
fn pull_deceitful_manifests_are_refused() {
    let config = descriptor(CONFIG, b"{}");
    let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
    let index = String::from_utf8(index_of(&[])).unwrap();
    let manifest = String::from_utf8(manifest_of(&config, &[])).unwrap();
    let old = r#"{"schemaVersion":1,"name":"a","fsLayers":[],"history":[]}"#.to_owned();
    let huge = " ".repeat(5 << 20);
    let sha512 = manifest.replace("sha256:", "sha512:");
    let v1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let table = [
        ("both kinds", MANIFEST, both, None),
        ("another type than announced", MANIFEST, index, None),
        ("another type than announced", INDEX, manifest.clone(), None),
        ("Docker's first format", v1, old, None),
        ("too large", MANIFEST, huge, None),
        ("another digest algorithm", MANIFEST, sha512, None),
        ("no JSON", MANIFEST, "<html>".to_owned(), None),
        (
            "another digest than promised",
            MANIFEST,
            manifest,
            Some(Digest::of(b"x").to_string()),
        ),
    ];
    for (what, media_type, body, digest) in table {
        let stub = Stub::start(move |request| match request.path.as_str() {
            "/v2/" => Answer::new(200),
            _ => Answer::new(200)
                .header("Content-Type", media_type)
                .header(
                    "Docker-Content-Digest",
                    digest.as_deref().unwrap_or_default(),
                )
                .body(body.as_bytes()),
        });
        let place = Place::new();
        let error = pull(&place, &format!("{}/app", stub.host)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error:?}");
        assert_eq!(place.content.list().unwrap().len(), 0, "{what}");
    }
}

#[test]
fn pull_registry_that_is_down_is_unreachable() {
    // Bound and not listening any more: nobody else gets the port meanwhile, mostly.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let place = Place::new();
    for name in [
        format!("127.0.0.1:{port}/app"),
        "no-such-host.invalid/app".to_owned(),
    ] {
        let error = registry_error(pull(&place, &name));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let host = name.split('/').next().unwrap();
        assert_eq!(error.to_string(), format!("cannot reach registry `{host}`"));
    }
}

#[test]
fn credentials_come_from_a_file_and_a_broken_one_stops_the_pull() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let mut file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, b"{ not json").unwrap();
    let error = AuthConfig::load(Some(&path), None).unwrap_err();
    assert!(matches!(error, RegistryError::InvalidCredentials { .. }));
}
