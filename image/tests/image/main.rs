//! Images on a real file system: layers, archives, names.

#![expect(
    clippy::unwrap_used,
    reason = "functions of tests that are no tests themselves"
)]

mod archives;
mod erofs;
mod host;
mod names;
mod overlay;
mod security;
mod space;
#[expect(dead_code, reason = "the registry tests use more of it")]
#[path = "../registry/support/stub.rs"]
mod stub;
mod unpack;
mod walk;
