//! What the worker answers, as one JSON object.

use serde::{Deserialize, Serialize};

use crate::engine::Serving;

/// The worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The compiled file is in the cache of the engine with this key.
    Compiled {
        /// The key.
        engine_key: String,
        /// Command or HTTP.
        serving: Serving,
    },
    /// The module cannot be run; the reason in one line, causes after colons.
    Refused {
        /// The reason.
        reason: String,
    },
    /// The worker failed for a reason that is not the module's.
    Failed {
        /// The reason.
        reason: String,
    },
}
