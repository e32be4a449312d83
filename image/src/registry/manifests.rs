//! Manifests and indexes: fetched with a bound, checked, and followed to what they list.

use std::collections::HashSet;

use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_spec::image::ImageIndex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};

use super::connection::Connection;
use super::error::RegistryError;
use super::options::PlatformChoice;
use super::retry::{Failure, with_retries};
use crate::content::ContentStore;
use crate::digest::Digest;
use crate::document::{Descriptor, Document, MAX_DEPTH, MAX_DOCUMENT};
use crate::error::ImageError;
use crate::platform::Platform;
use crate::reference::Reference;

/// What we understand. Docker's first format is not among it.
const MEDIA_TYPES: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];
/// How many documents one image may consist of, all platforms and levels together.
const MAX_DOCUMENTS: usize = 4096;

/// A document as it came, and what is in it.
pub(super) struct Fetched {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    document: Document,
}

/// An image without its blobs.
pub(super) struct Tree {
    /// The index or manifest that the name means, then what it leads to.
    pub(super) documents: Vec<Fetched>,
    /// The manifests among them.
    pub(super) manifests: Vec<Digest>,
    /// Their configs and layers, each blob once.
    pub(super) configs: Vec<Descriptor>,
    pub(super) layers: Vec<Descriptor>,
}

impl Tree {
    /// The digests of everything.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        let documents = self.documents.iter().map(|document| &document.descriptor);
        documents
            .chain(&self.configs)
            .chain(&self.layers)
            .map(|descriptor| descriptor.digest)
    }
}

/// What is asked for, and what is known about it.
struct Wanted {
    /// A tag or a digest.
    name: String,
    digest: Option<Digest>,
    media_type: Option<String>,
    size: Option<u64>,
}

impl Wanted {
    fn of_descriptor(descriptor: Descriptor) -> Self {
        Self {
            name: descriptor.digest.to_string(),
            digest: Some(descriptor.digest),
            media_type: Some(descriptor.media_type).filter(|text| !text.is_empty()),
            size: Some(descriptor.size),
        }
    }
}

/// Fetches what the reference means and the manifests of the chosen platforms. `known` is what the
/// name meant the last time.
pub(super) async fn fetch_tree(
    connection: &Connection,
    reference: &Reference,
    content: &ContentStore,
    choice: &PlatformChoice,
    known: Option<&Descriptor>,
) -> Result<Tree, ImageError> {
    let top = top(connection, reference, content, known).await?;
    let mut tree = Tree {
        documents: Vec::new(),
        manifests: Vec::new(),
        configs: Vec::new(),
        layers: Vec::new(),
    };
    let mut seen = HashSet::new();
    let mut todo = vec![(top, 0)];
    while let Some((wanted, depth)) = todo.pop() {
        let fetched = fetch(connection, content, &wanted).await?;
        match &fetched.document {
            Document::Index(_) if depth >= MAX_DEPTH => {
                return Err(invalid(&fetched, "indexes are nested too deeply"));
            }
            Document::Index(index) => {
                let chosen = choose(index, choice, &reference.familiar())?;
                let new = chosen.into_iter().rev().filter(|d| seen.insert(d.digest));
                todo.extend(new.map(|entry| (Wanted::of_descriptor(entry), depth + 1)));
            }
            Document::Manifest(manifest) => {
                tree.manifests.push(fetched.descriptor.digest);
                let config = Descriptor::try_from(manifest.config())?;
                if seen.insert(config.digest) {
                    tree.configs.push(config);
                }
                for layer in manifest.layers() {
                    let layer = Descriptor::try_from(layer)?;
                    if seen.insert(layer.digest) {
                        tree.layers.push(layer);
                    }
                }
            }
        }
        if tree.documents.len() + todo.len() >= MAX_DOCUMENTS {
            return Err(invalid(&fetched, "the image has too many manifests"));
        }
        tree.documents.push(fetched);
    }
    Ok(tree)
}

/// What the name of the reference means. A tag that is known here is asked for by `HEAD` only: most
/// tags still mean what they meant.
async fn top(
    connection: &Connection,
    reference: &Reference,
    content: &ContentStore,
    known: Option<&Descriptor>,
) -> Result<Wanted, ImageError> {
    let digest = match (reference.digest(), known) {
        (Some(digest), _) => Some(*digest),
        (None, Some(known)) if content.has(&known.digest) => {
            let tag = reference.tag().unwrap_or_default();
            let answer = with_retries(async || head(connection, tag).await).await?;
            answer.filter(|digest| *digest == known.digest)
        }
        _ => None,
    };
    let known = known.filter(|known| digest == Some(known.digest));
    Ok(Wanted {
        name: digest.map_or_else(
            || reference.tag().unwrap_or_default().to_owned(),
            |digest| digest.to_string(),
        ),
        digest,
        media_type: known.map(|known| known.media_type.clone()),
        size: known.map(|known| known.size),
    })
}

/// The bytes of what the reference means in the registry.
pub(super) async fn fetch_document(
    connection: &Connection,
    reference: &Reference,
) -> Result<Vec<u8>, ImageError> {
    let digest = reference.digest().copied();
    let wanted = Wanted {
        name: digest.map_or_else(
            || reference.tag().unwrap_or_default().to_owned(),
            |digest| digest.to_string(),
        ),
        digest,
        media_type: None,
        size: None,
    };
    let (bytes, announced) = with_retries(async || download(connection, &wanted).await).await?;
    Document::parse(&bytes, announced.as_deref())?;
    Ok(bytes)
}

/// The digest of what a tag means, where the registry says it.
pub(super) async fn head(connection: &Connection, tag: &str) -> Result<Option<Digest>, Failure> {
    let path = connection.path(&format!("manifests/{tag}"));
    let response = connection
        .ask(Method::HEAD, &path, |request| {
            request.header(ACCEPT, MEDIA_TYPES.join(", "))
        })
        .await?;
    match response.status() {
        status if status.is_success() => Ok(promised_digest(response.headers())),
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN) => {
            let missing = || connection.answer("it has no manifest".to_owned());
            Err(connection.refusal(status, response.headers(), missing))
        }
        // Some do not know the method; and `GET` says more about an absent image.
        _ => Ok(None),
    }
}

fn invalid(fetched: &Fetched, reason: &str) -> ImageError {
    ImageError::InvalidDocument {
        document: "index",
        digest: fetched.descriptor.digest,
        reason: reason.to_owned(),
    }
}

/// A document that is here already is not asked for again.
async fn fetch(
    connection: &Connection,
    content: &ContentStore,
    wanted: &Wanted,
) -> Result<Fetched, ImageError> {
    let (bytes, announced) = match wanted.digest {
        Some(digest) if content.has(&digest) => (content.read(&digest, MAX_DOCUMENT)?, None),
        _ => with_retries(async || download(connection, wanted).await).await?,
    };
    let failed = |source| connection.fetch_failed(format!("manifest `{}`", wanted.name), source);
    let actual = bytes.len() as u64;
    if let Some(expected) = wanted.size
        && expected != actual
    {
        return Err(failed(ImageError::SizeMismatch { expected, actual }));
    }
    // Both the descriptor and the registry must agree with the document.
    let said = wanted.media_type.as_deref().or(announced.as_deref());
    let document = Document::parse(&bytes, said).map_err(failed)?;
    if announced.is_some() && announced.as_deref() != said {
        Document::parse(&bytes, announced.as_deref()).map_err(failed)?;
    }
    let descriptor = Descriptor {
        media_type: said.map_or_else(|| own_media_type(&document), str::to_owned),
        digest: Digest::of(&bytes),
        size: actual,
    };
    Ok(Fetched {
        descriptor,
        bytes,
        document,
    })
}

async fn download(
    connection: &Connection,
    wanted: &Wanted,
) -> Result<(Vec<u8>, Option<String>), Failure> {
    let path = connection.path(&format!("manifests/{}", wanted.name));
    let missing = || RegistryError::NotFound {
        image: connection.image().to_owned(),
        registry: connection.registry().to_owned(),
    };
    let response = connection
        .get(&path, &MEDIA_TYPES.join(", "), missing)
        .await?;
    let announced = announced_media_type(response.headers());
    let promised = wanted
        .digest
        .or_else(|| promised_digest(response.headers()));
    let bytes = connection.read_bounded(response, MAX_DOCUMENT).await?;
    let actual = Digest::of(&bytes);
    match promised {
        Some(expected) if expected != actual => {
            let source = ImageError::DigestMismatch { expected, actual };
            let what = format!("manifest `{}`", wanted.name);
            Err(connection.fetch_failed(what, source).into())
        }
        _ => Ok((bytes, announced)),
    }
}

/// The media type in the header, where it says more than that this is JSON.
fn announced_media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let text = text.split(';').next().unwrap_or_default().trim();
    text.starts_with("application/vnd.")
        .then(|| text.to_owned())
}

/// The digest of the manifest that a tag means, where the registry says it in our algorithm.
fn promised_digest(headers: &HeaderMap) -> Option<Digest> {
    let text = headers.get("Docker-Content-Digest")?.to_str().ok()?;
    Digest::parse(text).ok()
}

fn own_media_type(document: &Document) -> String {
    let (own, default) = match document {
        Document::Index(index) => (index.media_type(), OCI_IMAGE_INDEX_MEDIA_TYPE),
        Document::Manifest(manifest) => (manifest.media_type(), OCI_IMAGE_MEDIA_TYPE),
    };
    own.as_ref()
        .map_or_else(|| default.to_owned(), ToString::to_string)
}

/// The entries of an index that are wanted.
fn choose(
    index: &ImageIndex,
    choice: &PlatformChoice,
    name: &str,
) -> Result<Vec<Descriptor>, ImageError> {
    let entries = index.manifests();
    let wanted = match choice {
        PlatformChoice::All => return entries.iter().map(Descriptor::try_from).collect(),
        PlatformChoice::Only(platform) => vec![platform.clone()],
        PlatformChoice::Default => vec![Platform::host(), Platform::wasi()],
    };
    let platform =
        |entry: &oci_spec::image::Descriptor| entry.platform().as_ref().map(Platform::from);
    let serving = |wanted: &Platform| {
        let serves = |entry: &&oci_spec::image::Descriptor| {
            platform(entry).is_some_and(|platform| platform.serves(wanted))
        };
        // A variant that nobody asked for may need a newer processor.
        let plain = entries
            .iter()
            .filter(serves)
            .find(|entry| platform(entry).is_some_and(|platform| platform.variant().is_none()));
        plain.or_else(|| entries.iter().find(serves))
    };
    let chosen = wanted
        .iter()
        .find_map(serving)
        // An entry without a platform serves all (image-spec v1.1.1 `image-index.md`).
        .or_else(|| entries.iter().find(|entry| entry.platform().is_none()));
    let Some(chosen) = chosen else {
        return Err(ImageError::NoPlatform {
            name: name.to_owned(),
            wanted: wanted.first().map(ToString::to_string).unwrap_or_default(),
            present: entries
                .iter()
                .filter_map(platform)
                .filter(|platform| !platform.is_unknown())
                .map(|platform| platform.to_string())
                .collect(),
        });
    };
    Ok(vec![Descriptor::try_from(chosen)?])
}
