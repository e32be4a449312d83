//! What can go wrong with images.

use std::io;
use std::path::PathBuf;

use crate::digest::{DiffId, Digest};
use crate::registry::RegistryError;

/// What kind of failure it is: decides exit codes and HTTP statuses, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// It is there, and in a state that forbids the operation.
    Conflict,
    /// What was given is wrong: a name, an option, an archive, a document.
    InvalidInput,
    /// Somebody refused: a registry, the kernel.
    Denied,
    /// A service did not answer; it may later.
    Unavailable,
    /// Ours: the disk, the store, a bug.
    Internal,
}

/// The cause of a failure in another library.
pub type BoxedCause = Box<dyn std::error::Error + Send + Sync>;

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A text that is no `sha256:<64 hex>`.
    #[error("`{0}` is not a digest of the form `sha256:<64 lower-case hexadecimal digits>`")]
    InvalidDigest(String),

    /// A text that is no image reference.
    #[error("`{reference}` is not an image reference: {reason}")]
    InvalidReference {
        /// The text.
        reference: String,
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// A text that is no platform.
    #[error("`{0}` is not a platform of the form `os/architecture[/variant]`")]
    InvalidPlatform(String),

    /// No image has this name or identifier.
    #[error("image `{0}` is not in the local store")]
    NotFound(String),

    /// Several images begin with this identifier.
    #[error("`{prefix}` is the beginning of {count} image identifiers")]
    AmbiguousId {
        /// What was given.
        prefix: String,
        /// How many match.
        count: usize,
    },

    /// The image exists, but not for this platform.
    #[error(
        "image `{name}` is not there for platform {wanted}: it has {}",
        list(present)
    )]
    NoPlatform {
        /// The image.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: Vec<String>,
    },

    /// The image is needed by something else.
    #[error("cannot remove image `{image}`: {reason}")]
    InUse {
        /// The image.
        image: String,
        /// Who needs it.
        reason: String,
        /// Whether force would help.
        force_helps: bool,
    },

    /// A blob is not in the content store.
    #[error("blob `{0}` is not in the content store")]
    BlobMissing(Digest),

    /// The bytes are not those that were promised.
    #[error("the digest of the content is `{actual}`, not `{expected}`")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },

    /// More or fewer bytes than were promised.
    #[error("the content has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// What was promised.
        expected: u64,
        /// What came, or a lower bound of it.
        actual: u64,
    },

    /// A manifest, index or config that cannot be used.
    #[error("the {document} `{digest}` is not usable: {reason}")]
    InvalidDocument {
        /// Manifest, index or config.
        document: &'static str,
        /// Which one.
        digest: Digest,
        /// The rule that it breaks.
        reason: String,
    },

    /// A manifest, index or config that is no JSON of its form.
    #[error("cannot read the {document} `{digest}`")]
    ParseDocument {
        /// Manifest, index or config.
        document: &'static str,
        /// Which one.
        digest: Digest,
        /// The cause.
        source: serde_json::Error,
    },

    /// A layer could not be unpacked. Nothing is left of it.
    #[error("cannot unpack layer `{layer}`")]
    Unpack {
        /// The layer.
        layer: DiffId,
        /// The cause.
        source: BoxedCause,
    },

    /// An entry of a layer breaks a rule.
    #[error("archive entry `{entry}` is refused: {reason}")]
    Entry {
        /// The path in the archive, made printable.
        entry: String,
        /// The rule.
        reason: &'static str,
    },

    /// An entry of a layer could not be written.
    #[error("cannot write archive entry `{entry}`")]
    WriteEntry {
        /// The path in the archive, made printable.
        entry: String,
        /// The cause.
        source: io::Error,
    },

    /// An archive that cannot be read as such.
    #[error("the archive is not usable: {reason}")]
    InvalidArchive {
        /// What is wrong.
        reason: String,
    },

    /// The bytes of an archive or blob could not be read.
    #[error("cannot read {what}")]
    ReadStream {
        /// What was read.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },

    /// The result could not be written.
    #[error("cannot write {what}")]
    WriteStream {
        /// What was written.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },

    /// A file of the store could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A file of the store could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A record of the store that this version cannot understand.
    #[error("the record `{}` is not usable: {reason}", path.display())]
    InvalidRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A lock of the store stayed taken.
    #[error("cannot take the lock `{}`", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A path in an image's root filesystem cannot be used.
    #[error("cannot use `{}` of the image: {reason}", path.display())]
    RootPath {
        /// The path as asked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A path in an image's root filesystem could not be resolved.
    #[error("cannot look up `{}` in the image", path.display())]
    Lookup {
        /// The path as asked for.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A change (`CMD`, `ENV`, …) that cannot be applied to a config.
    #[error("`{change}` cannot be applied to an image config: {reason}")]
    InvalidChange {
        /// The change as given.
        change: String,
        /// The rule that it breaks.
        reason: &'static str,
    },

    /// A registry did not give what was asked for.
    #[error(transparent)]
    Registry(Box<RegistryError>),
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

fn list(present: &[String]) -> String {
    if present.is_empty() {
        return "none".to_owned();
    }
    present.join(", ")
}

impl ImageError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoPlatform { .. } | Self::BlobMissing(_) => {
                ErrorKind::NotFound
            }
            Self::InUse { .. } => ErrorKind::Conflict,
            Self::InvalidDigest(_)
            | Self::InvalidReference { .. }
            | Self::InvalidPlatform(_)
            | Self::AmbiguousId { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::InvalidDocument { .. }
            | Self::ParseDocument { .. }
            | Self::Entry { .. }
            | Self::InvalidArchive { .. }
            | Self::RootPath { .. }
            | Self::InvalidChange { .. } => ErrorKind::InvalidInput,
            Self::Lock { .. } => ErrorKind::Unavailable,
            Self::Registry(error) => error.kind(),
            Self::Lookup { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::Unpack { source, .. } => source
                .downcast_ref::<Self>()
                .map_or(ErrorKind::Internal, Self::kind),
            Self::WriteEntry { .. }
            | Self::ReadStream { .. }
            | Self::WriteStream { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::InvalidRecord { .. }
            | Self::Lookup { .. } => ErrorKind::Internal,
        }
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(name) => Some(format!("fetch it with `ketch pull {name}`")),
            Self::AmbiguousId { .. } => Some("give more digits of the identifier".to_owned()),
            Self::NoPlatform { present, .. } => present
                .first()
                .map(|first| format!("choose one that is there: `--platform {first}`")),
            Self::InUse {
                force_helps: true, ..
            } => Some("remove it nevertheless with `--force`".to_owned()),
            Self::Lock { .. } => {
                Some("another `ketch` is changing images; wait for it or end it".to_owned())
            }
            Self::Unpack { source, .. } => source.downcast_ref::<Self>().and_then(Self::hint),
            Self::Registry(error) => error.hint(),
            Self::WriteEntry { source, .. }
            | Self::Write { source, .. }
            | Self::WriteStream { source, .. }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                Some("free space with `ketch image prune`".to_owned())
            }
            _ => None,
        }
    }
}
