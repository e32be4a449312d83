//! Networks through the real processes, each test in network namespaces of its own: one is the host,
//! another stands outside.
#![expect(clippy::unwrap_used, reason = "test code")]

mod hosts;
mod names;
mod networks;
mod ordinary;
mod proof;
mod published;
mod rescue;
