//! What ketch does not have, answered in the shape that clients expect: swarms and managed plugins.

use http::StatusCode;

use crate::call::{Call, Reply, ok};
use crate::error::ApiError;
use crate::wire::messages;

/// First parts of paths that belong to a swarm or to managed plugins.
const OF_SWARM: [&str; 8] = [
    "swarm",
    "nodes",
    "services",
    "tasks",
    "secrets",
    "configs",
    "plugins",
    "distribution",
];

/// Whether a path that begins so is answered here.
pub(crate) fn is_of_swarm(first: &str) -> bool {
    OF_SWARM.contains(&first)
}

/// The refusal.
pub(crate) fn refuse(call: &Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("GET", ["plugins"]) => ok(&[(); 0]),
        (_, ["plugins", "create" | "pull" | "privileges"]) => Err(ApiError::unimplemented(
            "managed plugins are not supported by ketch",
        )),
        (_, ["plugins", name, ..]) => {
            Err(ApiError::not_found(format!("plugin \"{name}\" not found")))
        }
        (_, ["distribution", ..]) => Err(ApiError::unimplemented(
            "the distribution of images is not shown by ketch yet",
        )),
        _ => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            messages::NO_SWARM,
        )),
    }
}
