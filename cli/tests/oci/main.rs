//! The OCI runtime command line: what callers rely on, and the security checklist.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code")]

mod bundle;
mod commands;
mod descriptors;
mod groups;
mod kernel;
mod mounts;
mod security;
