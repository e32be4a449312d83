//! The Docker Engine API over ketch's engine: routes, wire types, statuses of errors. It keeps
//! nothing that has to survive: containers, images, networks and volumes are the engine's, what is
//! kept in memory are connections, attaches that wait for a start, and `exec` instances, which go
//! with whoever asked for them. Killing the daemon disturbs no container.
//!
//! ```text
//! listen   where it listens: unix, tcp, inherited descriptors
//! tls      certificates on both sides
//! server   the start and the end
//! connections  taken, served, each request in a task of its own
//! access   who asks, and the access log
//! scope    sockets that allow a part of the API
//! metrics  numbers for Prometheus
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

mod access;
mod attaches;
mod auth;
mod blocking;
mod body;
mod buildkit;
mod call;
mod connections;
mod daemon;
mod error;
mod execs;
mod filters;
mod hub;
mod listen;
mod metrics;
mod query;
mod ready;
mod rescue;
mod routes;
mod scope;
mod scrape;
mod server;
mod streams;
mod tls;
mod version;
mod wire;

pub use daemon::Options;
pub use listen::{Host, Inherited, ListenError, PlainTcp};
pub use routes::table::{UnknownVerb, Verb};
pub use scope::{Mode, Policies, Policy, PolicyError};
pub use server::{Listening, ServeError, serve};
pub use tls::{TlsError, TlsFiles};
