//! The Docker Engine API over ketch's engine: routes, wire types, statuses of errors. It keeps
//! nothing that has to survive: containers, images, networks and volumes are the engine's, what is
//! kept in memory are connections, attaches that wait for a start, and `exec` instances, which go
//! with whoever asked for them. Killing the daemon disturbs no container.
//!
//! ```text
//! listen   where it listens: unix, tcp, inherited descriptors
//! server   connections, the end
//! call     one request: version, path, query, body
//! routes   one file a group of operations
//! wire     what requests and responses look like, and the texts that clients match
//! streams  hijacked connections, frames, pumps between sockets and pipes
//! blocking the engine blocks: its operations go whole to other threads
//! hub      what happens, told to everyone who waits
//! rescue   containers whose monitors were killed
//! buildkit builds over BuildKit's protocols
//! ```
#![forbid(unsafe_code)]
// `GET /info` is one JSON object with many fields.
#![recursion_limit = "256"]

mod attaches;
mod auth;
mod blocking;
mod body;
mod buildkit;
mod call;
mod daemon;
mod error;
mod execs;
mod filters;
mod hub;
mod listen;
mod query;
mod ready;
mod rescue;
mod routes;
mod server;
mod streams;
mod version;
mod wire;

pub use daemon::Options;
pub use listen::{Host, ListenError};
pub use server::{ServeError, serve};
