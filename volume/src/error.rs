//! Why a volume driver could not be used.

use std::io;

use state::RecordError;

/// An operation of a volume driver that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No plugin has this name.
    #[error("no such volume driver: {name} (looked in {places})")]
    NotFound {
        /// The driver.
        name: String,
        /// The directories.
        places: String,
    },
    /// The file that describes it is wrong, or asks for what is not there.
    #[error("cannot use the volume driver `{name}`: {why}")]
    BadPlugin {
        /// The driver.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// It does not answer.
    #[error("the volume driver `{name}` does not answer at `{address}`")]
    Dead {
        /// The driver.
        name: String,
        /// Its address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// It says no.
    #[error("cannot {what} volume `{volume}`: the driver `{name}` says: {why}")]
    Refused {
        /// The driver.
        name: String,
        /// What was asked for.
        what: &'static str,
        /// The volume.
        volume: String,
        /// Its answer.
        why: String,
    },
    /// What a driver has mounted could not be written down.
    #[error(transparent)]
    Record(#[from] RecordError),
}
