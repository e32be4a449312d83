//! Streams between clients and programs.
//!
//! ```text
//! hijack   a request's connection becomes a stream in both directions
//! frame    stdout and stderr in one stream
//! pump     passes everything on until the program has ended
//! log      what a container has written, as records or as a stream
//! ```

mod frame;
mod hijack;
mod log;
mod pump;

pub(crate) use frame::{Framing, STDOUT, frame};
pub(crate) use hijack::{Input, Output, hijack};
pub(crate) use log::{LogQuery, write_log};
pub(crate) use pump::{Passing, pump, watch_end};
