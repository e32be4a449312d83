//! The history of an image.

use crate::document::Descriptor;
use crate::error::ImageError;
use crate::store::{Image, Store};

/// A step in the making of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryStep {
    /// When, RFC 3339.
    pub created: Option<String>,
    /// By which command.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// Bytes of its layer as it is stored; 0 for a step that made none.
    pub size: u64,
    /// The blob of its layer.
    pub layer: Option<Descriptor>,
}

impl Store {
    /// How the image came to be, the last step first. Layers that the config tells nothing about
    /// are steps too.
    ///
    /// # Errors
    /// When a layer's descriptor is malformed.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryStep>, ImageError> {
        let mut layers = image.manifest.layers().iter();
        let mut steps = Vec::new();
        for entry in &image.config.history {
            let layer = match entry.empty_layer {
                Some(true) => None,
                _ => layers.next().map(Descriptor::try_from).transpose()?,
            };
            steps.push(HistoryStep {
                created: entry.created.clone(),
                created_by: entry.created_by.clone().unwrap_or_default(),
                comment: entry.comment.clone().unwrap_or_default(),
                size: layer.as_ref().map_or(0, |layer| layer.size),
                layer,
            });
        }
        for layer in layers {
            let layer = Descriptor::try_from(layer)?;
            steps.push(HistoryStep {
                created: image.config.created.clone(),
                created_by: String::new(),
                comment: String::new(),
                size: layer.size,
                layer: Some(layer),
            });
        }
        steps.reverse();
        Ok(steps)
    }
}
