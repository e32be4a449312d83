//! Images while containers are made of them. An image that a container has is found by the
//! container's record; until that is written, a shared lock stands for it, and who removes images
//! takes the same lock alone.

use std::time::Duration;

use image::{Digest, Force, Removed};
use sys::lock::{FileLock, Mode};

use crate::{Engine, EngineError};

/// How long one waits for the other: a creation may unpack a large image first.
const TIMEOUT: Duration = Duration::from_secs(120);

impl Engine {
    /// Images stay as long as this is held.
    pub(crate) fn use_images(&self) -> Result<FileLock, EngineError> {
        self.image_lock(Mode::Shared)
    }

    fn image_lock(&self, mode: Mode) -> Result<FileLock, EngineError> {
        let path = self.layout.locks().join("image-use.lock");
        FileLock::acquire(&path, mode, TIMEOUT).map_err(EngineError::io(
            "wait for another ketch that makes containers or removes images",
        ))
    }

    /// Removes a name, or an image with its names, that no container needs.
    ///
    /// # Errors
    /// As [`image::Store::remove`].
    pub fn remove_image(&self, image: &str, force: Force) -> Result<Vec<Removed>, EngineError> {
        let _alone = self.image_lock(Mode::Exclusive)?;
        let containers = self.containers()?;
        let in_use = |id: &Digest| {
            let id = id.to_string();
            let user = containers
                .iter()
                .find(|container| container.config.image_id == id);
            user.map(|container| container.config.name.clone())
        };
        Ok(self.store.remove(image, force, &in_use)?)
    }
}
