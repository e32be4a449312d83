//! The registry client against a real registry (Debian's `docker-registry`) and against servers
//! that lie.
#![expect(
    clippy::unwrap_used,
    reason = "functions of tests that are no tests themselves"
)]

mod hosts;
mod pull;
mod push;
mod resume;
mod support;
