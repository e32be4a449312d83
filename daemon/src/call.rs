//! One request, taken apart.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::access::Access;
use crate::body::{self, ResponseBody};
use crate::daemon::Daemon;
use crate::error::ApiError;
use crate::query::{Plus, Query, decode};
use crate::routes::table::{self, Route};
use crate::scope::Scope;
use crate::version::{ApiVersion, NEWEST};
use crate::wire::messages;

/// What a route gives back.
pub(crate) type Reply = Result<Response<ResponseBody>, ApiError>;

/// A request.
pub(crate) struct Call {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) version: ApiVersion,
    pub(crate) method: Method,
    /// What the path leads to, with the name in it; `None` when nothing is there.
    pub(crate) route: Option<(&'static Route, String)>,
    /// What its socket allows; `None` for everything.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// The connection itself, where the client wants it.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Call {
    /// Takes a request apart.
    pub(crate) fn new(
        daemon: Arc<Daemon>,
        access: &Access,
        mut request: Request<Incoming>,
    ) -> Result<Self, ApiError> {
        let wants = request.headers().contains_key(UPGRADE);
        let upgrade = wants.then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
        let version = parts
            .peek()
            .and_then(|first| ApiVersion::parse(first.strip_prefix('v')?));
        if let Some(version) = version {
            parts.next();
            version.check().map_err(ApiError::bad)?;
        }
        let parts: Vec<String> = parts.map(|part| decode(part, Plus::Itself)).collect();
        Ok(Self {
            daemon,
            version: version.unwrap_or(NEWEST),
            route: table::find(head.method.as_str(), &parts),
            scope: access.scope.clone(),
            method: head.method,
            query: Query::parse(head.uri.query().unwrap_or_default()),
            headers: head.headers,
            body,
            upgrade,
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as a document of this type, the defaults when there is none.
    pub(crate) async fn json<T: DeserializeOwned + Default>(self) -> Result<T, ApiError> {
        match self.value().await? {
            Some(value) => read(value),
            None => Ok(T::default()),
        }
    }

    /// The body as a document.
    pub(crate) async fn value(self) -> Result<Option<Value>, ApiError> {
        let kind = self.header("content-type").map(str::to_owned);
        let value = body::document(self.body).await?;
        let is_json = kind.is_none_or(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        });
        match value {
            Some(_) if !is_json => Err(ApiError::bad(
                "unsupported Content-Type header: must be 'application/json'",
            )),
            value => Ok(value),
        }
    }
}

/// Reads a document; what is wrong is named with its place.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| ApiError::bad(format!("invalid request: {error}")))
}

/// A document.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| ApiError::internal(format!("cannot write the response: {error}")))?;
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A document with status 200.
pub(crate) fn ok(value: &impl Serialize) -> Reply {
    json(StatusCode::OK, value)
}

/// A status alone.
pub(crate) fn status(status: StatusCode) -> Reply {
    let mut response = Response::new(body::full(""));
    *response.status_mut() = status;
    Ok(response)
}

/// 204.
pub(crate) fn no_content() -> Reply {
    status(StatusCode::NO_CONTENT)
}

/// A body that comes piece by piece, its headers sent at once.
pub(crate) fn streamed(kind: &'static str, body: ResponseBody) -> Reply {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// Adds a header.
pub(crate) fn with_header(reply: Reply, name: &'static str, value: &str) -> Reply {
    let mut response = reply?;
    if let Ok(value) = HeaderValue::from_str(value) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
    Ok(response)
}

/// No route has this path.
pub(crate) fn page_not_found() -> Reply {
    Err(ApiError::not_found(messages::PAGE_NOT_FOUND))
}
