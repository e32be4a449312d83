//! The images that stages begin with and files are copied from.

use std::path::Path;
use std::sync::Arc;

use image::{Image, ImageError, LayoutReference, Platform};

use super::state::Base;
use super::{Execution, lock};
use crate::error::{BuildError, Place};

impl Execution<'_> {
    /// An image of the store, fetched when it is missing or when that is wanted.
    pub(super) fn image(
        &self,
        name: &str,
        platform: &Platform,
        place: &Place,
    ) -> Result<Arc<Base>, BuildError> {
        let what = format!("cannot use the image `{name}`");
        let at = |error: BuildError| {
            let error = error.or_at(place, &what);
            // A plain word is as often a stage that is written differently.
            if name.contains(['/', ':', '@', '.']) {
                return error;
            }
            error.with_hint(format!(
                "no stage before this line and no context has the name `{name}`, so it was taken for an image"
            ))
        };
        let pull = self.shared.options.pull;
        let find = || -> Result<Image, BuildError> {
            let resolve = || self.shared.engine.store().resolve(name, Some(platform));
            if pull {
                (self.shared.fetch)(name, platform)?;
            }
            match resolve() {
                Err(ImageError::NotFound(_) | ImageError::NoPlatform { .. }) if !pull => {
                    (self.shared.fetch)(name, platform)?;
                    Ok(resolve()?)
                }
                other => Ok(other?),
            }
        };
        self.base(name, platform, find).map_err(at)
    }

    /// An image of an OCI layout directory, which gets no name in the store.
    pub(super) fn layout_image(
        &self,
        dir: &Path,
        reference: &LayoutReference,
        platform: &Platform,
        place: &Place,
    ) -> Result<Arc<Base>, BuildError> {
        let name = format!("oci-layout://{}{reference}", dir.display());
        let find = || Ok(self.shared.session.take_layout(dir, reference, platform)?);
        self.base(&name, platform, find)
            .map_err(|error| error.or_at(place, &format!("cannot use the image `{name}`")))
    }

    /// An image with its layers: found and unpacked once.
    fn base(
        &self,
        name: &str,
        platform: &Platform,
        find: impl FnOnce() -> Result<Image, BuildError>,
    ) -> Result<Arc<Base>, BuildError> {
        let id = (name.to_owned(), platform.to_string());
        let slot = Arc::clone(lock(&self.images).entry(id).or_default());
        // Whoever wants the same waits: an image is fetched and unpacked once.
        let mut slot = lock(&slot);
        if let Some(known) = &*slot {
            return Ok(Arc::clone(known));
        }
        let image = find()?;
        self.shared.session.hold_image(&image)?;
        let dirs = self.shared.engine.store().ensure_unpacked(&image, &())?;
        let base = Arc::new(Base { image, dirs });
        *slot = Some(Arc::clone(&base));
        Ok(base)
    }
}
