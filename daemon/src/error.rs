//! Statuses of errors, and Docker's words where clients match them.

use engine::{EngineError, ErrorKind};
use http::StatusCode;
use image::ImageError;
use network::NetworkError;

use crate::wire::messages;

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    sys::reason::without_numbers(&text)
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        if let EngineError::Image(error) = error {
            return error.into();
        }
        if let EngineError::Network(error) = error {
            return error.into();
        }
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match &error {
            EngineError::VolumeExists(_) | EngineError::VolumeInUse { .. } => {
                Self::new(StatusCode::CONFLICT, messages::engine(&error))
            }
            EngineError::Start { code, .. } => Self::new(
                match code {
                    126 | 127 => StatusCode::BAD_REQUEST,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                },
                messages::engine(&error),
            ),
            _ => Self::new(status, messages::engine(&error)),
        }
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let status = match error.kind() {
            image::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            image::ErrorKind::Conflict => StatusCode::CONFLICT,
            image::ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            image::ErrorKind::Denied => StatusCode::FORBIDDEN,
            image::ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, messages::image(&error))
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> Self {
        let status = match &error {
            NetworkError::NotFound(_) => StatusCode::NOT_FOUND,
            NetworkError::NameInUse(_) => StatusCode::CONFLICT,
            NetworkError::BadSubnet(_)
            | NetworkError::BadName(_)
            | NetworkError::BadOption { .. }
            | NetworkError::Ambiguous(_)
            | NetworkError::BadAddress { .. } => StatusCode::BAD_REQUEST,
            NetworkError::BuiltIn { .. }
            | NetworkError::InUse { .. }
            | NetworkError::SubnetInUse { .. }
            | NetworkError::AlreadyOn { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, messages::network(&error))
    }
}
