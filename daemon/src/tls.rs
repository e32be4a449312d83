//! TLS with certificates on both sides: who has none that the authority has signed gets no answer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// The three files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority of clients' certificates.
    pub authority: PathBuf,
    /// The daemon's certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be used.
    #[error("cannot read `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// Nothing of what was wanted is in a file.
    #[error("`{}` has no certificate", .0.display())]
    Empty(PathBuf),
    /// The authority cannot be one.
    #[error("cannot use the authority `{}`", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// Clients cannot be verified by the authority.
    #[error("cannot verify clients")]
    Verifier {
        /// The cause.
        source: VerifierBuilderError,
    },
    /// Certificate and key do not fit.
    #[error("cannot use the certificate `{}` with its key", path.display())]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File {
        path: path.to_path_buf(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    match found.is_empty() {
        true => Err(TlsError::Empty(path.to_path_buf())),
        false => Ok(found),
    }
}

impl TlsFiles {
    /// Reads the files.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            roots
                .add(certificate)
                .map_err(|source| TlsError::Authority {
                    path: self.authority.clone(),
                    source,
                })?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::File {
            path: self.key.clone(),
            source,
        })?;
        // Of this configuration alone: the process may use another one elsewhere.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|source| TlsError::Verifier { source })?;
        let unusable = |source| TlsError::Certificate {
            path: self.certificate.clone(),
            source,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate)?, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// What a handshake that failed says of the other side.
pub(crate) fn why(error: &io::Error) -> String {
    error
        .get_ref()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
