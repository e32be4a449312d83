//! How a call ended.

use std::fmt::Write as _;

use http::HeaderMap;
use http::header::HeaderValue;

/// Codes of `google.golang.org/grpc/codes` that are told apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

const CODES: [Code; 16] = [
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

impl Code {
    /// Its number.
    pub(crate) fn number(self) -> i32 {
        let at = CODES.iter().position(|code| *code == self).unwrap_or(1);
        i32::try_from(at + 1).unwrap_or(2)
    }

    /// The code of a number; unknown ones are [`Self::Unknown`].
    pub(crate) fn of(number: i32) -> Self {
        let at = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
        at.and_then(|at| CODES.get(at).copied())
            .unwrap_or(Self::Unknown)
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn unimplemented(what: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, what)
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, what)
    }

    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::new(Code::Internal, what)
    }

    /// The headers or trailers that tell it.
    pub(super) fn trailers(result: Result<(), &Self>) -> HeaderMap {
        let mut map = HeaderMap::new();
        let number = result.err().map_or(0, |status| status.code.number());
        map.insert("grpc-status", HeaderValue::from(number));
        if let Err(status) = result
            && let Ok(text) = HeaderValue::from_str(&escaped(&status.message))
        {
            map.insert("grpc-message", text);
        }
        map
    }

    /// What headers or trailers tell; `None` when they have no status.
    pub(super) fn read(map: &HeaderMap) -> Option<Result<(), Self>> {
        let number = map.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        if number == 0 {
            return Some(Ok(()));
        }
        let message = map
            .get("grpc-message")
            .map(|text| unescaped(text.as_bytes()))
            .unwrap_or_default();
        Some(Err(Self::new(Code::of(number), message)))
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        let code = match error.reason() {
            Some(h2::Reason::CANCEL) => Code::Cancelled,
            _ => Code::Unavailable,
        };
        Self::new(code, format!("the connection has failed: {error}"))
    }
}

/// Percent-encoded: all but printable ASCII, and `%`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => {
                // Writing to a string cannot fail.
                let _written = write!(out, "%{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

fn unescaped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    crate::query::decode(&text, crate::query::Plus::Itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_survives_the_way_through_headers() {
        let status = Status::new(Code::NotFound, "50% of `ö`\nare gone");
        let map = Status::trailers(Err(&status));
        assert_eq!(map["grpc-status"], "5");
        assert_eq!(Status::read(&map), Some(Err(status)));
        assert_eq!(Status::read(&Status::trailers(Ok(()))), Some(Ok(())));
        assert_eq!(Status::read(&HeaderMap::new()), None);
    }

    #[test]
    fn codes_have_the_numbers_of_grpc() {
        assert_eq!(Code::Cancelled.number(), 1);
        assert_eq!(Code::Unimplemented.number(), 12);
        assert_eq!(Code::Unauthenticated.number(), 16);
        assert_eq!(Code::of(12), Code::Unimplemented);
        assert_eq!(Code::of(99), Code::Unknown);
    }
}
