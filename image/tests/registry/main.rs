//! The registry client against a real registry (Debian's `docker-registry`) and against servers
//! that lie.
#![expect(
    clippy::unwrap_used,
    reason = "functions of tests that are no tests themselves"
)]

mod auth;
mod hosts;
mod pull;
mod push;
mod referrers;
mod resume;
mod support;
