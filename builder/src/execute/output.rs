//! From the last state of the target to an image.

use std::collections::BTreeMap;

use image::{Descriptor, Digest, NewImage, Platform};

use super::stage::created;
use super::state::State;
use super::{Execution, lock};
use crate::error::BuildError;

/// An image that a build made, for one platform.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// What it is for.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its identifier.
    pub id: Digest,
    /// Its layers as directories, uppermost first; none for an empty image.
    pub layers: Vec<std::path::PathBuf>,
    /// Its entrypoint and command.
    pub command: Vec<String>,
    /// The images that it was made from, or with: names and manifests.
    pub materials: Vec<(String, Digest)>,
}

impl Execution<'_> {
    fn materials(&self) -> Vec<(String, Digest)> {
        let images = lock(&self.images);
        let mut materials: Vec<_> = images
            .iter()
            .filter_map(|((name, _), slot)| {
                let base = lock(slot);
                let image = &base.as_ref()?.image;
                Some((name.clone(), image.manifest_digest))
            })
            .collect();
        materials.sort();
        materials
    }

    /// Writes config and manifest.
    pub(crate) fn compose(&self, state: &State) -> Result<BuiltImage, BuildError> {
        let options = self.shared.options;
        let mut config = state.config.clone();
        config.created = Some(created(self.shared.epoch));
        config.build_cache = self.inline_cache(state);
        config.config.labels.extend(options.labels.clone());
        let annotations: BTreeMap<String, String> = options.annotations.clone();
        let new = NewImage {
            config,
            layers: state.own.iter().map(|layer| layer.diff_id).collect(),
            annotations,
            compression: options.compression,
        };
        let base = state.base.as_ref().map(|base| &base.image);
        let (manifest, id) = self.shared.session.compose(base, &new)?;
        let run = &new.config.config;
        let command = run
            .entrypoint
            .iter()
            .flatten()
            .chain(run.cmd.iter().flatten());
        Ok(BuiltImage {
            platform: new.config.platform(),
            manifest,
            id,
            layers: state.dirs(self.shared.engine)?,
            command: command.cloned().collect(),
            materials: self.materials(),
        })
    }
}
