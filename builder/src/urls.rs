//! What files of URLs were when they were last fetched: the server is asked whether one is another now,
//! and what has not changed is not fetched to find that out. A small file `build/urls/<digest of the
//! URL>`; the URL itself, where a password may stand, is not written down.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use engine::Engine;
use image::{Digest, Validator};
use serde::{Deserialize, Serialize};
use sys::durable::{self, Durability};

const VERSION: u32 = 1;

/// A file of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownFile {
    version: u32,
    /// What its server tells it from others by.
    pub(crate) validator: Validator,
    /// What it is.
    pub(crate) digest: Digest,
    /// When it was changed, as its server says.
    pub(crate) modified: Option<i64>,
}

impl KnownFile {
    pub(crate) fn new(validator: Validator, digest: Digest, modified: Option<i64>) -> Self {
        Self {
            version: VERSION,
            validator,
            digest,
            modified,
        }
    }

    /// What is known of the file of this URL.
    pub(crate) fn read(engine: &Engine, url: &str) -> Option<Self> {
        let bytes = fs::read(path(engine, url)).ok()?;
        let known: Self = serde_json::from_slice(&bytes).ok()?;
        (known.version == VERSION).then_some(known)
    }

    /// Writes down what is known.
    pub(crate) fn write(&self, engine: &Engine, url: &str) -> io::Result<()> {
        let path = path(engine, url);
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        durable::replace_file(&path, &serde_json::to_vec(self)?, Durability::Atomic)
    }
}

fn path(engine: &Engine, url: &str) -> PathBuf {
    let name = Digest::of(url.as_bytes()).hex();
    engine.layout().build().join("urls").join(name)
}
