//! Removing images, and what is no longer needed by any other.

use std::collections::BTreeSet;

use crate::digest::{DiffId, Digest};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::graph::{Reachable, candidates};
use crate::lease::Lease;
use crate::names::NameRecord;
use crate::records::ImageRecord;
use crate::reference::Reference;
use crate::store::{Store, Target};

/// Whether an image goes although something needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It does not.
    No,
    /// Its names go; its data stays as long as a container uses it.
    Yes,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// An image and what only it needed is gone.
    Deleted(Digest),
}

impl Store {
    /// Removes a name, and the images that no other name leads to; or, given the beginning of an
    /// identifier, an image with its names. Blobs and layers that no other image has go with it.
    ///
    /// `in_use` says for an image which container needs it, if any.
    ///
    /// # Errors
    /// [`ImageError::InUse`] when a container needs the image, or when an identifier was given and
    /// the image has several names, unless `force` is given.
    pub fn remove(
        &self,
        text: &str,
        force: Force,
        in_use: &dyn Fn(&Digest) -> Option<String>,
    ) -> Result<Vec<Removed>, ImageError> {
        let _lock = self.lock()?;
        let (id, removed) = match self.target(text)? {
            Target::Name(record) => {
                let id = self.ids_below(&record.descriptor)?.pop_first();
                (id, self.remove_name(text, &record, force, in_use)?)
            }
            Target::Id(record) => {
                let removed = self.remove_image(text, &record, force, in_use)?;
                (Some(record.id), removed)
            }
        };
        self.record_removed(&removed, &id.map_or_else(String::new, |id| id.to_string()));
        Ok(removed)
    }

    fn remove_name(
        &self,
        text: &str,
        record: &NameRecord,
        force: Force,
        in_use: &dyn Fn(&Digest) -> Option<String>,
    ) -> Result<Vec<Removed>, ImageError> {
        let led_to = self.ids_below(&record.descriptor)?;
        let mut kept = BTreeSet::new();
        for other in self.names.list()? {
            if other.name != record.name {
                kept.extend(self.ids_below(&other.descriptor)?);
            }
        }
        let mut doomed: Vec<_> = led_to.difference(&kept).copied().collect();
        doomed = unused(text, doomed, force, in_use)?;
        self.names.remove(&record.name)?;
        let mut removed = vec![Removed::Untagged(record.name.clone())];
        removed.extend(self.delete(&doomed, std::slice::from_ref(&record.descriptor))?);
        Ok(removed)
    }

    fn remove_image(
        &self,
        text: &str,
        record: &ImageRecord,
        force: Force,
        in_use: &dyn Fn(&Digest) -> Option<String>,
    ) -> Result<Vec<Removed>, ImageError> {
        let mut names = Vec::new();
        let mut count = 0;
        for name in self.names.list()? {
            let led_to = self.ids_below(&name.descriptor)?;
            if led_to.contains(&record.id) {
                count += 1;
                // A name that leads to images for other platforms too is theirs as well.
                if led_to.len() == 1 {
                    names.push(name);
                }
            }
        }
        if count > 1 && force == Force::No {
            return Err(ImageError::InUse {
                image: text.to_owned(),
                reason: format!("it has {count} names"),
                force_helps: true,
            });
        }
        let doomed = unused(text, vec![record.id], force, in_use)?;
        let mut removed = Vec::new();
        let mut tops = Vec::new();
        for name in names {
            self.names.remove(&name.name)?;
            tops.push(name.descriptor);
            removed.push(Removed::Untagged(name.name));
        }
        removed.extend(self.delete(&doomed, &tops)?);
        Ok(removed)
    }

    fn ids_below(&self, top: &Descriptor) -> Result<BTreeSet<Digest>, ImageError> {
        let found = candidates(&self.content, top)?;
        Ok(found.into_iter().map(|candidate| candidate.id).collect())
    }

    /// Deletes images, and of what they and `tops` lead to everything that nothing else leads to.
    fn delete(&self, ids: &[Digest], tops: &[Descriptor]) -> Result<Vec<Removed>, ImageError> {
        let mut candidates = Reachable::default();
        for top in tops {
            candidates.add(&self.content, top);
        }
        let mut removed = Vec::new();
        for id in ids {
            if let Some(record) = self.records.get(id)? {
                candidates.add(&self.content, &record.manifest);
            }
            self.records.remove(id)?;
            removed.push(Removed::Deleted(*id));
        }
        self.sweep_without(&candidates, ids)?;
        Ok(removed)
    }

    /// Removes those of `candidates` that no name, no image and no lease needs. The caller holds
    /// the images lock. Gives what it removed.
    pub(crate) fn sweep(&self, candidates: &Reachable) -> Result<Reachable, ImageError> {
        self.sweep_without(candidates, &[])
    }

    /// As [`Self::sweep`]; of an index that leads to images in `gone` only the others count.
    fn sweep_without(
        &self,
        candidates: &Reachable,
        gone: &[Digest],
    ) -> Result<Reachable, ImageError> {
        let live = self.live_without(gone)?;
        let leased = self.leased()?;
        let mut removed = Reachable::default();
        if let Some(layers) = self.layer_store() {
            for layer in candidates.layers.difference(&live.layers) {
                if !leased.contains(&layer.0) {
                    layers.remove(layer)?;
                    removed.layers.insert(*layer);
                }
            }
        }
        for blob in candidates.blobs.difference(&live.blobs) {
            if !leased.contains(blob) {
                self.content.remove(blob)?;
                removed.blobs.insert(*blob);
            }
        }
        Ok(removed)
    }

    /// What names and images lead to.
    pub(crate) fn live(&self) -> Result<Reachable, ImageError> {
        self.live_without(&[])
    }

    fn live_without(&self, gone: &[Digest]) -> Result<Reachable, ImageError> {
        let names = self.names.list()?;
        let mut except = BTreeSet::new();
        for name in names.iter().filter(|_| !gone.is_empty()) {
            let below = candidates(&self.content, &name.descriptor)?;
            let below = below.iter().filter(|image| gone.contains(&image.id));
            except.extend(below.map(|image| image.descriptor.digest));
        }
        let mut live = Reachable::default();
        for name in &names {
            live.add_except(&self.content, &name.descriptor, &except);
        }
        for record in self.records.list()? {
            live.add(&self.content, &record.manifest);
        }
        #[cfg(target_os = "linux")]
        live.layers.extend(self.pinned()?);
        Ok(live)
    }

    /// Ends a lease and removes what nothing but it needed.
    pub(crate) fn discard_leased(&self, lease: Lease) -> Result<(), ImageError> {
        let digests = lease.digests()?;
        drop(lease);
        let candidates = Reachable {
            layers: digests.iter().copied().map(DiffId).collect(),
            blobs: digests,
        };
        let _lock = self.lock()?;
        let removed = self.sweep(&candidates)?;
        for digest in &removed.blobs {
            self.content.remove_partial_of(digest)?;
        }
        Ok(())
    }
}

/// Of `ids`, those that no container needs; an error when one is needed and force is not given.
fn unused(
    text: &str,
    ids: Vec<Digest>,
    force: Force,
    in_use: &dyn Fn(&Digest) -> Option<String>,
) -> Result<Vec<Digest>, ImageError> {
    let mut free = Vec::new();
    for id in ids {
        match in_use(&id) {
            None => free.push(id),
            Some(_) if force == Force::Yes => {}
            Some(container) => {
                return Err(ImageError::InUse {
                    image: text.to_owned(),
                    reason: format!("container `{container}` uses it"),
                    force_helps: true,
                });
            }
        }
    }
    Ok(free)
}
