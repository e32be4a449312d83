//! Caches of other machines: what is taken from them, and what is written for them.

use std::sync::Arc;

use image::Digest;

use super::{Execution, Layer, lock};
use crate::error::BuildError;
use crate::exchange;

impl Execution<'_> {
    /// A layer of another build's cache. One that is damaged is none.
    pub(super) fn received(&self, key: &Digest) -> Option<Layer> {
        for foreign in &self.foreign {
            let Some((record, file)) = foreign.get(key) else {
                continue;
            };
            let built = match self.shared.session.receive(file, record.layer) {
                Ok(built) => Arc::new(built),
                Err(error) => {
                    self.warn(&format!(
                        "a layer of the given cache cannot be used: {error}"
                    ));
                    continue;
                }
            };
            let layer = Layer {
                diff_id: built.diff_id(),
                size: built.size(),
                held: Some(Arc::clone(&built)),
            };
            lock(&self.used).insert(*key, record.clone());
            let mut fresh = lock(&self.fresh);
            fresh.layers.push(built);
            fresh.records.push((*key, record));
            fresh.by_key.insert(*key, layer.clone());
            return Some(layer);
        }
        None
    }

    /// Writes what this build used and made, as far as that is wanted.
    pub(crate) fn export_cache(&self) -> Result<(), BuildError> {
        let options = self.shared.options;
        if let Some(dir) = &options.cache_to {
            exchange::export(self.shared.engine, dir, &lock(&self.used))?;
        }
        if let Some(dir) = &options.cache_mounts_to {
            exchange::export_mounts(dir, &lock(&self.used_mounts))?;
        }
        Ok(())
    }
}
