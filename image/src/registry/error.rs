//! What can go wrong between us and a registry.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use oci_distribution::errors::OciEnvelope;

use crate::digest::Digest;
use crate::error::{BoxedCause, ErrorKind, ImageError};

/// How much of a registry's own words is passed on.
const MAX_QUOTE: usize = 200;

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry knows no such image.
    #[error("image `{image}` not found in registry `{registry}`")]
    NotFound {
        /// The image.
        image: String,
        /// The registry.
        registry: String,
    },

    /// The registry has the manifest but not what it lists.
    #[error("blob `{digest}` not found in registry `{registry}`")]
    BlobNotFound {
        /// The blob.
        digest: Digest,
        /// The registry.
        registry: String,
    },

    /// Nobody answered there, or not in TLS.
    #[error("cannot reach registry `{registry}`")]
    Unreachable {
        /// The registry.
        registry: String,
        /// What may help.
        hint: Option<&'static str>,
        /// The cause.
        source: BoxedCause,
    },

    /// The registry is there and has no time.
    #[error("registry `{registry}` cannot answer now: HTTP status {status}")]
    Unavailable {
        /// The registry.
        registry: String,
        /// What it said.
        status: u16,
    },

    /// The registry, or its token service, refused.
    #[error("registry `{registry}` denies access to `{image}`")]
    Denied {
        /// The image.
        image: String,
        /// The registry.
        registry: String,
    },

    /// The registry broke its protocol.
    #[error("cannot use the answer of registry `{registry}`: {reason}")]
    Answer {
        /// The registry.
        registry: String,
        /// The rule that the answer breaks.
        reason: String,
    },

    /// The registry wants credentials to be sent in the clear.
    #[error("registry `{registry}` asks for a token from `{realm}`, which is not protected by TLS")]
    InsecureRealm {
        /// The registry.
        registry: String,
        /// Its token service.
        realm: String,
    },

    /// The bytes stopped coming too early.
    #[error("registry `{registry}` sent {actual} of the {expected} bytes of `{digest}`")]
    Truncated {
        /// The registry.
        registry: String,
        /// What was fetched.
        digest: Digest,
        /// Its size.
        expected: u64,
        /// What came.
        actual: u64,
    },

    /// What came was not what was asked for, or could not be stored.
    #[error("cannot fetch {what} from registry `{registry}`")]
    Fetch {
        /// A blob or a manifest.
        what: String,
        /// The registry.
        registry: String,
        /// The cause.
        source: Box<ImageError>,
    },

    /// The file with credentials could not be read.
    #[error("cannot read credentials from `{}`", path.display())]
    ReadCredentials {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// Credentials that are not in their form.
    #[error("cannot use the credentials in `{origin}`: {reason}")]
    InvalidCredentials {
        /// A file, a variable, or an entry.
        origin: String,
        /// What is wrong.
        reason: String,
    },

    /// A credential helper gave no answer.
    #[error("cannot get credentials from `docker-credential-{helper}`")]
    CredentialHelper {
        /// The helper's name.
        helper: String,
        /// The cause.
        source: io::Error,
    },

    /// A certificate of an authority could not be read.
    #[error("cannot read the certificates in `{}`", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: BoxedCause,
    },

    /// A mirror whose address is none.
    #[error("`{mirror}` is not a mirror of the form `[http://|https://]host[:port][/prefix]`")]
    InvalidMirror {
        /// What was given.
        mirror: String,
    },

    /// A proxy whose address is none. It may hold a password and is not repeated.
    #[error("the address of a proxy is not of the form `[http://][user:password@]host:port`")]
    InvalidProxy,

    /// A blob or a manifest could not be sent.
    #[error("cannot send {what} to registry `{registry}`")]
    Send {
        /// A blob or a manifest.
        what: String,
        /// The registry.
        registry: String,
        /// The cause.
        source: Box<ImageError>,
    },

    /// The file with credentials could not be written.
    #[error("cannot write credentials to `{}`", path.display())]
    WriteCredentials {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// No HTTP client could be made.
    #[error("cannot prepare a connection to registry `{registry}`")]
    Prepare {
        /// The registry.
        registry: String,
        /// The cause.
        source: BoxedCause,
    },
}

impl RegistryError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::BlobNotFound { .. } => ErrorKind::NotFound,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Truncated { .. } => {
                ErrorKind::Unavailable
            }
            Self::Denied { .. } | Self::InsecureRealm { .. } => ErrorKind::Denied,
            Self::Fetch { source, .. } | Self::Send { source, .. } => source.kind(),
            Self::InvalidMirror { .. }
            | Self::InvalidProxy
            | Self::Answer { .. }
            | Self::InvalidCredentials { .. }
            | Self::Certificates { .. } => ErrorKind::InvalidInput,
            Self::ReadCredentials { .. }
            | Self::WriteCredentials { .. }
            | Self::CredentialHelper { .. }
            | Self::Prepare { .. } => ErrorKind::Internal,
        }
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { .. } => Some(
                "check the name; if the image is private, prove who you are with `ketch login`"
                    .to_owned(),
            ),
            Self::Unreachable { hint, .. } => hint.map(str::to_owned),
            Self::Fetch { source, .. } | Self::Send { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// What a message may repeat of the registry's own words.
pub(super) fn quote(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_QUOTE)
        .collect()
}

/// The failure of a request that got no answer. Only the innermost cause is kept: the layers of the
/// HTTP client in between say nothing to a user, and the address may hold a signature.
pub(super) fn unreachable(registry: &str, error: &reqwest::Error) -> RegistryError {
    let mut innermost: &dyn Error = error;
    let mut tls = None;
    while let Some(source) = innermost.source() {
        innermost = source;
        tls = tls.or_else(|| tls_error(innermost));
    }
    let hint = match tls {
        Some(rustls::Error::InvalidMessage(_)) => {
            Some("it does not speak TLS; list it as an insecure registry if that is intended")
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            Some("its certificate is not trusted here; add that of its authority")
        }
        _ => None,
    };
    let cause = match tls {
        Some(tls) => tls.to_string(),
        None if error.is_timeout() => "it did not answer in time".to_owned(),
        None => innermost.to_string(),
    };
    RegistryError::Unreachable {
        registry: registry.to_owned(),
        hint,
        source: quote(&cause).into(),
    }
}

/// An `io::Error` shows what it wraps by `get_ref` only, and may wrap another.
fn tls_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(wrapped) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        error = wrapped;
    }
    error.downcast_ref()
}

/// What a registry says about a refusal (distribution-spec v1.1.1 "Error codes").
pub(super) fn words(body: &[u8], status: u16) -> String {
    let envelope: Option<OciEnvelope> = serde_json::from_slice(body).ok();
    let first = envelope.and_then(|envelope| envelope.errors.into_iter().next());
    match first {
        Some(error) if error.message.is_empty() => {
            format!("HTTP status {status}: {:?}", error.code)
        }
        Some(error) => format!("HTTP status {status}: {}", quote(&error.message)),
        None => format!("HTTP status {status}"),
    }
}
