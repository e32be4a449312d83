//! Volume drivers of other programs, over Docker's plugin protocol: JSON by HTTP over a unix socket
//! (docs.docker.com, "Docker volume plugins"). It finds drivers, speaks with them, and knows what
//! they have mounted for a container. It knows no container itself, and mounts nothing.
//!
//! Both sides of a container's life need it: the engine asks for the mount before the start, and the
//! container's monitor gives it back after the end.
#![forbid(unsafe_code)]

mod discover;
mod driver;
mod error;
mod http;
mod mounted;

pub use discover::{Address, Plugins};
pub use driver::{Driver, DriverVolume};
pub use error::DriverError;
pub use mounted::{Mounted, give_back, mounted, record_path, records, write_mounted};
