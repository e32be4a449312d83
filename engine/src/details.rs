//! What a container was created with, for those who show it.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::{Container, Engine, EngineError};

/// The records of a container beside its configuration and its state.
#[derive(Debug)]
pub struct ContainerDetails {
    /// The specification.
    pub spec: Spec,
    /// Read-only layers, uppermost first.
    pub layers: Vec<PathBuf>,
    /// A terminal of its own.
    pub terminal: bool,
    /// Standard input is open.
    pub interactive: bool,
    /// Where its records and its own layer are.
    pub dir: PathBuf,
}

impl Engine {
    /// Reads what a container was created with.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn details(&self, container: &Container) -> Result<ContainerDetails, EngineError> {
        let (spec, launch) = self.stored(&container.config.id)?;
        Ok(ContainerDetails {
            spec,
            layers: launch.layers,
            terminal: launch.terminal,
            interactive: launch.interactive,
            dir: self.layout().container(&container.config.id),
        })
    }
}
