//! A conversation with one registry about one repository: the HTTP client, the scheme, and the
//! authorization once the registry has asked for it.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use oci_distribution::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{RequestBuilder, Response, StatusCode};

use super::endpoint::{Transport, api_host};
use super::error::{RegistryError, unreachable};
use super::pull::RegistryOptions;
use super::retry::Failure;
use super::token::{self, Authorization, Challenge};
use crate::auth::Credentials;
use crate::error::ImageError;
use crate::reference::Reference;

/// A host that does not answer the first packet by then is down.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent: registries fetch from slow storage, but not that slow.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Registries redirect to their storage, once or twice.
const MAX_REDIRECTS: usize = 5;
/// The largest file of certificates that is read: the bundles of systems have 250 KiB.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;

/// The registry of a reference, ready to be asked. Used by one thread.
pub(super) struct Connection<'a> {
    pub(super) reference: &'a Reference,
    pub(super) http: reqwest::Client,
    pub(super) credentials: Credentials,
    options: &'a RegistryOptions,
    scheme: &'static str,
    authorization: RefCell<Option<Authorization>>,
}

impl<'a> Connection<'a> {
    /// Finds out how to speak to the registry. Nothing is sent to one that needs TLS.
    pub(super) async fn open(
        reference: &'a Reference,
        options: &'a RegistryOptions,
    ) -> Result<Self, ImageError> {
        install_crypto();
        let http = http_client(reference.registry(), options)?;
        let host = api_host(reference.registry());
        let scheme = match Transport::of(reference.registry(), &options.insecure) {
            Transport::PlainAllowed if speaks_plain(&http, host).await => "http",
            Transport::PlainAllowed | Transport::Tls => "https",
        };
        Ok(Self {
            reference,
            http,
            credentials: options.auth.credentials(reference)?,
            options,
            scheme,
            authorization: RefCell::new(None),
        })
    }

    pub(super) fn registry(&self) -> &str {
        self.reference.registry()
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.scheme == "https"
    }

    pub(super) fn authorization(&self) -> Option<Authorization> {
        self.authorization.borrow().clone()
    }

    /// A configuration of the blob client that agrees with this connection.
    pub(super) fn blob_client_config(&self) -> Result<ClientConfig, ImageError> {
        let extra_root_certificates = read_certificates(self.options)?
            .into_iter()
            .map(|data| Certificate {
                encoding: CertificateEncoding::Pem,
                data,
            })
            .collect();
        Ok(ClientConfig {
            protocol: if self.uses_tls() {
                ClientProtocol::Https
            } else {
                ClientProtocol::Http
            },
            extra_root_certificates,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(IDLE_TIMEOUT),
            user_agent: self.options.user_agent,
            ..ClientConfig::default()
        })
    }

    /// The repository in the terms of the blob client.
    pub(super) fn blob_repository(&self) -> oci_distribution::Reference {
        oci_distribution::Reference::with_tag(
            api_host(self.registry()).to_owned(),
            self.reference.repository().to_owned(),
            String::new(),
        )
    }

    /// Fetches `path` below `/v2/`, proving who we are when the registry asks. `missing` is what a
    /// 404 means.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        missing: impl FnOnce() -> RegistryError,
    ) -> Result<Response, Failure> {
        let request = || self.http.get(self.url(path)).header("Accept", accept);
        let mut response = self.send(self.authorized(request())).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorize(response.headers()).await?;
            response = self.send(self.authorized(request())).await?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response.status(), response.headers(), missing))
    }

    /// Gets a new authorization, because the registry no longer takes the old one.
    pub(super) async fn renew(&self) -> Result<(), Failure> {
        let response = self.send(self.http.get(self.url(""))).await?;
        self.authorize(response.headers()).await
    }

    async fn authorize(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let challenge = Challenge::from_headers(headers).ok_or_else(|| self.denied())?;
        let authorization = token::answer(&challenge, self).await?;
        self.authorization.replace(Some(authorization));
        Ok(())
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &*self.authorization.borrow() {
            Some(authorization) => authorization.apply(request),
            None => request,
        }
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.no_answer(&error))
    }

    /// A connection that broke may hold next time; one that could not be made will not.
    pub(super) fn no_answer(&self, error: &reqwest::Error) -> Failure {
        let lasting = error.is_connect() || error.is_timeout() || error.is_redirect();
        let error = unreachable(self.registry(), error).into();
        if lasting {
            return Failure::Final(error);
        }
        Failure::Transient { error, after: None }
    }

    /// What a status other than success means.
    pub(super) fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        missing: impl FnOnce() -> RegistryError,
    ) -> Failure {
        match status {
            StatusCode::NOT_FOUND => missing().into(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied().into(),
            StatusCode::TOO_MANY_REQUESTS => self.busy(status, retry_after(headers)),
            status if status.is_server_error() => self.busy(status, retry_after(headers)),
            status => self
                .answer(format!("HTTP status {}", status.as_u16()))
                .into(),
        }
    }

    pub(super) fn busy(&self, status: StatusCode, after: Option<Duration>) -> Failure {
        let error = RegistryError::Unavailable {
            registry: self.registry().to_owned(),
            status: status.as_u16(),
        };
        Failure::Transient {
            error: error.into(),
            after,
        }
    }

    pub(super) fn denied(&self) -> RegistryError {
        RegistryError::Denied {
            image: self.reference.familiar(),
            registry: self.registry().to_owned(),
        }
    }

    pub(super) fn answer(&self, reason: String) -> RegistryError {
        RegistryError::Answer {
            registry: self.registry().to_owned(),
            reason,
        }
    }

    pub(super) fn fetch_failed(&self, what: String, source: ImageError) -> ImageError {
        RegistryError::Fetch {
            what,
            registry: self.registry().to_owned(),
            source: Box::new(source),
        }
        .into()
    }

    fn url(&self, path: &str) -> String {
        let host = api_host(self.registry());
        format!("{}://{host}/v2/{path}", self.scheme)
    }

    /// Reads a body that must have at most `max` bytes.
    pub(super) async fn read_bounded(
        &self,
        mut response: Response,
        max: u64,
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let broken = |error| self.no_answer(&error);
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > max {
                return Err(self.answer(format!("it has more than {max} bytes")).into());
            }
        }
        Ok(bytes)
    }
}

/// Only seconds are understood; a date means that we wait as long as we would anyway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the host answers in plain HTTP. Servers that speak TLS answer with status 400 or hang up.
async fn speaks_plain(http: &reqwest::Client, host: &str) -> bool {
    match http.get(format!("http://{host}/v2/")).send().await {
        Ok(answer) => answer.status() != StatusCode::BAD_REQUEST && answer.url().scheme() == "http",
        Err(_) => false,
    }
}

/// reqwest takes the process-wide provider. Another one, installed by the program around us, does
/// as well.
fn install_crypto() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("a crypto provider is installed already");
    }
}

fn http_client(
    registry: &str,
    options: &RegistryOptions,
) -> Result<reqwest::Client, RegistryError> {
    let mut authorities = Vec::new();
    for (path, pem) in options.extra_ca.iter().zip(read_certificates(options)?) {
        let invalid = |source: reqwest::Error| RegistryError::Certificates {
            path: path.clone(),
            source: source.into(),
        };
        authorities.extend(reqwest::Certificate::from_pem_bundle(&pem).map_err(invalid)?);
    }
    reqwest::Client::builder()
        .tls_certs_merge(authorities)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .user_agent(options.user_agent)
        .redirect(Policy::custom(redirect))
        .build()
        .map_err(|source| RegistryError::Prepare {
            registry: registry.to_owned(),
            source: source.into(),
        })
}

/// reqwest itself drops `Authorization` when host, port or scheme change.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from_tls = attempt
        .previous()
        .last()
        .is_some_and(|from| from.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("it redirects to an address without TLS");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("it redirects too often");
    }
    attempt.follow()
}

fn read_certificates(options: &RegistryOptions) -> Result<Vec<Vec<u8>>, RegistryError> {
    let read = |path: &Path| match fs::metadata(path)?.len() {
        0..=MAX_CERTIFICATES => fs::read(path),
        _ => Err(std::io::ErrorKind::FileTooLarge.into()),
    };
    let paths = options.extra_ca.iter();
    paths
        .map(|path| {
            read(path).map_err(|source| RegistryError::Certificates {
                path: path.clone(),
                source: source.into(),
            })
        })
        .collect()
}
