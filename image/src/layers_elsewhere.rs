//! Where the kernel stacks no directories there is no layer store: these types have no value.

use std::convert::Infallible;
use std::io::Read;

use crate::digest::DiffId;
use crate::error::ImageError;

/// How many layers are unpacked at once.
pub(crate) const PARALLEL: usize = 2;

/// Unpacked layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerStore(Infallible);

/// A layer that is unpacked and has no name yet.
#[derive(Debug)]
pub(crate) struct StagedLayer(Infallible);

impl StagedLayer {
    /// One barrier for all its files.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        match self.0 {}
    }
}

impl LayerStore {
    /// The record of an unpacked layer.
    pub(crate) fn record(&self, _diff_id: &DiffId) -> Result<Option<Infallible>, ImageError> {
        match self.0 {}
    }

    /// Unpacks a blob.
    pub(crate) fn stage(
        &self,
        _blob: impl Read + Send,
        _expected: Option<DiffId>,
        _advance: &(dyn Fn(u64) + Sync),
    ) -> Result<StagedLayer, ImageError> {
        match self.0 {}
    }

    /// Gives a layer its name.
    pub(crate) fn publish(&self, _staged: &StagedLayer) -> Result<bool, ImageError> {
        match self.0 {}
    }

    /// Removes a layer.
    pub(crate) fn remove(&self, _diff_id: &DiffId) -> Result<(), ImageError> {
        match self.0 {}
    }
}
