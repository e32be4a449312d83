//! Keeping credentials: in the helper that the configuration names for the registry, or in the
//! configuration itself. What else is in the file stays as it is.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sys::durable::{self, Durability};

use super::config::{Credentials, Secret, normalize_key, read_config, server_of};
use super::helper::{self, TOKEN_USER};
use crate::registry::RegistryError;

/// Where credentials were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// By a helper.
    Helper(String),
    /// In the file, in the clear.
    File(PathBuf),
}

/// Docker's `config.json`, to be changed.
#[derive(Debug)]
pub struct CredentialFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl CredentialFile {
    /// Reads the file at `path`; one that does not exist is empty.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON object.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let content = serde_json::from_slice(&read_config(path)?);
        Ok(Self {
            path: path.to_path_buf(),
            // The parser's message may quote a password.
            content: content.map_err(|_| RegistryError::InvalidCredentials {
                origin: path.display().to_string(),
                reason: "it is no JSON object".to_owned(),
            })?,
        })
    }

    /// The helper that keeps the credentials of `registry`.
    fn helper(&self, registry: &str) -> Option<String> {
        let named = self.content.get("credHelpers").and_then(Value::as_object);
        let own = named.and_then(|all| {
            let mut all = all.iter();
            all.find(|(key, _)| normalize_key(key) == registry)
                .and_then(|(_, name)| name.as_str())
        });
        own.or_else(|| self.content.get("credsStore").and_then(Value::as_str))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    }

    /// Keeps the credentials of `registry`, in place of others.
    ///
    /// # Errors
    /// When the helper fails or the file cannot be written.
    pub fn keep(
        mut self,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<Kept, RegistryError> {
        let (username, secret) = match credentials {
            Credentials::Password { username, password } => (username.as_str(), password),
            Credentials::IdentityToken(token) => (TOKEN_USER, token),
            Credentials::RegistryToken(_) | Credentials::Anonymous => {
                return Err(RegistryError::InvalidCredentials {
                    origin: registry.to_owned(),
                    reason: "there is no name and secret to keep".to_owned(),
                });
            }
        };
        let server = server_of(registry);
        if let Some(name) = self.helper(registry) {
            helper::store(&name, server, username, secret)?;
            return Ok(Kept::Helper(name));
        }
        self.remove_entries(registry);
        let auths = self
            .content
            .entry("auths")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(server.to_owned(), entry(username, secret));
        }
        self.write()?;
        Ok(Kept::File(self.path))
    }

    /// Forgets the credentials of `registry`. Says whether there were any in the file.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn forget(mut self, registry: &str) -> Result<bool, RegistryError> {
        if let Some(name) = self.helper(registry) {
            helper::erase(&name, server_of(registry))?;
        }
        let found = self.remove_entries(registry);
        if found {
            self.write()?;
        }
        Ok(found)
    }

    /// Removes every spelling of the registry.
    fn remove_entries(&mut self, registry: &str) -> bool {
        let Some(auths) = self.content.get_mut("auths").and_then(Value::as_object_mut) else {
            return false;
        };
        let before = auths.len();
        auths.retain(|key, _| normalize_key(key) != registry);
        auths.len() < before
    }

    fn write(&self) -> Result<(), RegistryError> {
        let failed = |source: io::Error| RegistryError::WriteCredentials {
            path: self.path.clone(),
            source,
        };
        if let Some(dir) = self.path.parent() {
            durable::make_private_dir(dir).map_err(failed)?;
        }
        let mut bytes =
            serde_json::to_vec_pretty(&self.content).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        // A file that only its owner can read stays one, and a new one is one.
        durable::replace_file(&self.path, &bytes, Durability::Synced).map_err(failed)?;
        durable::set_mode(&self.path, 0o600).map_err(failed)
    }
}

fn entry(username: &str, secret: &Secret) -> Value {
    if username == TOKEN_USER {
        return json!({ "identitytoken": secret.expose() });
    }
    let pair = format!("{username}:{}", secret.expose());
    json!({ "auth": STANDARD.encode(pair) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthConfig;
    use crate::reference::Reference;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn password(text: &str) -> Credentials {
        Credentials::Password {
            username: "me".to_owned(),
            password: Secret::new(text.to_owned()),
        }
    }

    #[test]
    fn keep_then_forget_leaves_the_rest_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let open = || CredentialFile::open(&path).unwrap();
        assert_eq!(
            open().keep("docker.io", &password("a:b")).unwrap(),
            Kept::File(path.clone())
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let token = Credentials::IdentityToken(Secret::new("t".to_owned()));
        open().keep("r.lan:5000", &token).unwrap();
        open().keep("docker.io", &password("new")).unwrap();
        let config = AuthConfig::load(Some(&path), None).unwrap();
        let of = |name: &str| {
            config
                .credentials(&Reference::parse(name).unwrap())
                .unwrap()
        };
        assert_eq!(of("alpine"), password("new"));
        assert_eq!(of("r.lan:5000/x"), token);
        assert!(open().forget("docker.io").unwrap());
        assert!(!open().forget("docker.io").unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("r.lan:5000") && !text.contains("index.docker.io"));
    }

    #[test]
    fn open_of_no_object_does_not_repeat_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        durable::replace_file(&path, b"\"hunter2\"", Durability::Atomic).unwrap();
        let error = CredentialFile::open(&path).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
