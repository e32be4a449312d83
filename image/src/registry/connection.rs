//! A conversation with one registry about one repository: the scheme, and the authorization once
//! the registry has asked for it.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::endpoint::{Endpoint, Transport};
use super::error::{RegistryError, unreachable};
use super::http;
use super::options::RegistryOptions;
use super::retry::Failure;
use super::token::{self, Authorization, Challenge};
use crate::auth::{Credentials, Secret};
use crate::error::ImageError;
use crate::reference::Reference;

/// What is to be done in the repository: decides what a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing in a repository: credentials are checked, or a catalogue is read.
    Registry,
    /// Reading.
    Pull,
    /// Reading and writing; blobs may be taken from these repositories of the same registry.
    Push { from: Vec<String> },
}

/// A registry, ready to be asked. Used by one thread.
pub(super) struct Connection {
    pub(super) endpoint: Endpoint,
    pub(super) http: reqwest::Client,
    pub(super) credentials: Credentials,
    pub(super) access: Access,
    /// The image that it is about, as messages name it.
    image: String,
    scheme: Cell<Option<&'static str>>,
    authorization: RefCell<Option<Authorization>>,
    /// What the token service gave to ask with the next time.
    refresh_token: RefCell<Option<Secret>>,
}

impl Connection {
    /// Prepares to speak to `endpoint` about `reference`. Nothing is sent yet.
    pub(super) fn open(
        reference: &Reference,
        endpoint: Endpoint,
        access: Access,
        options: &RegistryOptions,
    ) -> Result<Self, ImageError> {
        let own = Reference::parse(&format!("{}/{}", endpoint.registry, endpoint.repository))?;
        Self::with_credentials(
            reference.familiar(),
            endpoint,
            access,
            options,
            options.auth.credentials(&own)?,
        )
    }

    pub(super) fn with_credentials(
        image: String,
        endpoint: Endpoint,
        access: Access,
        options: &RegistryOptions,
        credentials: Credentials,
    ) -> Result<Self, ImageError> {
        let scheme = match endpoint.transport {
            Transport::Tls => Some("https"),
            Transport::Plain => Some("http"),
            Transport::PlainAllowed => None,
        };
        Ok(Self {
            http: http::client(&endpoint, options)?,
            credentials,
            access,
            image,
            scheme: Cell::new(scheme),
            authorization: RefCell::new(None),
            refresh_token: RefCell::new(None),
            endpoint,
        })
    }

    pub(super) fn registry(&self) -> &str {
        &self.endpoint.registry
    }

    pub(super) fn image(&self) -> &str {
        &self.image
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.scheme.get() != Some("http")
    }

    /// The path of something in the repository.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.endpoint.repository)
    }

    /// The address of `path` below `/v2/`. `None` for a path that is none.
    pub(super) fn url(&self, path: &str) -> Result<Url, ImageError> {
        let scheme = self.scheme.get().unwrap_or("https");
        let text = format!("{scheme}://{}/v2/{path}", self.endpoint.api_host());
        Url::parse(&text).map_err(|error| {
            RegistryError::Prepare {
                registry: self.registry().to_owned(),
                source: error.into(),
            }
            .into()
        })
    }

    /// Asks for `path` below `/v2/`; `missing` is what a 404 means.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        missing: impl FnOnce() -> RegistryError,
    ) -> Result<Response, Failure> {
        let response = self
            .ask(Method::GET, path, |request| request.header(ACCEPT, accept))
            .await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response.status(), response.headers(), missing))
    }

    /// Sends a request for `path` below `/v2/`, proving who we are when the registry asks. Any
    /// status but 401 is an answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        if self.scheme.get().is_none()
            && let Some(response) = self.first_contact(&method, path, &prepare).await?
        {
            return self
                .settle(response, &self.url(path)?, method, prepare)
                .await;
        }
        let url = self.url(path)?;
        self.send_to(&url, method, prepare).await
    }

    /// As [`Self::ask`], for an address that the registry gave. Another host gets no
    /// authorization.
    pub(super) async fn send_to(
        &self,
        url: &Url,
        method: Method,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let request = prepare(self.http.request(method.clone(), url.clone()));
        if url.origin() != self.url("")?.origin() {
            return self.send(request).await;
        }
        let response = self.send(self.authorized(request)).await?;
        self.settle(response, url, method, prepare).await
    }

    /// Answers a challenge, when `response` is one, and asks again.
    async fn settle(
        &self,
        response: Response,
        url: &Url,
        method: Method,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // Not known yet, or no longer taken: tokens end after some minutes.
        self.authorize(response.headers()).await?;
        let request = prepare(self.http.request(method, url.clone()));
        let response = self.send(self.authorized(request)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.denied().into());
        }
        Ok(response)
    }

    /// The first request decides whether a registry that may speak plain HTTP does: servers that
    /// want TLS answer with status 400, hang up, or redirect. Nothing secret is in it.
    async fn first_contact(
        &self,
        method: &Method,
        path: &str,
        prepare: &impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Option<Response>, Failure> {
        self.scheme.set(Some("http"));
        let url = self.url(path)?;
        let answer = prepare(self.http.request(method.clone(), url)).send().await;
        let plain = answer.ok().filter(|answer| {
            answer.status() != StatusCode::BAD_REQUEST && answer.url().scheme() == "http"
        });
        if plain.is_none() {
            self.scheme.set(Some("https"));
        }
        Ok(plain)
    }

    /// Answers the first challenge that can be answered.
    async fn authorize(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let mut failure = Failure::from(self.denied());
        for challenge in Challenge::from_headers(headers) {
            match token::answer(&challenge, self).await {
                Ok(authorization) => {
                    self.authorization.replace(Some(authorization));
                    return Ok(());
                }
                // A service that is busy may answer the next time: no reason to show a password.
                Err(error @ Failure::Transient { .. }) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The token to ask the token service with: of the credentials, or the newest that it gave.
    pub(super) fn refresh_token(&self) -> Option<Secret> {
        let newest = self.refresh_token.borrow().clone();
        newest.or_else(|| match &self.credentials {
            Credentials::IdentityToken(token) => Some(token.clone()),
            _ => None,
        })
    }

    /// Some services take each of theirs once.
    pub(super) fn remember_refresh_token(&self, token: Option<Secret>) {
        if let Some(token) = token.filter(|token| !token.expose().is_empty()) {
            self.refresh_token.replace(Some(token));
        }
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

    fn busy(&self, status: StatusCode, after: Option<Duration>) -> Failure {
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
            image: self.image.clone(),
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

/// How long the registry wants to be left alone: in seconds, or until a date (RFC 9110 section
/// 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    (until - OffsetDateTime::now_utc()).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert!(of("Wed, 21 Oct 2122 07:28:00 GMT").is_some());
        assert_eq!(of("soon"), None);
    }
}
