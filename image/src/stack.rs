//! An image's layers as directories that can be stacked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use sys::durable;

use crate::document::tar_layers;
use crate::error::ImageError;
use crate::fixup;
use crate::form::LayerForm;
use crate::links;
use crate::progress::Progress;
use crate::store::{Image, Store};
use crate::unpack::UnpackMode;

impl Store {
    /// The same store, with new layers in this form; layers of both forms can lie side by side. In
    /// a user namespace there are directories only.
    #[must_use]
    pub fn with_layer_form(mut self, form: LayerForm) -> Self {
        if self.layers.mode() == UnpackMode::default() {
            self.layers.form = form;
        }
        self
    }

    /// How layers are unpacked here.
    #[must_use]
    pub fn unpack_mode(&self) -> UnpackMode {
        self.layers.mode()
    }

    /// Makes sure that all layers are unpacked. Returns the directories to stack, the uppermost
    /// first; an image without archives gives one empty directory.
    ///
    /// # Errors
    /// [`ImageError::Unpack`] with the layer that could not be unpacked. Layers that were finished
    /// before stay.
    pub fn ensure_unpacked(
        &self,
        image: &Image,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, ImageError> {
        let layers = tar_layers(&image.manifest_digest, &image.manifest, &image.config)?;
        self.layers.ensure(&layers, progress)?;
        let mut ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        ids.reverse();
        // overlayfs refuses a directory that stands in the stack twice (`ELOOP`); the upper one
        // is the one that counts.
        let mut seen = BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
        if ids.is_empty() {
            return Ok(vec![self.empty_root()?]);
        }
        let roots = ids.iter().map(|id| self.layers.root(id));
        let mut dirs = roots.collect::<Result<Vec<_>, _>>()?;
        if let Some(fixup) = fixup::ensure(self, &image.id, &ids)? {
            dirs.insert(0, fixup);
        }
        Ok(dirs)
    }

    /// Makes directories that [`Self::ensure_unpacked`] gave usable again: layers that are file systems
    /// are mounted until the next boot only.
    ///
    /// # Errors
    /// When a layer is gone or the kernel refuses its mount.
    pub fn attach_layers(&self, dirs: &[PathBuf]) -> Result<(), ImageError> {
        self.layers.attach(dirs)
    }

    /// A layer to put above `dirs`, the image's unpacked layers, in which its absolute symbolic links
    /// are relative: for guests that may not follow absolute ones. `None` when it has none.
    ///
    /// # Errors
    /// When a layer cannot be read or the new one not be written.
    pub fn relative_links(
        &self,
        image: &Image,
        dirs: &[PathBuf],
    ) -> Result<Option<PathBuf>, ImageError> {
        links::ensure(self, &image.id, dirs)
    }

    /// The directory that stands for "no files": the root of what has none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn empty_root(&self) -> Result<PathBuf, ImageError> {
        let path = self.layout.layers().join("empty");
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(path),
            result => result,
        }
        .and_then(|()| durable::set_mode(&path, 0o755))
        .map_err(|source| ImageError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }
}
