//! What a registry has: the tags of a repository, repositories by a word, and whether credentials
//! are right.

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::connection::{Access, Connection};
use super::endpoint::{Endpoint, Transport};
use super::error::RegistryError;
use super::options::RegistryOptions;
use super::pull::runtime;
use super::retry::{Failure, with_retries};
use crate::auth::Credentials;
use crate::document::MAX_DOCUMENT;
use crate::error::ImageError;
use crate::reference::Reference;

/// How many pages of a list are read at most.
const MAX_PAGES: usize = 100;
/// How many entries are asked for at a time: what registries allow.
const PAGE: usize = 1000;
/// Where Docker's own registry is searched.
const DOCKER_INDEX: &str = "index.docker.io";

/// A repository that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether the registry's operator vouches for it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

#[derive(Deserialize)]
struct SearchAnswer {
    results: Vec<SearchResult>,
}

#[derive(Deserialize)]
struct TagList {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

/// The tags of the reference's repository, in the registry's order.
///
/// # Errors
/// [`ImageError::Registry`].
pub fn tags(reference: &Reference, options: &RegistryOptions) -> Result<Vec<String>, ImageError> {
    let endpoint = Endpoint::origin(reference, options);
    let connection = Connection::open(reference, endpoint, Access::Pull, options)?;
    let path = connection.path(&format!("tags/list?n={PAGE}"));
    runtime(reference.registry())?.block_on(async {
        pages(&connection, &path, |bytes| {
            let list: TagList = serde_json::from_slice(bytes).ok()?;
            Some(list.tags.unwrap_or_default())
        })
        .await
    })
}

/// Repositories whose name or description has `term`, at most `limit`.
///
/// # Errors
/// [`ImageError::Registry`]; not every registry can be searched.
pub fn search(
    registry: &str,
    term: &str,
    limit: usize,
    options: &RegistryOptions,
) -> Result<Vec<SearchResult>, ImageError> {
    let host = match registry {
        "docker.io" => DOCKER_INDEX,
        other => other,
    };
    let endpoint = Endpoint {
        registry: host.to_owned(),
        repository: String::new(),
        transport: Transport::of(host, &options.insecure),
    };
    let credentials = Credentials::Anonymous;
    let image = format!("search {term}");
    let connection =
        Connection::with_credentials(image, endpoint, Access::Registry, options, credentials)?;
    runtime(registry)?.block_on(async {
        if let Some(found) =
            with_retries(async || ask_index(&connection, term, limit).await).await?
        {
            return Ok(found);
        }
        let path = format!("_catalog?n={PAGE}");
        let all = pages(&connection, &path, |bytes| {
            let catalog: Catalog = serde_json::from_slice(bytes).ok()?;
            Some(catalog.repositories.unwrap_or_default())
        })
        .await?;
        let found = all.into_iter().filter(|name| name.contains(term));
        let result = |name| SearchResult {
            name,
            description: String::new(),
            stars: 0,
            official: false,
        };
        Ok(found.take(limit).map(result).collect())
    })
}

/// Docker's first API still answers searches; `None` where there is none.
async fn ask_index(
    connection: &Connection,
    term: &str,
    limit: usize,
) -> Result<Option<Vec<SearchResult>>, Failure> {
    // The scheme is settled by a request to the other API.
    connection.ask(Method::HEAD, "", |request| request).await?;
    let mut url = connection.url("")?;
    url.set_path("/v1/search");
    url.query_pairs_mut()
        .append_pair("q", term)
        .append_pair("n", &limit.to_string());
    let response = connection.send(connection.http.get(url)).await?;
    if !response.status().is_success() {
        return Ok(None);
    }
    let bytes = connection.read_bounded(response, MAX_DOCUMENT).await?;
    let answer: Option<SearchAnswer> = serde_json::from_slice(&bytes).ok();
    Ok(answer.map(|answer| answer.results.into_iter().take(limit).collect()))
}

/// Reads a list that comes in pages (distribution-spec v1.1.1 "Listing tags").
async fn pages(
    connection: &Connection,
    path: &str,
    read: impl Fn(&[u8]) -> Option<Vec<String>>,
) -> Result<Vec<String>, ImageError> {
    let mut all = Vec::new();
    let mut next = Some(path.to_owned());
    for _ in 0..MAX_PAGES {
        let Some(path) = next else {
            break;
        };
        let (bytes, link) = with_retries(async || page(connection, &path).await).await?;
        all.extend(read(&bytes).ok_or_else(|| connection.answer("it is no list".to_owned()))?);
        next = link;
    }
    Ok(all)
}

async fn page(connection: &Connection, path: &str) -> Result<(Vec<u8>, Option<String>), Failure> {
    let missing = || RegistryError::NotFound {
        image: connection.image().to_owned(),
        registry: connection.registry().to_owned(),
    };
    let response = connection.get(path, "application/json", missing).await?;
    let next = next_page(connection, response.headers())?;
    Ok((connection.read_bounded(response, MAX_DOCUMENT).await?, next))
}

/// The path of `Link: <…>; rel="next"`. Another host's is not followed.
pub(super) fn next_page(
    connection: &Connection,
    headers: &HeaderMap,
) -> Result<Option<String>, ImageError> {
    let base = connection.url("")?;
    let link = headers.get(LINK).and_then(|value| value.to_str().ok());
    Ok(link.and_then(|link| {
        let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
        let url: Url = base.join(target).ok()?;
        let is_next = rest.contains("next") && url.origin() == base.origin();
        let path = url.path().strip_prefix("/v2/")?.to_owned();
        is_next.then(|| match url.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        })
    }))
}

/// Asks the registry whether the credentials are right. Gives what to keep: the token that the
/// registry gave in exchange for a password, or the credentials themselves.
///
/// # Errors
/// [`RegistryError::Denied`] when they are not.
pub fn check_credentials(
    registry: &str,
    credentials: &Credentials,
    options: &RegistryOptions,
) -> Result<Credentials, ImageError> {
    let endpoint = Endpoint {
        registry: registry.to_owned(),
        repository: String::new(),
        transport: Transport::of(registry, &options.insecure),
    };
    let connection = Connection::with_credentials(
        registry.to_owned(),
        endpoint,
        Access::Registry,
        options,
        credentials.clone(),
    )?;
    runtime(registry)?.block_on(with_retries(async || {
        let response = connection.ask(Method::GET, "", |request| request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let missing = || connection.answer("it has no registry API".to_owned());
        Err(connection.refusal(status, response.headers(), missing))
    }))?;
    let token = connection.refresh_token().map(Credentials::IdentityToken);
    Ok(token.unwrap_or_else(|| credentials.clone()))
}
