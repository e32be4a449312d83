//! What requests and responses look like.

pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod host_config;
pub(crate) mod image;
pub(crate) mod messages;
pub(crate) mod network;
pub(crate) mod processes;
pub(crate) mod progress;
pub(crate) mod system;
pub(crate) mod times;
