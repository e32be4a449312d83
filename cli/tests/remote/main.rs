//! The daemon beyond one full socket: TLS, sockets of a service manager, sockets that allow a part,
//! metrics and limits; and this program as a client of daemons.

#![expect(clippy::unwrap_used, reason = "test code")]

mod client;
mod service;
mod sockets;
mod support;
mod tls;
