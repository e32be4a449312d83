//! What refers to an image: signatures, lists of its parts, attestations (distribution-spec v1.1.1
//! "Listing Referrers"). A registry without that question keeps the answer in an index under a tag
//! that is made of the digest, and whoever pushes a referrer keeps it there.

use std::collections::BTreeMap;

use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog::next_page;
use super::connection::{Access, Connection};
use super::endpoint::Endpoint;
use super::manifests;
use super::options::RegistryOptions;
use super::pull::runtime;
use super::retry::{Failure, with_retries};
use crate::digest::Digest;
use crate::document::{Descriptor, MAX_DOCUMENT};
use crate::error::ImageError;
use crate::reference::Reference;

/// How many pages of referrers are read at most.
const MAX_PAGES: usize = 100;

/// Something that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What its author says about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index of referrers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrers {
    schema_version: u32,
    #[serde(default = "index_type")]
    media_type: String,
    manifests: Vec<Referrer>,
}

fn index_type() -> String {
    OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned()
}

/// What refers to the image that `reference` means, of one type or of all.
///
/// # Errors
/// [`ImageError::Registry`]; an image without referrers gives an empty list.
pub fn referrers(
    reference: &Reference,
    artifact_type: Option<&str>,
    options: &RegistryOptions,
) -> Result<Vec<Referrer>, ImageError> {
    let endpoint = Endpoint::origin(reference, options);
    let connection = Connection::open(reference, endpoint, Access::Pull, options)?;
    runtime(reference.registry())?.block_on(async {
        let subject = match reference.digest() {
            Some(digest) => *digest,
            None => Digest::of(&manifests::fetch_document(&connection, reference).await?),
        };
        let mut found = match ask(&connection, &subject, artifact_type).await? {
            Some(found) => found,
            None => tagged(&connection, &subject).await?.manifests,
        };
        // A registry need not filter, and a tag does not.
        found.retain(|referrer| {
            artifact_type.is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
        });
        Ok(found)
    })
}

/// Asks the registry; `None` when it does not know the question.
async fn ask(
    connection: &Connection,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Referrer>>, ImageError> {
    let mut path = connection.path(&format!("referrers/{subject}"));
    if let Some(wanted) = artifact_type {
        let mut url = connection.url("")?;
        url.query_pairs_mut().append_pair("artifactType", wanted);
        path = format!("{path}?{}", url.query().unwrap_or_default());
    }
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let answer = with_retries(async || page(connection, &path).await).await?;
        let Some((referrers, next)) = answer else {
            return Ok(None);
        };
        found.extend(referrers);
        match next {
            Some(next) => path = next,
            None => break,
        }
    }
    Ok(Some(found))
}

async fn page(
    connection: &Connection,
    path: &str,
) -> Result<Option<(Vec<Referrer>, Option<String>)>, Failure> {
    let response = connection.ask(Method::GET, path, |request| request).await?;
    let status = response.status();
    // Registries of before the question have other answers than 404, too.
    let is_unknown = matches!(status.as_u16(), 400 | 404 | 405);
    if is_unknown || !says_index(response.headers()) && status.is_success() {
        return Ok(None);
    }
    if !status.is_success() {
        let missing = || connection.answer("it has no referrers".to_owned());
        return Err(connection.refusal(status, response.headers(), missing));
    }
    let next = next_page(connection, response.headers())?;
    let bytes = connection.read_bounded(response, MAX_DOCUMENT).await?;
    Ok(Some((parse(connection, &bytes)?.manifests, next)))
}

/// The specification makes the type the sign that the question was understood.
fn says_index(headers: &HeaderMap) -> bool {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|text| text.to_str().ok());
    text.is_some_and(|text| text.split(';').next().unwrap_or_default().trim() == index_type())
}

fn parse(connection: &Connection, bytes: &[u8]) -> Result<Referrers, ImageError> {
    let index = serde_json::from_slice(bytes);
    Ok(index.map_err(|_| connection.answer("it sent no index of referrers".to_owned()))?)
}

/// The tag that stands for the question: `sha256-<hex>`.
fn tag_of(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The index under the tag; an empty one when there is none.
async fn tagged(connection: &Connection, subject: &Digest) -> Result<Referrers, ImageError> {
    let path = connection.path(&format!("manifests/{}", tag_of(subject)));
    let bytes = with_retries(async || {
        let accept = index_type();
        let response = connection
            .ask(Method::GET, &path, |request| {
                request.header(ACCEPT, &accept)
            })
            .await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            let missing = || connection.answer("it has no referrers".to_owned());
            return Err(connection.refusal(status, response.headers(), missing));
        }
        connection
            .read_bounded(response, MAX_DOCUMENT)
            .await
            .map(Some)
    })
    .await?;
    match bytes {
        Some(bytes) => parse(connection, &bytes),
        None => Ok(Referrers {
            schema_version: 2,
            media_type: index_type(),
            manifests: Vec::new(),
        }),
    }
}

/// What a manifest that was pushed refers to, and as what; `None` for one that refers to nothing.
pub(super) fn referrer_of(document: &Descriptor, bytes: &[u8]) -> Option<(Digest, Referrer)> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let subject = Digest::parse(value.pointer("/subject/digest")?.as_str()?).ok()?;
    let artifact_type = value
        .get("artifactType")
        .and_then(text)
        .filter(|text| !text.is_empty())
        .or_else(|| value.pointer("/config/mediaType").and_then(text));
    let annotations = value.get("annotations").and_then(Value::as_object);
    let pairs = annotations.into_iter().flatten();
    let referrer = Referrer {
        descriptor: document.clone(),
        artifact_type,
        annotations: pairs
            .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
            .collect(),
    };
    Some((subject, referrer))
}

/// Puts a referrer into the index under the tag, where it is not yet.
pub(super) async fn keep_tagged(
    connection: &Connection,
    subject: &Digest,
    referrer: Referrer,
) -> Result<(), ImageError> {
    let mut index = tagged(connection, subject).await?;
    let digest = referrer.descriptor.digest;
    let is_known = |known: &Referrer| known.descriptor.digest == digest;
    if index.manifests.iter().any(is_known) {
        return Ok(());
    }
    index.manifests.push(referrer);
    let bytes = serde_json::to_vec(&index).map_err(|error| ImageError::WriteStream {
        what: "an index of referrers",
        source: error.into(),
    })?;
    let path = connection.path(&format!("manifests/{}", tag_of(subject)));
    with_retries(async || {
        let response = connection
            .ask(Method::PUT, &path, |request| {
                request
                    .header(CONTENT_TYPE, index_type())
                    .body(bytes.clone())
            })
            .await?;
        let status: StatusCode = response.status();
        if status.is_success() {
            return Ok(());
        }
        let missing = || connection.answer("it does not know the repository".to_owned());
        Err(connection.refusal(status, response.headers(), missing))
    })
    .await
}
