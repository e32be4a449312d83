//! Pulling an image: what the rest of the crate and its callers see of the registry client.

use std::collections::BTreeMap;

use super::blobs::Transfer;
use super::connection::{Access, Connection};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::manifests::{self, Tree};
use super::options::{PlatformChoice, RegistryOptions};
use crate::content::ContentStore;
use crate::digest::{DiffId, Digest};
use crate::document::{Descriptor, Document, MAX_DOCUMENT, read_config, tar_layers};
use crate::error::{ErrorKind, ImageError};
use crate::layers::LayerStore;
use crate::lease::Lease;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;

/// What a pull brought. All of it is in the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the reference means: an index or a manifest.
    pub top: Descriptor,
    /// The manifests that were chosen: one, or all of an index.
    pub manifests: Vec<Digest>,
}

/// Pulls an image into `content`, blocking. What is there is not fetched again; manifests are
/// stored after all that they list.
///
/// The image has no name yet and its layers are not unpacked: [`Store::pull`] does all three.
///
/// # Errors
/// [`ImageError::Registry`] when the registry has no such image, cannot be reached, denies access,
/// or sends something else than it promised; [`ImageError::NoPlatform`]; or when the store fails.
pub fn pull(
    content: &ContentStore,
    reference: &Reference,
    choice: &PlatformChoice,
    options: &RegistryOptions,
    progress: &dyn Progress,
) -> Result<Pulled, ImageError> {
    let wish = Wish {
        reference,
        choice,
        options,
        known: None,
    };
    run(content, None, None, &wish, progress)
}

impl Store {
    /// Pulls an image: downloads what is missing, unpacks its layers meanwhile, and gives it its
    /// name. Of a name that means the same as before, nothing is asked but that.
    ///
    /// # Errors
    /// As [`pull`], and when a layer cannot be unpacked. Then the name means what it meant, and
    /// nothing is left but beginnings of blobs that a later pull takes up.
    pub fn pull(
        &self,
        reference: &Reference,
        choice: &PlatformChoice,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<Pulled, ImageError> {
        let lease = self.lease()?;
        let known = self.names.get(reference)?.map(|record| record.descriptor);
        let wish = Wish {
            reference,
            choice,
            options,
            known,
        };
        let result = run(
            &self.content,
            self.layer_store(),
            Some(&lease),
            &wish,
            progress,
        );
        let recorded = result.and_then(|pulled| {
            self.record_pulled(reference, &pulled.top)?;
            let name = reference.familiar();
            self.record_event("pull", &name, Some(&name));
            Ok(pulled)
        });
        // What a bad line kept from being complete is gone on with by the next pull. Everything
        // else that came before a failure belongs to nobody.
        if let Err(failure) = &recorded
            && failure.kind() != ErrorKind::Unavailable
            && let Err(error) = self.discard_leased(lease)
        {
            // The smaller trouble, and `image prune` finds the same.
            tracing::warn!(%error, "cannot remove what a failed pull left");
        }
        recorded
    }
}

/// What is to be pulled.
struct Wish<'a> {
    reference: &'a Reference,
    choice: &'a PlatformChoice,
    options: &'a RegistryOptions,
    /// What the name means here.
    known: Option<Descriptor>,
}

fn run(
    content: &ContentStore,
    layers: Option<&LayerStore>,
    lease: Option<&Lease>,
    wish: &Wish<'_>,
    progress: &dyn Progress,
) -> Result<Pulled, ImageError> {
    let runtime = runtime(wish.reference.registry())?;
    let (connections, tree) = runtime.block_on(find(content, wish))?;
    if let Some(lease) = lease {
        lease.add(tree.digests())?;
    }
    std::thread::scope(|scope| {
        let transfer = Transfer::new(scope, &connections, content, layers, progress);
        runtime.block_on(fetch(&transfer, lease, &tree))
    })?;
    // Backwards: an index is stored after the manifests that it lists.
    for document in tree.documents.iter().rev() {
        content.put(&document.bytes)?;
    }
    let top = tree.documents.into_iter().next();
    Ok(Pulled {
        top: top
            .map(|top| top.descriptor)
            .ok_or_else(|| ImageError::NotFound(wish.reference.familiar()))?,
        manifests: tree.manifests,
    })
}

/// Fetches the document that a reference means in its registry, and nothing else.
///
/// # Errors
/// As [`pull`].
pub fn fetch_manifest(
    reference: &Reference,
    options: &RegistryOptions,
) -> Result<Vec<u8>, ImageError> {
    let endpoint = Endpoint::origin(reference, options);
    let connection = Connection::open(reference, endpoint, Access::Pull, options)?;
    runtime(reference.registry())?.block_on(manifests::fetch_document(&connection, reference))
}

/// A runtime of one thread: the network is waited for, not computed.
pub(super) fn runtime(registry: &str) -> Result<tokio::runtime::Runtime, RegistryError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RegistryError::Prepare {
            registry: registry.to_owned(),
            source: source.into(),
        })
}

/// Fetches the manifests from the first place that has the image. Gives the places that are left
/// for its blobs.
async fn find(
    content: &ContentStore,
    wish: &Wish<'_>,
) -> Result<(Vec<Connection>, Tree), ImageError> {
    let (reference, options) = (wish.reference, wish.options);
    let mut endpoints = Endpoint::all(reference, options)?.into_iter().peekable();
    loop {
        let Some(endpoint) = endpoints.next() else {
            return Err(ImageError::NotFound(reference.familiar()));
        };
        let open = |endpoint| Connection::open(reference, endpoint, Access::Pull, options);
        let is_last = endpoints.peek().is_none();
        let found = match open(endpoint) {
            Ok(connection) => {
                let known = wish.known.as_ref();
                manifests::fetch_tree(&connection, reference, content, wish.choice, known)
                    .await
                    .map(|tree| (connection, tree))
            }
            Err(error) => Err(error),
        };
        match found {
            Ok((connection, tree)) => {
                let mut connections = vec![connection];
                for endpoint in endpoints {
                    connections.push(open(endpoint)?);
                }
                return Ok((connections, tree));
            }
            Err(error) if is_last => return Err(error),
            Err(error) => tracing::debug!(%error, "a mirror does not have the image"),
        }
    }
}

async fn fetch(
    transfer: &Transfer<'_, '_>,
    lease: Option<&Lease>,
    tree: &Tree,
) -> Result<(), ImageError> {
    // The configs say what the layers are.
    transfer.fetch_all(&tree.configs, &BTreeMap::new()).await?;
    let mut diff_ids = BTreeMap::new();
    if transfer.layers.is_some() {
        for document in &tree.documents {
            diff_ids.extend(layers_of(transfer.content, &document.bytes)?);
        }
    }
    if let Some(lease) = lease {
        lease.add(diff_ids.values().map(|diff_id| diff_id.0))?;
    }
    transfer.fetch_all(&tree.layers, &diff_ids).await
}

/// The layers that this machine can use: by blob, with what they unpack to.
fn layers_of(content: &ContentStore, bytes: &[u8]) -> Result<Vec<(Digest, DiffId)>, ImageError> {
    debug_assert!(bytes.len() as u64 <= MAX_DOCUMENT);
    let Document::Manifest(manifest) = Document::parse(bytes, None)? else {
        return Ok(Vec::new());
    };
    let config = read_config(content, &manifest)?;
    let platform = config.platform();
    let is_ours = [Platform::host(), Platform::wasi()]
        .iter()
        .any(|ours| platform.serves(ours));
    // What says nothing is used as if it were ours.
    if !is_ours && !platform.is_unknown() {
        return Ok(Vec::new());
    }
    let layers = tar_layers(&Digest::of(bytes), &manifest, &config)?;
    Ok(layers
        .into_iter()
        .map(|layer| (layer.blob, layer.diff_id))
        .collect())
}
