//! How registries are spoken to, from the settings and the environment.

use std::path::PathBuf;

use anyhow::Context as _;
use image::{AuthConfig, Mirror, Proxies, RegistryOptions};

use crate::settings::{self, Settings};

/// Who asks, in every request.
const USER_AGENT: &str = concat!("ketch/", env!("CARGO_PKG_VERSION"));

/// Where certificates of registries are, one directory a registry.
const CERTIFICATES: [&str; 3] = [
    "/etc/ketch/certs.d",
    "/etc/containers/certs.d",
    "/etc/docker/certs.d",
];

/// Everything that the registry client needs to know.
pub(crate) fn registry_options(settings: &Settings) -> anyhow::Result<RegistryOptions> {
    let inline = settings::variable("DOCKER_AUTH_CONFIG")?;
    let config = credential_path()?;
    let mut certificates: Vec<PathBuf> = CERTIFICATES.iter().map(PathBuf::from).collect();
    if let Some(home) = settings::home()? {
        certificates.insert(0, PathBuf::from(home).join(".config/ketch/certs.d"));
    }
    Ok(RegistryOptions {
        insecure: words(settings.get(&settings::INSECURE)),
        auth: AuthConfig::load(config.as_deref(), inline.as_deref())?,
        certificates,
        mirrors: mirrors(settings.get(&settings::MIRRORS))?,
        proxies: Proxies {
            http: either("http_proxy", "HTTP_PROXY")?,
            https: either("https_proxy", "HTTPS_PROXY")?,
            no_proxy: either("no_proxy", "NO_PROXY")?,
        },
        user_agent: USER_AGENT,
        ..RegistryOptions::default()
    })
}

/// Docker's `config.json`, which holds credentials.
pub(crate) fn credential_path() -> anyhow::Result<Option<PathBuf>> {
    Ok(match settings::variable("DOCKER_CONFIG")? {
        Some(dir) => Some(PathBuf::from(dir).join("config.json")),
        None => settings::home()?.map(|home| PathBuf::from(home).join(".docker/config.json")),
    })
}

fn either(lower: &str, upper: &str) -> anyhow::Result<Option<String>> {
    Ok(match settings::variable(lower)? {
        Some(value) => Some(value),
        None => settings::variable(upper)?,
    })
}

fn words(list: &str) -> Vec<String> {
    let words = list.split(',').map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `registry=location`, in the order in which they are asked.
fn mirrors(list: &str) -> anyhow::Result<Vec<Mirror>> {
    words(list)
        .iter()
        .map(|word| {
            let (registry, location) = word.split_once('=').with_context(|| {
                format!("the mirror `{word}` is not of the form `registry=location`")
            })?;
            Ok(Mirror {
                registry: registry.to_owned(),
                location: location.to_owned(),
            })
        })
        .collect()
}
