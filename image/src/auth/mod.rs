//! Credentials for registries: read from Docker's `config.json` and its helpers, and kept there.

mod config;
mod helper;
mod keep;

pub use config::{AuthConfig, Credentials, Secret};
pub use keep::{CredentialFile, Kept};
