//! Who gets which credentials: mirrors, redirects, token services, certificates, proxies.

use std::fs;

use image::{
    AuthConfig, ErrorKind, ImageError, Mirror, PlatformChoice, Proxies, Pulled, Reference,
    RegistryOptions,
};

use crate::support::real::{Extra, Registry, Tls};
use crate::support::stub::{Answer, Stub};
use crate::support::{Place, RealImage};

fn pull(name: &str, options: &RegistryOptions) -> Result<Pulled, ImageError> {
    let place = Place::new();
    let reference = Reference::parse(name).unwrap();
    let result = place
        .store
        .pull(&reference, &PlatformChoice::Default, options, &());
    assert_eq!(place.leftovers(), 0);
    result
}

fn password_of(host: &str) -> AuthConfig {
    let json = format!(r#"{{"auths": {{"{host}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#);
    AuthConfig::load(None, Some(&json)).unwrap()
}

fn mirror(registry: &str, location: String) -> Mirror {
    Mirror {
        registry: registry.to_owned(),
        location,
    }
}

#[test]
fn mirrors_are_asked_in_order_and_get_no_credentials_of_the_registry() {
    let image = RealImage::new(b"mirrored");
    let asks = |_: &_| Answer::new(401).header("WWW-Authenticate", "Basic realm=\"m\"");
    let closed = Stub::start(asks);
    let open = Stub::start(move |request| {
        let mut request = request.clone();
        request.path = request.path.replace("/hub/library/", "/");
        image.answer(&request)
    });
    let options = RegistryOptions {
        mirrors: vec![
            mirror("docker.io", format!("http://{}", closed.host)),
            mirror("docker.io", format!("http://{}/hub", open.host)),
        ],
        auth: password_of("https://index.docker.io/v1/"),
        ..RegistryOptions::default()
    };
    pull("app", &options).unwrap();
    assert!(closed.count(|_| true) >= 1);
    assert!(open.count(|r| r.path.starts_with("/v2/hub/library/app/")) >= 3);
    for stub in [&closed, &open] {
        assert_eq!(stub.count(|r| r.header("authorization").is_some()), 0);
    }
}

#[test]
fn mirror_that_lacks_a_blob_is_helped_by_the_registry() {
    let (image, same) = (RealImage::new(b"x"), RealImage::new(b"x"));
    let layer = image.layer_path();
    let lacking = Stub::start(move |request| match request.path == layer {
        true => Answer::new(404),
        false => image.answer(request),
    });
    let registry = Stub::start(move |request| same.answer(request));
    let options = RegistryOptions {
        mirrors: vec![mirror(&registry.host, format!("http://{}", lacking.host))],
        ..RegistryOptions::default()
    };
    pull(&format!("{}/app", registry.host), &options).unwrap();
    assert_eq!(registry.count(|r| r.path.contains("manifests")), 0);
    assert_eq!(registry.count(|r| r.path.contains("blobs")), 1);
}

#[test]
fn foreign_layer_addresses_are_never_asked() {
    // A manifest may name addresses of its layers (image-spec v1.1.1 `descriptor.md`, `urls`).
    let elsewhere = Stub::start(|_| Answer::new(200));
    let mut image = RealImage::new(b"x");
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/l", elsewhere.host)]);
    image.manifest = manifest.to_string().into_bytes();
    let stub = Stub::start(move |request| image.answer(request));
    let options = RegistryOptions {
        auth: password_of(&stub.host),
        ..RegistryOptions::default()
    };
    pull(&format!("{}/app", stub.host), &options).unwrap();
    assert_eq!(elsewhere.count(|_| true), 0);
}

#[test]
fn registry_behind_a_proxy_is_reached_by_it_and_loopback_is_not() {
    let image = RealImage::new(b"x");
    // A proxy sees the whole address in the first line.
    let proxy = Stub::start(move |request| {
        let mut request = request.clone();
        request.path = request.path.replace("http://registry.invalid", "");
        image.answer(&request)
    });
    let options = RegistryOptions {
        insecure: vec!["registry.invalid".to_owned()],
        proxies: Proxies {
            http: Some(format!("http://{}", proxy.host)),
            ..Proxies::default()
        },
        ..RegistryOptions::default()
    };
    pull("registry.invalid/app", &options).unwrap();
    let before = proxy.count(|_| true);
    let error = pull("127.0.0.1:1/app", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(proxy.count(|_| true), before);
    let options = RegistryOptions {
        proxies: Proxies {
            no_proxy: Some("registry.invalid".to_owned()),
            ..options.proxies.clone()
        },
        ..options
    };
    assert!(pull("registry.invalid/app", &options).is_err());
    assert_eq!(proxy.count(|_| true), before);
}

#[test]
fn certificates_of_a_registry_are_found_in_its_directory() {
    let Some(tls) = Tls::make() else { return };
    let Some(registry) = Registry::start(Extra::Tls(&tls)) else {
        return;
    };
    let image = RealImage::new(b"x");
    registry.fill("app", &[&image.layer, &image.config]);
    let media_type = crate::support::MANIFEST;
    registry.put_manifest("app", "latest", media_type, &image.manifest);
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(&registry.host);
    fs::create_dir(&own).unwrap();
    let options = RegistryOptions {
        certificates: vec![dir.path().to_path_buf()],
        ..RegistryOptions::default()
    };
    let name = format!("{}/app", registry.host);
    assert!(pull(&name, &options).is_err());
    fs::copy(tls.authority(), own.join("ca.crt")).unwrap();
    pull(&name, &options).unwrap();
    // Half a key pair is told, not ignored.
    fs::copy(tls.authority(), own.join("client.cert")).unwrap();
    let error = pull(&name, &options).unwrap_err();
    assert!(error.to_string().contains("client.key"), "{error}");
}

#[test]
fn certificate_of_ours_is_shown_to_the_registry_that_asks_for_it() {
    let Some(tls) = Tls::make() else { return };
    let Some(registry) = Registry::start(Extra::MutualTls(&tls)) else {
        return;
    };
    let image = RealImage::new(b"x");
    registry.fill("app", &[&image.layer, &image.config]);
    registry.put_manifest("app", "latest", crate::support::MANIFEST, &image.manifest);
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(&registry.host);
    fs::create_dir(&own).unwrap();
    let options = RegistryOptions {
        certificates: vec![dir.path().to_path_buf()],
        ..RegistryOptions::default()
    };
    let name = format!("{}/app", registry.host);
    fs::copy(tls.authority(), own.join("ca.crt")).unwrap();
    let error = pull(&name, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    for file in ["client.cert", "client.key"] {
        fs::copy(tls.file(file), own.join(file)).unwrap();
    }
    pull(&name, &options).unwrap();
}
