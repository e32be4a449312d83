//! Pushing an image: blobs that are absent, then manifests, then the name. The bytes are those that
//! came: a pull and a push leave the digests as they were.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::connection::{Access, Connection};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::options::RegistryOptions;
use super::pull::runtime;
use super::referrers::{keep_tagged, referrer_of};
use super::retry::{Failure, with_retries};
use super::upload::Upload;
use crate::digest::Digest;
use crate::document::{Descriptor, Document, MAX_DEPTH, MAX_DOCUMENT};
use crate::error::ImageError;
use crate::graph::{Reachable, candidates, choose};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Store, Target};

/// How many blobs are sent at a time.
const PARALLEL: usize = 3;
/// How many repositories are asked for a blob that they may have.
const MAX_MOUNTS: usize = 3;

/// What a push brought there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What the name means in the registry now.
    pub top: Descriptor,
    /// Platforms of the index that are not here, so that one image was pushed instead of the index.
    pub alone: bool,
}

/// Documents to send, children first, and the blobs that they list.
#[derive(Default)]
struct Load {
    documents: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
    /// Whether something of it is not in the content store.
    incomplete: bool,
}

impl Store {
    /// Pushes what `text` names (a name or an identifier) to `target`. Of an index all images are
    /// pushed, or the one for `platform`, or the one that is here.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::NoPlatform`], or [`ImageError::Registry`].
    pub fn push(
        &self,
        text: &str,
        target: &Reference,
        platform: Option<&Platform>,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<Pushed, ImageError> {
        let top = match self.target(text)? {
            Target::Name(record) => record.descriptor,
            Target::Id(record) => record.manifest,
        };
        let mut load = Load::default();
        let mut pushed = Pushed { top, alone: false };
        if platform.is_none() {
            load.add(self, &pushed.top, 0)?;
        }
        if platform.is_some() || load.incomplete {
            let found = candidates(&self.content, &pushed.top)?;
            let chosen = choose(text, found, platform)?;
            pushed.alone = chosen.descriptor != pushed.top;
            pushed.top = chosen.descriptor;
            load = Load::default();
            load.add(self, &pushed.top, 0)?;
        }
        self.push_load(&load, target, options, progress)?;
        Ok(pushed)
    }

    /// Pushes a document that no name leads to, with what it lists.
    pub(crate) fn push_document(
        &self,
        top: &Descriptor,
        target: &Reference,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let mut load = Load::default();
        load.add(self, top, 0)?;
        self.push_load(&load, target, options, progress)
    }

    fn push_load(
        &self,
        load: &Load,
        target: &Reference,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let from = self.neighbours(target, load)?;
        let access = Access::Push { from: from.clone() };
        let endpoint = Endpoint::origin(target, options);
        let connection = Connection::open(target, endpoint, access, options)?;
        runtime(target.registry())?.block_on(self.send(&connection, target, load, &from, progress))
    }

    /// Repositories of the same registry that names here say have some of the blobs.
    fn neighbours(&self, target: &Reference, load: &Load) -> Result<Vec<String>, ImageError> {
        let mut found = Vec::new();
        for record in self.names.list()? {
            let name = &record.name;
            let is_neighbour = name.registry() == target.registry()
                && name.repository() != target.repository()
                && !found.iter().any(|known| known == name.repository());
            if !is_neighbour || found.len() == MAX_MOUNTS {
                continue;
            }
            let mut reach = Reachable::default();
            reach.add(&self.content, &record.descriptor);
            if load
                .blobs
                .iter()
                .any(|blob| reach.blobs.contains(&blob.digest))
            {
                found.push(name.repository().to_owned());
            }
        }
        Ok(found)
    }

    async fn send(
        &self,
        connection: &Connection,
        target: &Reference,
        load: &Load,
        from: &[String],
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let upload = |blob| async move {
            let upload = Upload {
                connection,
                content: &self.content,
                progress,
                blob,
                mount_from: from.to_vec(),
            };
            upload.run().await
        };
        futures_util::stream::iter(&load.blobs)
            .map(upload)
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        let last = load.documents.len().saturating_sub(1);
        for (at, document) in load.documents.iter().enumerate() {
            let name = match (target.tag(), target.digest()) {
                (Some(tag), _) if at == last => tag.to_owned(),
                (None, Some(digest)) if at == last && *digest != document.digest => {
                    return Err(connection
                        .answer("the image does not have the digest of its name".to_owned())
                        .into());
                }
                _ => document.digest.to_string(),
            };
            let knows_referrers =
                with_retries(async || self.put_manifest(connection, &name, document).await).await?;
            let bytes = self.content.read(&document.digest, MAX_DOCUMENT)?;
            if !knows_referrers && let Some((subject, referrer)) = referrer_of(document, &bytes) {
                keep_tagged(connection, &subject, referrer).await?;
            }
        }
        Ok(())
    }

    /// Sends a manifest. Says whether the registry itself keeps what it refers to
    /// (distribution-spec v1.1.1 "Pushing Manifests with Subject").
    async fn put_manifest(
        &self,
        connection: &Connection,
        name: &str,
        document: &Descriptor,
    ) -> Result<bool, Failure> {
        let bytes = self.content.read(&document.digest, MAX_DOCUMENT)?;
        let path = connection.path(&format!("manifests/{name}"));
        let response = connection
            .ask(Method::PUT, &path, |request| {
                request
                    .header(CONTENT_TYPE, &document.media_type)
                    .body(bytes.clone())
            })
            .await?;
        let failed = |source: ImageError| RegistryError::Send {
            what: format!("manifest `{name}`"),
            registry: connection.registry().to_owned(),
            source: Box::new(source),
        };
        let status = response.status();
        if status.is_success() {
            let keeps = response.headers().contains_key("OCI-Subject");
            let said = response.headers().get("Docker-Content-Digest");
            let said = said.and_then(|digest| Digest::parse(digest.to_str().ok()?).ok());
            return match said {
                Some(actual) if actual != document.digest => {
                    let expected = document.digest;
                    Err(failed(ImageError::DigestMismatch { expected, actual }).into())
                }
                _ => Ok(keeps),
            };
        }
        let headers = response.headers().clone();
        if status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 404 | 429) {
            let text = connection.read_bounded(response, 64 * 1024).await;
            let reason = super::error::words(&text.unwrap_or_default(), status.as_u16());
            return Err(failed(connection.answer(reason).into()).into());
        }
        let missing = || connection.answer("it does not know the repository".to_owned());
        Err(connection.refusal(status, &headers, missing))
    }
}

impl Load {
    fn add(&mut self, store: &Store, top: &Descriptor, depth: u32) -> Result<(), ImageError> {
        if !self.seen.insert(top.digest) {
            return Ok(());
        }
        if !store.content.has(&top.digest) {
            self.incomplete = true;
            return Ok(());
        }
        match Document::read(&store.content, top)? {
            Document::Index(index) => {
                for entry in index.manifests() {
                    if depth < MAX_DEPTH {
                        self.add(store, &Descriptor::try_from(entry)?, depth + 1)?;
                    }
                }
            }
            Document::Manifest(manifest) => {
                for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
                    let blob = Descriptor::try_from(blob)?;
                    self.incomplete |= !store.content.has(&blob.digest);
                    if self.seen.insert(blob.digest) {
                        self.blobs.push(blob);
                    }
                }
            }
        }
        self.documents.push(top.clone());
        Ok(())
    }
}
