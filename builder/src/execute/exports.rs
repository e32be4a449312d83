//! Caches of other machines: what is taken from them, and what is written for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use engine::Engine;
use image::{DiffId, Digest, ErrorKind, ImageError};

use super::{Execution, Layer, Shared, State, lock};
use crate::cache::CacheRecord;
use crate::error::BuildError;
use crate::exchange::{self, Foreign};
use crate::options::{BuildOptions, CacheMode, CachePlace};
use crate::progress::Event;

/// What the builds for all platforms used and made.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    records: BTreeMap<Digest, CacheRecord>,
    /// The layers of the images.
    layers: BTreeSet<DiffId>,
    mounts: BTreeMap<String, PathBuf>,
}

impl Exports {
    /// Writes what is wanted.
    pub(crate) fn write(&self, engine: &Engine, options: &BuildOptions) -> Result<(), BuildError> {
        for target in &options.cache_to {
            let records = match target.mode {
                CacheMode::Max => self.records.clone(),
                CacheMode::Min => of_layers(&self.records, &self.layers),
            };
            match &target.place {
                CachePlace::Directory(dir) => exchange::export(engine, dir, &records)?,
                CachePlace::Registry(reference) => {
                    exchange::send(engine, reference, &records, &options.http)?;
                }
                // It is in the images.
                CachePlace::Inline => {}
            }
        }
        if let Some(dir) = &options.cache_mounts_to {
            exchange::export_mounts(dir, &self.mounts)?;
        }
        Ok(())
    }
}

fn of_layers(
    records: &BTreeMap<Digest, CacheRecord>,
    layers: &BTreeSet<DiffId>,
) -> BTreeMap<Digest, CacheRecord> {
    let mut records = records.clone();
    records.retain(|_, record| layers.contains(&record.layer));
    records
}

/// Opens the caches that are given. One that cannot be reached now is none, and that is told.
pub(super) fn open_foreign(
    shared: &Shared<'_>,
    platform: &image::Platform,
) -> Result<Vec<Foreign>, BuildError> {
    let mut all = Vec::new();
    for source in &shared.options.cache_from {
        match Foreign::open(source, platform, &shared.options.http) {
            Ok(foreign) => all.push(foreign),
            Err(BuildError::Image(error)) if error.kind() == ErrorKind::Unavailable => {
                let text = format!("a given cache is not used: {}", chain(&error));
                shared.progress.event(&Event::Warning(&text));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn chain(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Execution<'_> {
    /// A layer of another build's cache. One that is damaged is none.
    pub(super) fn received(&self, key: &Digest) -> Option<Layer> {
        let tmp = self.shared.engine.layout().tmp();
        for foreign in &self.foreign {
            let received = foreign.get(key, &tmp).map(|found| {
                let (record, file) = found?;
                let built = self.shared.session.receive(file, record.layer)?;
                Ok::<_, BuildError>((record, Arc::new(built)))
            });
            let (record, built) = match received {
                None => continue,
                Some(Ok(received)) => received,
                Some(Err(error)) => {
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

    /// Notes what this build used and made.
    pub(crate) fn collect(&self, state: &State, exports: &mut Exports) {
        let mut used = lock(&self.used).clone();
        exports.records.append(&mut used);
        exports
            .layers
            .extend(state.own.iter().map(|layer| layer.diff_id));
        let mut mounts = lock(&self.used_mounts).clone();
        exports.mounts.append(&mut mounts);
    }

    /// What the image's layers were made from, when it is to tell.
    pub(super) fn inline_cache(&self, state: &State) -> Option<serde_json::Value> {
        let options = self.shared.options;
        let wanted = options
            .cache_to
            .iter()
            .any(|target| target.place == CachePlace::Inline);
        if !wanted {
            return None;
        }
        let layers = state.own.iter().map(|layer| layer.diff_id).collect();
        exchange::inline(&of_layers(&lock(&self.used), &layers))
    }
}
