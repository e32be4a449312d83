//! The HTTP client of one registry: its certificates, proxies and time limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, ClientBuilder, Identity, NoProxy, Proxy};

use super::endpoint::{Endpoint, host_of, is_loopback};
use super::error::RegistryError;
use super::options::{Proxies, RegistryOptions};

/// A host that does not answer the first packet by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent: registries fetch from slow storage, but not that slow.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Registries redirect to their storage, once or twice.
const MAX_REDIRECTS: usize = 5;
/// The largest file of certificates that is read: the bundles of systems have 250 KiB.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;

/// Makes the client for `endpoint`.
pub(super) fn client(
    endpoint: &Endpoint,
    options: &RegistryOptions,
) -> Result<reqwest::Client, RegistryError> {
    install_crypto();
    let material = Material::read(&endpoint.registry, options)?;
    let builder = |authorities: Authorities| {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .user_agent(options.user_agent)
            .redirect(Policy::custom(redirect))
            // The environment is the caller's to read.
            .no_proxy();
        let own = material.authorities.clone();
        let mut builder = match authorities {
            Authorities::OwnAndSystem => builder.tls_certs_merge(own),
            Authorities::Own => builder.tls_certs_only(own),
        };
        if let Some(identity) = &material.identity {
            builder = builder.identity(identity.clone());
        }
        match is_loopback(host_of(&endpoint.registry)) {
            true => Ok(builder),
            false => with_proxies(builder, &options.proxies),
        }
    };
    // A machine without any authorities still reaches registries that need none.
    let client = match builder(Authorities::OwnAndSystem)?.build() {
        Err(_) => builder(Authorities::Own)?.build(),
        client => client,
    };
    client.map_err(|source| RegistryError::Prepare {
        registry: endpoint.registry.clone(),
        source: source.into(),
    })
}

/// Whose certificates are trusted.
enum Authorities {
    OwnAndSystem,
    Own,
}

/// reqwest takes the process-wide provider. Another one, installed by the program around us, does
/// as well.
pub(super) fn install_crypto() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("a crypto provider is installed already");
    }
}

pub(super) fn with_proxies(
    mut builder: ClientBuilder,
    proxies: &Proxies,
) -> Result<ClientBuilder, RegistryError> {
    let exceptions = proxies.no_proxy.as_deref().and_then(NoProxy::from_string);
    // An address may hold a password, so it is not repeated.
    let invalid = |_| RegistryError::InvalidProxy;
    let given = |address: &Option<String>| address.clone().filter(|text| !text.is_empty());
    if let Some(address) = given(&proxies.http) {
        let proxy = Proxy::http(address).map_err(invalid)?;
        builder = builder.proxy(proxy.no_proxy(exceptions.clone()));
    }
    if let Some(address) = given(&proxies.https) {
        let proxy = Proxy::https(address).map_err(invalid)?;
        builder = builder.proxy(proxy.no_proxy(exceptions));
    }
    Ok(builder)
}

/// reqwest itself drops `Authorization` when host, port or scheme change.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from_tls = attempt
        .previous()
        .last()
        .is_some_and(|from| from.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("it redirects to an address without TLS");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("it redirects too often");
    }
    attempt.follow()
}

/// Who is trusted, and how we prove who we are.
struct Material {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Material {
    fn read(registry: &str, options: &RegistryOptions) -> Result<Self, RegistryError> {
        let mut material = Self {
            authorities: Vec::new(),
            identity: None,
        };
        for path in &options.extra_ca {
            material.add_authorities(path)?;
        }
        for dir in &options.certificates {
            for path in files(&dir.join(registry))? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => material.add_authorities(&path)?,
                    Some("cert") if material.identity.is_none() => {
                        material.identity = Some(identity(&path)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(material)
    }

    fn add_authorities(&mut self, path: &Path) -> Result<(), RegistryError> {
        let pem = read(path)?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|source| invalid(path, source))?;
        self.authorities.extend(certificates);
        Ok(())
    }
}

/// Our certificate at `path`, with the key beside it.
fn identity(path: &Path) -> Result<Identity, RegistryError> {
    let mut pem = read(path)?;
    pem.push(b'\n');
    pem.extend(read(&path.with_extension("key"))?);
    Identity::from_pem(&pem).map_err(|source| invalid(path, source))
}

/// The files of a directory, sorted; none when it does not exist.
fn files(dir: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let failed = |source: io::Error| invalid(dir, source);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let bytes = match fs::metadata(path).map(|meta| meta.len()) {
        Ok(0..=MAX_CERTIFICATES) => fs::read(path),
        Ok(_) => Err(io::ErrorKind::FileTooLarge.into()),
        Err(error) => Err(error),
    };
    bytes.map_err(|source| invalid(path, source))
}

fn invalid(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Certificates {
        path: path.to_path_buf(),
        source: source.into(),
    }
}
