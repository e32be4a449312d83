//! Credentials for registries, from Docker's `config.json` and its credential helpers.
//!
//! Who is asked, in this order: the helper that `credHelpers` names for the registry, the entry in
//! `auths`, the helper in `credsStore`. Nothing here reads the environment: the caller says where
//! the file is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::helper;
use crate::reference::Reference;
use crate::registry::RegistryError;

/// The largest configuration that is read.
const MAX_CONFIG: u64 = 1024 * 1024;
/// What Docker calls its own registry in configurations and towards helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A password or token: never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the request that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How to prove to a registry who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// Not at all.
    Anonymous,
    /// By name and password, to the registry or to its token service.
    Password {
        /// The user's name.
        username: String,
        /// The password or access token.
        password: Secret,
    },
    /// By a refresh token, to the registry's token service (`OAuth2`).
    IdentityToken(Secret),
    /// By a token that the registry itself takes.
    RegistryToken(Secret),
}

/// What `config.json` says about credentials.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    auths: BTreeMap<String, AuthEntry>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct ConfigFile {
    auths: Option<BTreeMap<String, AuthEntry>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct AuthEntry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<Secret>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<Secret>,
}

impl AuthConfig {
    /// Reads the configuration in the file at `path` and in `inline_json` (the value of
    /// `DOCKER_AUTH_CONFIG`), whose entries go before those of the file. A file that does not
    /// exist is an empty one.
    ///
    /// # Errors
    /// When the file cannot be read or one of the two is not a configuration.
    pub fn load(path: Option<&Path>, inline_json: Option<&str>) -> Result<Self, RegistryError> {
        let mut config = Self::default();
        if let Some(path) = path {
            config.add(parse_config(&read_config(path)?, &path.to_string_lossy())?);
        }
        if let Some(json) = inline_json {
            config.add(parse_config(json.as_bytes(), "DOCKER_AUTH_CONFIG")?);
        }
        Ok(config)
    }

    fn add(&mut self, file: ConfigFile) {
        let entries = file.auths.into_iter().flatten();
        self.auths
            .extend(entries.map(|(key, entry)| (normalize_key(&key), entry)));
        let helpers = file.helpers.into_iter().flatten();
        self.helpers
            .extend(helpers.map(|(key, name)| (normalize_key(&key), name)));
        self.store = file.store.filter(|s| !s.is_empty()).or(self.store.take());
    }

    /// The credentials for the registry of `reference`. An entry for a part of the registry
    /// (`ghcr.io/user`) goes before one for all of it.
    ///
    /// # Errors
    /// When the entry is damaged or the helper fails.
    pub fn credentials(&self, reference: &Reference) -> Result<Credentials, RegistryError> {
        let name = reference.name();
        let registry = reference.registry();
        if let Some(helper) = self.helpers.get(registry) {
            return helper::get(helper, server_of(registry));
        }
        let prefixes = std::iter::successors(Some(name.as_str()), |name| {
            name.rsplit_once('/').map(|(parent, _)| parent)
        });
        for key in prefixes {
            if let Some(entry) = self.auths.get(key)
                && let Some(credentials) = entry.credentials(key)?
            {
                return Ok(credentials);
            }
        }
        match &self.store {
            Some(helper) => helper::get(helper, server_of(registry)),
            None => Ok(Credentials::Anonymous),
        }
    }
}

impl AuthEntry {
    fn credentials(&self, key: &str) -> Result<Option<Credentials>, RegistryError> {
        let present = |secret: &Option<Secret>| secret.clone().filter(|s| !s.expose().is_empty());
        if let Some(token) = present(&self.identity_token) {
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if let Some(token) = present(&self.registry_token) {
            return Ok(Some(Credentials::RegistryToken(token)));
        }
        if let Some(auth) = present(&self.auth) {
            return decode_auth(&auth)
                .map(Some)
                .ok_or_else(|| RegistryError::InvalidCredentials {
                    origin: key.to_owned(),
                    reason: "`auth` is not the Base64 form of `user:password`".to_owned(),
                });
        }
        match (&self.username, present(&self.password)) {
            (Some(username), Some(password)) => Ok(Some(Credentials::Password {
                username: username.clone(),
                password,
            })),
            _ => Ok(None),
        }
    }
}

pub(super) fn read_config(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let failed = |source| RegistryError::ReadCredentials {
        path: path.to_path_buf(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(b"{}".to_vec()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// The parser's own message is not passed on: it may quote the text, and so a password.
fn parse_config(bytes: &[u8], origin: &str) -> Result<ConfigFile, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::InvalidCredentials {
        origin: origin.to_owned(),
        reason: format!(
            "it is no configuration (line {}, column {})",
            error.line(),
            error.column()
        ),
    })
}

/// `https://ghcr.io/v2/` and `ghcr.io` are one key.
pub(super) fn normalize_key(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let (host, path) = match key.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (key, None),
    };
    let host = match host.to_ascii_lowercase() {
        hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => "docker.io".to_owned(),
        host => host,
    };
    path.map_or_else(|| host.clone(), |path| format!("{host}/{path}"))
}

pub(super) fn server_of(registry: &str) -> &str {
    match registry {
        "docker.io" => DOCKER_HUB_KEY,
        other => other,
    }
}

fn decode_auth(auth: &Secret) -> Option<Credentials> {
    let bytes = STANDARD.decode(auth.expose().trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credentials::Password {
        username: username.to_owned(),
        // Old versions of Docker padded with these.
        password: Secret::new(password.trim_end_matches('\0').to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password {
            username: username.to_owned(),
            password: Secret::new(password.to_owned()),
        }
    }

    #[test]
    fn secret_debug_shows_nothing() {
        let credentials = password("user", "hunter2");
        let text = format!("{credentials:?}");
        assert!(
            text.contains("[redacted]") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn credentials_every_spelling_of_a_key_is_found() {
        // `user:pass:word`
        let json = r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNzOndvcmQ="},
                "https://GHCR.io/v2/": {"username": "gh", "password": "x"},
                "quay.io": {"identitytoken": "id", "auth": "PHRva2VuPjo="},
                "quay.io/org": {"username": "org", "password": "o"},
                "localhost:5000": {"registrytoken": "t"},
                "empty.io": {},
                "bad.io": {"auth": "!!!"}
            },
            "HttpHeaders": {"x": "y"}
        }"#;
        let config = AuthConfig::load(None, Some(json)).unwrap();
        let of = |text: &str| config.credentials(&reference(text));
        assert_eq!(of("alpine").unwrap(), password("user", "pass:word"));
        assert_eq!(of("ghcr.io/a/b").unwrap(), password("gh", "x"));
        let token = Credentials::IdentityToken(Secret::new("id".to_owned()));
        assert_eq!(of("quay.io/other/x").unwrap(), token);
        assert_eq!(of("quay.io/org/x").unwrap(), password("org", "o"));
        let token = Credentials::RegistryToken(Secret::new("t".to_owned()));
        assert_eq!(of("localhost:5000/x").unwrap(), token);
        assert_eq!(of("empty.io/x").unwrap(), Credentials::Anonymous);
        assert_eq!(of("none.io/x").unwrap(), Credentials::Anonymous);
        assert!(of("bad.io/x").unwrap_err().to_string().contains("bad.io"));
    }

    #[test]
    fn load_missing_file_is_empty_and_a_bad_one_keeps_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        AuthConfig::load(Some(&path), None).unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(br#"{"auths": "hunter2"}"#).unwrap();
        let error = AuthConfig::load(Some(&path), None).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }

    #[test]
    fn helper_bad_name_is_never_run() {
        for name in ["", "../evil", "a b", "x/y"] {
            let config =
                format!(r#"{{"credsStore": "unused", "credHelpers": {{"r.io": "{name}"}}}}"#);
            let config = AuthConfig::load(None, Some(&config)).unwrap();
            let error = config.credentials(&reference("r.io/x")).unwrap_err();
            assert!(matches!(error, RegistryError::CredentialHelper { .. }));
        }
    }
}
