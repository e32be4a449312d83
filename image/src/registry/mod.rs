//! The registry client: images come from any registry that speaks the distribution spec (v1.1).
//!
//! `oci-distribution` gives the media types and the form of errors. The conversation itself is
//! ours, over the same HTTP library, because it needs what that crate does not show: who asks for a
//! token and in which scheme, the headers of a refusal, the type and a bound of a manifest, and our
//! own certificates.
//!
//! - What a registry sends is bounded, and checked against its digest while it comes.
//! - Credentials go to the registry and to the token service that it names, over TLS unless the
//!   registry itself may be spoken to without; never along a redirect to another origin.
//! - Every wait has an end, and so has every repetition.

mod blobs;
#[cfg(target_os = "linux")]
mod bundle;
mod catalog;
mod connection;
mod endpoint;
mod error;
mod file;
mod http;
mod manifests;
mod options;
mod pull;
mod push;
mod referrers;
mod retry;
mod token;
mod upload;

#[cfg(target_os = "linux")]
pub use bundle::{Bundle, RemoteBundle, Statement};
pub use catalog::{SearchResult, check_credentials, search, tags};
pub use error::RegistryError;
pub use file::{Asked, RemoteFile, Validator, fetch_changed, fetch_url, name_of_url};
pub use options::{Mirror, PlatformChoice, Proxies, RegistryOptions};
pub use pull::{Pulled, fetch_manifest, pull};
pub use push::Pushed;
pub use referrers::{Referrer, referrers};
