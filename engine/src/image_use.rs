//! Images while containers are made of them. An image that a container has is found by the
//! container's record; until that is written, a shared lock stands for it, and who removes images
//! takes the same lock alone.

use std::time::Duration;

use image::{Digest, Force, PruneOptions, Pruned, Removed};
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
        let in_use = self.image_users()?;
        Ok(self.store.remove(image, force, &in_use)?)
    }

    /// Removes images that no container needs, and all that only they needed.
    ///
    /// # Errors
    /// As [`image::Store::prune`].
    pub fn prune_images(&self, options: &PruneOptions) -> Result<Pruned, EngineError> {
        let _alone = self.image_lock(Mode::Exclusive)?;
        let in_use = self.image_users()?;
        Ok(self.store.prune(options, &in_use)?)
    }

    /// Which container needs an image: its name.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn image_users(&self) -> Result<impl Fn(&Digest) -> Option<String> + use<>, EngineError> {
        let mut needed = Vec::new();
        for container in self.containers()? {
            let name = container.config.name;
            // One without a record is being removed.
            let mounts = self.container_mounts(&container.config.id);
            let mounted = mounts.unwrap_or_default().into_iter();
            let images = mounted.filter_map(|mount| mount.image);
            needed.extend(images.map(|image| (image, name.clone())));
            needed.push((container.config.image_id, name));
        }
        Ok(move |id: &Digest| {
            let id = id.to_string();
            let user = needed.iter().find(|(image, _)| *image == id);
            user.map(|(_, name)| name.clone())
        })
    }
}
