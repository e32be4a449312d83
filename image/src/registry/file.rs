//! A single file by its URL, for a build: no registry, but the same client.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::error::RegistryError;
use super::http::{IDLE_TIMEOUT, install_crypto, with_proxies};
use super::options::RegistryOptions;
use super::pull::runtime;
use crate::error::ImageError;

/// A host that does not answer the first packet by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a URL without a last name is called.
const UNNAMED: &str = "__unnamed__";

/// A modification time in whole seconds tells versions apart only when nothing can have changed in the
/// same second after it was told: the margin of RFC 9110, 8.8.2.2.
const SETTLED: i64 = 60;

/// A file that was fetched. It has no name on disk.
#[derive(Debug)]
pub struct RemoteFile {
    /// Its bytes.
    pub file: File,
    /// The last name of its URL.
    pub name: String,
    /// What tells this version of it from others, if the server says.
    pub validator: Option<Validator>,
    /// When it was changed, in seconds, if the server says.
    pub modified: Option<i64>,
}

/// What a server tells versions of a file apart by (RFC 9110, 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validator {
    /// `ETag`.
    Etag(String),
    /// `Last-Modified`.
    Modified(String),
}

/// The answer to a question for a file that is known.
#[derive(Debug)]
pub enum Asked {
    /// It is what it was.
    Same,
    /// It is another one, or the server does not say.
    Fetched(RemoteFile),
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
    let request = Request {
        url,
        known: None,
        dir,
        max,
    };
    match request.send(options)? {
        Asked::Fetched(file) => Ok(file),
        Asked::Same => Err(RegistryError::Prepare {
            registry: request.host().to_owned(),
            source: "it says that the file has not changed, and nobody asked".into(),
        }
        .into()),
    }
}

/// As [`fetch_url`], unless the file is still the one that `known` tells.
///
/// # Errors
/// As [`fetch_url`].
pub fn fetch_changed(
    url: &str,
    known: &Validator,
    dir: &Path,
    max: u64,
    options: &RegistryOptions,
) -> Result<Asked, ImageError> {
    let known = Some(known);
    let request = Request {
        url,
        known,
        dir,
        max,
    };
    request.send(options)
}

/// The last name of a URL's path, without its escapes.
#[must_use]
pub fn name_of_url(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let decoded = decode(path);
    let name = decoded.trim_end_matches('/').rsplit('/').next();
    match name {
        None | Some("" | "." | "..") => UNNAMED.to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Replaces `%41`; what is no text then stays as it is.
fn decode(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let decoded = digits.and_then(|digits| hex::decode(digits).ok());
        match decoded.as_deref() {
            Some([byte]) => {
                bytes.push(*byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    let is_text = |text: &String| !text.contains('\0');
    let text = String::from_utf8(bytes).ok().filter(is_text);
    text.unwrap_or_else(|| path.to_owned())
}

/// A question for a file.
struct Request<'a> {
    url: &'a str,
    known: Option<&'a Validator>,
    dir: &'a Path,
    max: u64,
}

impl Request<'_> {
    fn host(&self) -> &str {
        self.url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .unwrap_or(self.url)
    }

    fn send(&self, options: &RegistryOptions) -> Result<Asked, ImageError> {
        let (host, max) = (self.host(), self.max);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Prepare {
            registry: host.to_owned(),
            source,
        };
        let write_failed = |source| ImageError::Write {
            path: self.dir.to_path_buf(),
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
        let mut request = client.get(self.url);
        match self.known {
            Some(Validator::Etag(tag)) => request = request.header(IF_NONE_MATCH, tag),
            Some(Validator::Modified(time)) => request = request.header(IF_MODIFIED_SINCE, time),
            None => {}
        }
        let mut file = tempfile::tempfile_in(self.dir).map_err(write_failed)?;
        runtime(host)?.block_on(async {
            let sent = request
                .send()
                .await
                .and_then(reqwest::Response::error_for_status);
            let mut response = sent.map_err(|error| failed(error.without_url().into()))?;
            if response.status() == StatusCode::NOT_MODIFIED {
                return Ok(Asked::Same);
            }
            let header = |name: HeaderName| {
                response
                    .headers()
                    .get(name)?
                    .to_str()
                    .ok()
                    .map(str::to_owned)
            };
            let modified = header(LAST_MODIFIED);
            let seconds = modified.as_deref().and_then(seconds_of);
            let settled = modified.filter(|_| {
                let now = OffsetDateTime::now_utc().unix_timestamp();
                seconds.is_some_and(|seconds| now - seconds >= SETTLED)
            });
            let validator = match header(ETAG) {
                Some(tag) => Some(Validator::Etag(tag)),
                None => settled.map(Validator::Modified),
            };
            let mut left = max;
            while let Some(chunk) = response
                .chunk()
                .await
                .map_err(|error| failed(error.without_url().into()))?
            {
                left = left
                    .checked_sub(chunk.len() as u64)
                    .ok_or_else(|| failed(format!("the file has more than {max} bytes").into()))?;
                file.write_all(&chunk).map_err(write_failed)?;
            }
            Ok::<Asked, ImageError>(Asked::Fetched(RemoteFile {
                file,
                name: name_of_url(self.url),
                validator,
                modified: seconds,
            }))
        })
    }
}

/// A time as servers write it (RFC 9110, 5.6.7).
fn seconds_of(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(time.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_last_of_the_path() {
        for (url, name) in [
            ("http://h/a/b.txt?c=d/e#f", "b.txt"),
            ("http://h/a%20b/c%C3%A4.txt", "c\u{e4}.txt"),
            ("http://h/%", "%"),
            ("http://h/%4", "%4"),
            ("http://h/%ff", "%ff"),
            ("http://h/a%2Fb", "b"),
            ("http://h/a/", "a"),
            ("http://h/", UNNAMED),
            ("http://h", UNNAMED),
            ("http://h/..", UNNAMED),
            ("http://h/%2e%2e", UNNAMED),
        ] {
            assert_eq!(name_of_url(url), name, "{url}");
        }
        assert_eq!(seconds_of("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60));
        assert_eq!(seconds_of("yesterday"), None);
    }
}
