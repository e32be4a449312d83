//! Credentials in a request's header.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::{AuthConfig, Reference, RegistryOptions};
use serde_json::{Value, json};

/// Clients write with and without padding.
const EITHER: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// `X-Registry-Auth`: JSON in base64. The alphabet for addresses is the right one; the other one is
/// taken too.
fn decode(header: &str) -> Option<Value> {
    let url = GeneralPurpose::new(&base64::alphabet::URL_SAFE, EITHER);
    let plain = GeneralPurpose::new(&base64::alphabet::STANDARD, EITHER);
    let bytes = url.decode(header).or_else(|_| plain.decode(header)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The options for one request. As with Docker, a header that cannot be read counts as absent.
pub(crate) fn options(
    base: &RegistryOptions,
    header: Option<&str>,
    reference: &Reference,
) -> RegistryOptions {
    let mut options = base.clone();
    if let Some(value) = header.and_then(decode)
        && let Some(auth) = config(&value, reference.registry())
    {
        options.auth = auth;
    }
    options
}

/// The options with the credentials of `X-Registry-Config`: documents by host.
pub(crate) fn of_hosts(base: &RegistryOptions, header: Option<&str>) -> RegistryOptions {
    let mut options = base.clone();
    let Some(Value::Object(hosts)) = header.and_then(decode) else {
        return options;
    };
    let entries = hosts.iter().filter_map(|(host, value)| {
        let bare = host.split("://").last().unwrap_or(host);
        let bare = bare.split('/').next().unwrap_or(bare);
        let host = match bare {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        Some((host.to_owned(), entry(value)?))
    });
    let entries: serde_json::Map<String, Value> = entries.collect();
    let file = json!({ "auths": entries }).to_string();
    if let Ok(auth) = AuthConfig::load(None, Some(&file)) {
        options.auth = auth;
    }
    options
}

/// The credentials of a document, for a registry; `None` when it has none.
pub(crate) fn config(value: &Value, registry: &str) -> Option<AuthConfig> {
    let file = json!({ "auths": { registry: entry(value)? } });
    AuthConfig::load(None, Some(&file.to_string())).ok()
}

/// The entry of a configuration file; `None` for a document without credentials.
fn entry(value: &Value) -> Option<Value> {
    let mut entry = serde_json::Map::new();
    for key in [
        "username",
        "password",
        "identitytoken",
        "registrytoken",
        "auth",
    ] {
        let text = value.get(key).and_then(Value::as_str);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            entry.insert(key.to_owned(), text.into());
        }
    }
    (!entry.is_empty()).then_some(Value::Object(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Credentials;

    #[test]
    fn header_is_read_in_both_alphabets_and_a_bad_one_is_absent() {
        let reference = Reference::parse("localhost:5000/a").unwrap();
        let base = RegistryOptions::default();
        let json = r#"{"username":"ann","password":"p?>~","serveraddress":"localhost:5000"}"#;
        for alphabet in [base64::alphabet::URL_SAFE, base64::alphabet::STANDARD] {
            let text = GeneralPurpose::new(&alphabet, EITHER).encode(json);
            let options = options(&base, Some(&text), &reference);
            let found = options.auth.credentials(&reference).unwrap();
            assert!(matches!(found, Credentials::Password { username, .. } if username == "ann"));
        }
        let options = options(&base, Some("%%%"), &reference);
        let found = options.auth.credentials(&reference).unwrap();
        assert!(matches!(found, Credentials::Anonymous));
    }
}
