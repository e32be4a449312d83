//! `--cidfile` of `run` and `create`.

use std::path::Path;

use anyhow::Context as _;
use engine::{Created, Engine, Force};
use sys::durable::{Durability, claim_file};

use super::options::CreateArgs;

impl CreateArgs {
    /// Creates a container, and writes its id where that was asked for. A file that is there already
    /// is refused before anything is made.
    pub(crate) fn in_cid_file(
        &self,
        engine: &Engine,
        create: impl FnOnce() -> anyhow::Result<Created>,
    ) -> anyhow::Result<Created> {
        let Some(path) = &self.cidfile else {
            return create();
        };
        let failed = || format!("cannot write the container's id to `{}`", path.display());
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists))
                .with_context(failed);
        }
        let created = create()?;
        // A name without a directory is one in the current directory.
        let place = Path::new(".").join(path);
        let written = claim_file(&place, created.config.id.as_bytes(), Durability::Atomic);
        if let Err(error) = written {
            // Nobody would know which container it is. The first error is the one to report.
            drop(
                engine
                    .container(&created.config.id)
                    .and_then(|container| engine.remove(&container, Force::No)),
            );
            return Err(error).with_context(failed);
        }
        Ok(created)
    }
}
