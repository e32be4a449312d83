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
        let id = &container.config.id;
        let launch = self.launch_of(id)?;
        Ok(ContainerDetails {
            spec: self.spec_of(id)?,
            layers: launch.layers,
            terminal: launch.terminal,
            interactive: launch.interactive,
            dir: self.layout().container(id),
        })
    }

    /// The same for whoever looks into its image's layers.
    pub(crate) fn details_with_layers(
        &self,
        container: &Container,
    ) -> Result<ContainerDetails, EngineError> {
        let details = self.details(container)?;
        // It may have been created before the last boot.
        self.store.attach_layers(&details.layers)?;
        Ok(details)
    }
}
