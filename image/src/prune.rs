//! Removing everything that nobody needs, while others pull.

use std::collections::BTreeMap;

use sys::durable;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::graph::Reachable;
use crate::remove::{Force, Removed};
use crate::store::{ImageSummary, Store};
use crate::usage::{Sizes, disk_size};

/// Which images are pruned.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Not only those without a name, but all that no container uses.
    pub all: bool,
    /// Only images that came or were made before.
    pub until: Option<OffsetDateTime>,
    /// Only images with these labels: a value of `None` means any.
    pub labels: Vec<(String, Option<String>)>,
    /// Only images without any of these labels.
    pub not_labels: Vec<(String, Option<String>)>,
}

/// What was pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The names and images, in the order of their removal.
    pub removed: Vec<Removed>,
    /// Bytes on disk that were given free: blobs, layers, beginnings of blobs.
    pub freed: u64,
}

impl Store {
    /// Removes images that no container uses, then every blob and layer that no image has, and
    /// what pulls left that were cut off. What a running pull or load needs stays.
    ///
    /// # Errors
    /// When something cannot be removed. What was removed before is gone.
    pub fn prune(
        &self,
        options: &PruneOptions,
        in_use: &dyn Fn(&Digest) -> Option<String>,
    ) -> Result<Pruned, ImageError> {
        let before = self.sizes()?;
        let mut pruned = Pruned::default();
        for image in self.list()? {
            let candidate = options.all || image.names.is_empty();
            if candidate && in_use(&image.id).is_none() && self.matches(&image, options)? {
                match self.remove(&image.id.to_string(), Force::Yes, in_use) {
                    Ok(removed) => pruned.removed.extend(removed),
                    // Somebody else was faster.
                    Err(ImageError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let _lock = self.lock()?;
        let everything = Reachable {
            blobs: self.content.list()?.into_iter().collect(),
            layers: self.layers.list()?.into_iter().map(|(id, _)| id).collect(),
        };
        self.sweep(&everything)?;
        pruned.freed = self.freed_since(before)? + self.content.remove_partial()?;
        self.record_event("prune", "", None);
        Ok(pruned)
    }

    /// What was there before and is not now; what came meanwhile does not count.
    fn freed_since(&self, mut before: Sizes) -> Result<u64, ImageError> {
        for blob in self.content.list()? {
            before.blobs.remove(&blob);
        }
        for (id, _) in self.layers.list()? {
            before.layers.remove(&id);
        }
        Ok(before.total())
    }

    /// Sizes on disk of all blobs and layers.
    pub(crate) fn sizes(&self) -> Result<Sizes, ImageError> {
        let mut sizes = Sizes::default();
        for blob in self.content.list()? {
            sizes
                .blobs
                .insert(blob, disk_size(&self.content.path(&blob))?);
        }
        for (id, path) in self.layers.list()? {
            *sizes.layers.entry(id).or_default() += self.layer_size(&path)?;
        }
        Ok(sizes)
    }

    fn matches(&self, image: &ImageSummary, options: &PruneOptions) -> Result<bool, ImageError> {
        if let Some(until) = options.until {
            let made = image.created.as_deref().unwrap_or(&image.added);
            let made = OffsetDateTime::parse(made, &Rfc3339).ok();
            if made.is_none_or(|made| made >= until) {
                return Ok(false);
            }
        }
        if options.labels.is_empty() && options.not_labels.is_empty() {
            return Ok(true);
        }
        let labels = match self.resolve(&image.id.to_string(), None) {
            Ok(image) => image.config.config.labels,
            Err(ImageError::NotFound(_)) => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let has = |(key, value): &(String, Option<String>)| {
            labels
                .get(key)
                .is_some_and(|own| value.as_ref().is_none_or(|value| own == value))
        };
        Ok(options.labels.iter().all(has) && !options.not_labels.iter().any(has))
    }

    /// Deletes what removals left in the trash: thousands of files that nobody need wait for.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn empty_trash(&self) -> Result<(), ImageError> {
        let trash = self.layout.trash();
        durable::empty_trash(&trash).map_err(|source| ImageError::Write {
            path: trash,
            source,
        })
    }
}
