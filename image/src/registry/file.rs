//! A single file by its URL, for a build: no registry, but the same client.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::redirect::Policy;

use super::error::RegistryError;
use super::http::{IDLE_TIMEOUT, install_crypto, with_proxies};
use super::options::RegistryOptions;
use super::pull::runtime;
use crate::error::ImageError;

/// A host that does not answer the first packet by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A file that was fetched. It has no name on disk.
#[derive(Debug)]
pub struct RemoteFile {
    /// Its bytes.
    pub file: File,
    /// The last name of its URL; empty when it has none.
    pub name: String,
}

/// Fetches the file of an `http` or `https` URL, of at most `max` bytes, into a file without a name in
/// `dir`.
///
/// # Errors
/// When the server refuses, the file is too large, or cannot be written.
pub fn fetch_url(
    url: &str,
    dir: &Path,
    max: u64,
    options: &RegistryOptions,
) -> Result<RemoteFile, ImageError> {
    let host = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or(url);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Prepare {
        registry: host.to_owned(),
        source,
    };
    install_crypto();
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .user_agent(options.user_agent)
        .redirect(Policy::limited(10))
        .no_proxy();
    let client = with_proxies(builder, &options.proxies)?
        .build()
        .map_err(|error| failed(error.into()))?;
    let mut file = tempfile::tempfile_in(dir).map_err(|source| ImageError::Write {
        path: dir.to_path_buf(),
        source,
    })?;
    runtime(host)?.block_on(async {
        let sent = client
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        let mut response = sent.map_err(|error| failed(error.without_url().into()))?;
        let mut left = max;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| failed(error.without_url().into()))?
        {
            left = left
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| failed(format!("the file has more than {max} bytes").into()))?;
            file.write_all(&chunk).map_err(|source| ImageError::Write {
                path: dir.to_path_buf(),
                source,
            })?;
        }
        Ok::<(), ImageError>(())
    })?;
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split("://").nth(1).unwrap_or(path);
    let name = match path.rsplit_once('/') {
        Some((_, name)) => name.to_owned(),
        None => String::new(),
    };
    Ok(RemoteFile { file, name })
}
