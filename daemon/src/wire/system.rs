//! Headers of every response, errors, `/version`.

use http::header::{HeaderMap, HeaderName, HeaderValue, SERVER};
use serde::Serialize;

use crate::version::NEWEST;

/// An error.
#[derive(Debug, Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) message: &'a str,
}

/// The headers of every response.
pub(crate) fn head(headers: &mut HeaderMap, version: &str) {
    let mut set = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(HeaderName::from_static("api-version"), &NEWEST.to_string());
    set(HeaderName::from_static("ostype"), "linux");
    set(HeaderName::from_static("docker-experimental"), "false");
    set(SERVER, &format!("Docker/{version} (linux)"));
}
