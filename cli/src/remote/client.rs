//! Requests and answers.

use std::io;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;

/// The newest version that is spoken here, and the oldest.
const VERSIONS: [u16; 2] = [40, 44];

/// The largest document that is read.
const MAX_DOCUMENT: usize = 64 << 20;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a daemon refuses.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RemoteError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl RemoteError {
    /// The exit code of a program that could not be started, by Docker's words for why.
    pub(crate) fn exit_code(&self) -> u8 {
        let says = |text: &str| self.message.contains(text);
        if says("executable file not found") || says("no such file or directory") {
            runtime::code::NOT_FOUND
        } else if says("permission denied") {
            runtime::code::NOT_EXECUTABLE
        } else {
            runtime::code::ENGINE
        }
    }
}

/// A daemon.
pub(crate) struct Client {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    /// `v1.NN`.
    version: String,
}

/// A request: its path with the query, and what goes with it.
pub(crate) struct Ask<'a> {
    method: Method,
    path: String,
    headers: Vec<(&'a str, String)>,
    body: Option<Body>,
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn head(path: impl Into<String>) -> Self {
        Self::new(Method::HEAD, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(crate) fn header(mut self, name: &'a str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A document.
    pub(crate) fn json(self, value: &Value) -> Self {
        let bytes = Bytes::from(value.to_string());
        let body = Full::new(bytes).map_err(|never| match never {});
        let kind = (CONTENT_TYPE.as_str(), "application/json".to_owned());
        let mut ask = self.body(body.boxed_unsync());
        ask.headers.push(kind);
        ask
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }
}

impl Client {
    /// Finds out which version of the API the daemon speaks.
    pub(crate) async fn open(
        endpoint: Endpoint,
        tls: Option<TlsConnector>,
    ) -> anyhow::Result<Self> {
        let mut client = Self {
            endpoint,
            tls,
            version: String::new(),
        };
        let pong = client.ask(Ask::get("/_ping")).await?;
        let newest = pong
            .headers()
            .get("api-version")
            .and_then(|value| value.to_str().ok()?.strip_prefix("1.")?.parse::<u16>().ok())
            .context("the daemon does not say which version of Docker's API it speaks")?;
        let [oldest, own] = VERSIONS;
        if newest < oldest {
            anyhow::bail!(
                "the daemon speaks version 1.{newest} of Docker's API at most: 1.{oldest} is needed"
            );
        }
        client.version = format!("/v1.{}", newest.min(own));
        Ok(client)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The version, as `1.NN`.
    pub(crate) fn version(&self) -> &str {
        self.version.trim_start_matches("/v")
    }

    async fn send(
        &self,
        ask: Ask<'_>,
        upgrade: Option<&'static str>,
    ) -> anyhow::Result<Response<Incoming>> {
        let connection = self.endpoint.connect(self.tls.as_ref()).await?;
        let failed = || format!("cannot talk to the daemon at {}", self.endpoint);
        let (mut sender, driver) = http1::handshake(TokioIo::new(connection))
            .await
            .with_context(failed)?;
        // Its errors come out of the request as well.
        drop(tokio::spawn(driver.with_upgrades()));
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", self.version, ask.path))
            .header(HOST, self.endpoint.authority());
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        if let Some(protocol) = upgrade {
            request = request
                .header(CONNECTION, "Upgrade")
                .header(UPGRADE, protocol);
        }
        let empty = || {
            Full::new(Bytes::new())
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        let request = request.body(ask.body.unwrap_or_else(empty))?;
        let response = sender.send_request(request).await.with_context(failed)?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(refusal(response).await.into());
        }
        Ok(response)
    }

    /// Asks; the answer's body is still to be read.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> anyhow::Result<Response<Incoming>> {
        self.send(ask, None).await
    }

    /// Asks for a document.
    pub(crate) async fn value(&self, ask: Ask<'_>) -> anyhow::Result<Value> {
        let response = self.ask(ask).await?;
        let bytes = whole(response).await?;
        match bytes.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_slice(&bytes).context("cannot read the daemon's answer"),
        }
    }

    /// Asks for something to be done.
    pub(crate) async fn done(&self, ask: Ask<'_>) -> anyhow::Result<()> {
        whole(self.ask(ask).await?).await.map(drop)
    }

    /// Asks for a stream in both directions.
    pub(crate) async fn hijack(&self, ask: Ask<'_>) -> anyhow::Result<Upgraded> {
        let response = self.send(ask, Some("tcp")).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            anyhow::bail!(
                "the daemon gives no stream: it answers {}",
                response.status()
            );
        }
        hyper::upgrade::on(response)
            .await
            .context("cannot take over the connection to the daemon")
    }
}

/// The whole body of an answer.
pub(crate) async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let read = Limited::new(response.into_body(), MAX_DOCUMENT)
        .collect()
        .await;
    let read = read.map_err(|error| anyhow::anyhow!("cannot read the daemon's answer: {error}"))?;
    Ok(read.to_bytes())
}

/// What a daemon says of an error.
async fn refusal(response: Response<Incoming>) -> RemoteError {
    let status = response.status();
    let bytes = whole(response).await.unwrap_or_default();
    let value: Option<Value> = serde_json::from_slice(&bytes).ok();
    let message = value.as_ref().and_then(|value| value["message"].as_str());
    RemoteError {
        status,
        message: match message {
            Some(text) => text.trim_end().to_owned(),
            None => format!("the daemon answers {status}"),
        },
    }
}

/// The status that a daemon has refused something with.
pub(crate) fn status_of(error: &anyhow::Error) -> Option<StatusCode> {
    error
        .downcast_ref::<RemoteError>()
        .map(|error| error.status)
}

/// A text as a part of a path, or as a value of a query (RFC 3986 section 2.1).
pub(crate) fn encoded(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                all.push(byte.into());
            }
            _ => all.push_str(&format!("%{byte:02X}")),
        }
    }
    all
}

/// A path with a query.
pub(crate) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    match pairs.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", pairs.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let text = with_query("/a", &[("b", "c d/é"), ("e", "")]);
        assert_eq!(text, "/a?b=c%20d%2F%C3%A9&e=");
        assert_eq!(with_query("/a", &[]), "/a");
    }
}
