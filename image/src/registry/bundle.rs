//! Bundles: layers together with somebody's own document, as one artifact in a registry. A builder keeps
//! its cache in one. Images can be read as bundles too: their config is the document.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;

use reqwest::Response;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::connection::{Access, Connection};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::manifests;
use super::options::RegistryOptions;
use super::pull::runtime;
use super::retry::{Failure, with_retries};
use crate::decode::Compression;
use crate::digest::{DiffId, Digest};
use crate::document::{Descriptor, Document, MAX_DOCUMENT};
use crate::error::{ErrorKind, ImageError};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What is sent to a registry.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// What it is.
    pub artifact_type: String,
    /// The document, and its media type.
    pub document: Vec<u8>,
    /// Its media type.
    pub document_type: String,
    /// Layers that are here, which are sent compressed.
    pub layers: Vec<DiffId>,
}

/// A document about an image that is in a registry.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it is, as a media type.
    pub media_type: String,
    /// The document.
    pub document: Vec<u8>,
    /// What is said about it.
    pub annotations: std::collections::BTreeMap<String, String>,
}

impl Store {
    /// Sends a bundle to `target`.
    ///
    /// # Errors
    /// When a layer is not here, or [`ImageError::Registry`].
    pub fn push_bundle(
        &self,
        bundle: &Bundle,
        target: &Reference,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<Descriptor, ImageError> {
        let session = self.begin_build()?;
        let send = || -> Result<Descriptor, ImageError> {
            let mut layers = Vec::new();
            for layer in &bundle.layers {
                layers.push(session.layer(layer, Some(Compression::Zstd))?);
            }
            let config = session.document(&bundle.document_type, &bundle.document)?;
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": bundle.artifact_type,
                "config": config,
                "layers": layers,
            });
            let top = session.document(MANIFEST, manifest.to_string().as_bytes())?;
            self.push_document(&top, target, options, progress)?;
            Ok(top)
        };
        let sent = send();
        // Only the registry was to have it.
        self.discard_leased(session.into_lease())?;
        sent
    }

    /// Sends a statement about the image `subject`, which is in the repository of `target` already.
    ///
    /// # Errors
    /// [`ImageError::Registry`].
    pub fn push_statement(
        &self,
        statement: &Statement,
        subject: &Descriptor,
        target: &Reference,
        options: &RegistryOptions,
    ) -> Result<Descriptor, ImageError> {
        let session = self.begin_build()?;
        let send = || -> Result<Descriptor, ImageError> {
            let config = session.document(EMPTY, b"{}")?;
            let layer = session.document(&statement.media_type, &statement.document)?;
            let mut layer = json!(layer);
            if let Some(layer) = layer.as_object_mut() {
                layer.insert("annotations".to_owned(), json!(statement.annotations));
            }
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": statement.media_type,
                "config": config,
                "layers": [layer],
                "subject": subject,
                "annotations": statement.annotations,
            });
            let top = session.document(MANIFEST, manifest.to_string().as_bytes())?;
            let target = target.at_digest(top.digest);
            self.push_document(&top, &target, options, &())?;
            Ok(top)
        };
        let sent = send();
        self.discard_leased(session.into_lease())?;
        sent
    }
}

/// A bundle, or an image, in a registry: its document is here, its layers come when they are wanted.
#[derive(Debug)]
pub struct RemoteBundle {
    /// The document.
    pub document: Vec<u8>,
    /// Its media type.
    pub document_type: String,
    /// The layers' blobs, in order.
    pub layers: Vec<Descriptor>,
    reference: Reference,
    options: RegistryOptions,
}

impl RemoteBundle {
    /// Reads the document of what `reference` means, of an index that for `platform`. `None` when the
    /// registry has no such thing.
    ///
    /// # Errors
    /// [`ImageError::Registry`], or when it is malformed.
    pub fn open(
        reference: &Reference,
        platform: &Platform,
        options: &RegistryOptions,
    ) -> Result<Option<Self>, ImageError> {
        let runtime = runtime(reference.registry())?;
        let found = runtime.block_on(Self::read(reference, platform, options));
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }

    async fn read(
        reference: &Reference,
        platform: &Platform,
        options: &RegistryOptions,
    ) -> Result<Option<Self>, ImageError> {
        let connection = connect(reference, options)?;
        let bytes = manifests::fetch_document(&connection, reference).await?;
        let manifest = match Document::parse(&bytes, None)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let chosen = index.manifests().iter().find(|entry| {
                    let own = entry.platform().as_ref().map(Platform::from);
                    own.is_some_and(|own| own.serves(platform))
                });
                let Some(chosen) = chosen else {
                    return Ok(None);
                };
                let reference = reference.at_digest(Digest::try_from(chosen.digest())?);
                let bytes = manifests::fetch_document(&connection, &reference).await?;
                match Document::parse(&bytes, None)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => return Ok(None),
                }
            }
        };
        let config = Descriptor::try_from(manifest.config())?;
        let document = with_retries(async || {
            let response = blob(&connection, &config).await?;
            connection.read_bounded(response, MAX_DOCUMENT).await
        })
        .await?;
        let actual = Digest::of(&document);
        if actual != config.digest {
            let expected = config.digest;
            return Err(ImageError::DigestMismatch { expected, actual });
        }
        Ok(Some(Self {
            document,
            document_type: config.media_type,
            layers: manifest
                .layers()
                .iter()
                .map(Descriptor::try_from)
                .collect::<Result<_, _>>()?,
            reference: reference.clone(),
            options: options.clone(),
        }))
    }

    /// Fetches a layer's blob into a file without a name in `dir`.
    ///
    /// # Errors
    /// [`ImageError::Registry`], or when what comes does not have the blob's digest.
    pub fn layer(&self, layer: &Descriptor, dir: &Path) -> Result<File, ImageError> {
        let runtime = runtime(self.reference.registry())?;
        runtime.block_on(async {
            let connection = connect(&self.reference, &self.options)?;
            with_retries(async || {
                let response = blob(&connection, layer).await?;
                let mut file = tempfile::tempfile_in(dir).map_err(|source| ImageError::Write {
                    path: dir.to_path_buf(),
                    source,
                })?;
                store(&connection, response, layer, &mut file).await?;
                Ok(file)
            })
            .await
        })
    }
}

fn connect(reference: &Reference, options: &RegistryOptions) -> Result<Connection, ImageError> {
    let endpoint = Endpoint::origin(reference, options);
    Connection::open(reference, endpoint, Access::Pull, options)
}

async fn blob(connection: &Connection, blob: &Descriptor) -> Result<Response, Failure> {
    let path = connection.path(&format!("blobs/{}", blob.digest));
    let missing = || -> RegistryError {
        connection.answer(format!("it does not have the blob {}", blob.digest))
    };
    connection.get(&path, "*/*", missing).await
}

/// Writes a body to a file and checks it.
async fn store(
    connection: &Connection,
    mut response: Response,
    blob: &Descriptor,
    file: &mut File,
) -> Result<(), Failure> {
    let failed = |source| ImageError::WriteStream {
        what: "a fetched layer",
        source,
    };
    let (mut hasher, mut left) = (Sha256::new(), blob.size);
    let broken = |error| connection.no_answer(&error);
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        left = left.checked_sub(chunk.len() as u64).ok_or_else(|| {
            connection.answer(format!(
                "the blob {} is larger than it should be",
                blob.digest
            ))
        })?;
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(failed)?;
    }
    let actual = Digest::from_hasher(hasher);
    if actual != blob.digest {
        let expected = blob.digest;
        return Err(ImageError::DigestMismatch { expected, actual }.into());
    }
    file.rewind().map_err(failed)?;
    Ok(())
}
