//! Why an entry was not written.

use std::io;

use crate::error::ImageError;
use crate::tarwalk::printable;

/// Why an entry was not written.
pub(super) enum Fault {
    Rule(&'static str),
    System(io::Error),
    Read(io::Error),
}

#[cfg(target_os = "linux")]
impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

impl From<&'static str> for Fault {
    fn from(rule: &'static str) -> Self {
        Self::Rule(rule)
    }
}

impl Fault {
    /// The error about this entry.
    pub(super) fn about(self, entry: &[u8]) -> ImageError {
        let entry = printable(entry);
        match self {
            Self::Rule(reason) => ImageError::Entry { entry, reason },
            Self::System(source) => ImageError::WriteEntry { entry, source },
            Self::Read(source) => ImageError::ReadStream {
                what: "the archive",
                source,
            },
        }
    }
}
