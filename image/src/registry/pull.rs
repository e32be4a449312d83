//! Pulling an image: the one entry of the registry client.

use std::path::PathBuf;

use super::blobs;
use super::connection::Connection;
use super::error::RegistryError;
use super::manifests;
use crate::auth::AuthConfig;
use crate::content::ContentStore;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Registries (`host:port`) or hosts that may be spoken to without TLS. Those of this machine
    /// always may.
    pub insecure: Vec<String>,
    /// Where credentials come from.
    pub auth: AuthConfig,
    /// Files of PEM certificates whose authorities are trusted beside those of the system.
    pub extra_ca: Vec<PathBuf>,
    /// How we introduce ourselves.
    pub user_agent: &'static str,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            auth: AuthConfig::default(),
            extra_ca: Vec::new(),
            user_agent: concat!("ketch/", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Which images of an index are pulled. An image that is not in an index is pulled as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlatformChoice {
    /// The one for this machine, else the one for WASI.
    #[default]
    Default,
    /// The one for this platform.
    Only(Platform),
    /// All.
    All,
}

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
/// The image has no name yet: the caller records `top` under one.
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RegistryError::Prepare {
            registry: reference.registry().to_owned(),
            source: source.into(),
        })?;
    runtime.block_on(pull_all(content, reference, choice, options, progress))
}

async fn pull_all(
    content: &ContentStore,
    reference: &Reference,
    choice: &PlatformChoice,
    options: &RegistryOptions,
    progress: &dyn Progress,
) -> Result<Pulled, ImageError> {
    let connection = Connection::open(reference, options).await?;
    let tree = manifests::fetch_tree(&connection, content, choice).await?;
    blobs::fetch_all(&connection, content, &tree.blobs, progress).await?;
    // Backwards: an index is stored after the manifests that it lists.
    for document in tree.documents.iter().rev() {
        content.put(&document.bytes)?;
    }
    let top = tree.documents.into_iter().next();
    Ok(Pulled {
        top: top
            .map(|top| top.descriptor)
            .ok_or_else(|| connection.answer("it has no manifest".to_owned()))?,
        manifests: tree.manifests,
    })
}
