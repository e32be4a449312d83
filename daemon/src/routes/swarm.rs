//! What ketch does not have, answered in the shape that clients expect: swarms and managed plugins.

use http::StatusCode;

use crate::call::{Call, Reply, ok};
use crate::error::ApiError;
use crate::wire::messages;

/// The refusal.
pub(crate) fn refuse(call: &Call, path: &str, name: &str) -> Reply {
    let of_plugins = path.starts_with("plugins");
    match (call.method.as_str(), name.split('/').next()) {
        ("GET", Some("")) if of_plugins => ok(&[(); 0]),
        (_, Some("create" | "pull" | "privileges")) if of_plugins => Err(ApiError::unimplemented(
            "managed plugins are not supported by ketch",
        )),
        (_, Some(plugin)) if of_plugins && !plugin.is_empty() => Err(ApiError::not_found(format!(
            "plugin \"{plugin}\" not found"
        ))),
        _ => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            messages::NO_SWARM,
        )),
    }
}
