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
mod space;
mod unpack;
mod walk;
