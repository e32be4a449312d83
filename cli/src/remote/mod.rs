//! This program as the client of a daemon that speaks Docker's API: ketch's, or any other.
//!
//! ```text
//! endpoint   where a daemon is: unix, tcp with or without TLS, ssh
//! store      docker's store of contexts
//! client     requests and answers
//! streams    a person at a container of a daemon
//! progress   what long operations tell
//! commands   the subcommands that go over the wire; `spec` is what `run` and `create` ask for
//! ```
//!
//! It is written on hyper and on JSON as it comes, not on a client crate with types: `inspect` shows
//! what the daemon says and not what a crate knew of it, and a daemon that says more than the crate
//! knew is no error.

mod chosen;
mod client;
mod commands;
mod copy;
mod endpoint;
mod images;
mod lists;
mod objects;
mod progress;
mod run;
mod spec;
mod stats;
mod store;
mod streams;

pub(crate) use chosen::{Chosen, at_daemon, contexts};
pub(crate) use client::RemoteError;
pub(crate) use commands::dispatch;
pub(crate) use endpoint::Endpoint;
pub(crate) use store::{Context, DEFAULT};
