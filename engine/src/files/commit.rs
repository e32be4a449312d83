//! `commit`: an image of a container's image and what the container has changed.

use image::{CommitOptions, Digest, Image, Reference, RunConfig, apply_change};
use runtime_native::cgroup::Group;
use serde_json::json;

use crate::{Container, Engine, EngineError};

/// What a committed image is to be.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// The name to give it.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// The comment in its history.
    pub message: Option<String>,
    /// Dockerfile instructions for its config.
    pub changes: Vec<String>,
    /// The container goes on meanwhile.
    pub running: bool,
    /// When it was made (RFC 3339), and the latest time of its files, in seconds since 1970.
    pub time: Option<(String, i64)>,
}

/// A container that stands still until this is dropped.
struct Still {
    /// It stood still before, or does now.
    stands: bool,
    thaw: Option<Group>,
}

impl Drop for Still {
    fn drop(&mut self) {
        if let Some(group) = &self.thaw
            && let Err(error) = group.thaw()
        {
            tracing::warn!(%error, "the container stands still");
        }
    }
}

impl Engine {
    /// Makes an image of a container. A running one stands still meanwhile, unless it shall go on;
    /// the second value says whether it could not be made to.
    ///
    /// # Errors
    /// When the container was made of a file or of a wasm artifact, or the image cannot be made.
    pub fn commit(
        &self,
        container: &Container,
        request: &CommitRequest,
    ) -> Result<(Digest, bool), EngineError> {
        let base = self.committable(container)?;
        let mut config = self.committed_config(container, &base)?;
        for change in &request.changes {
            apply_change(&mut config, change)?;
        }
        let (created, latest) = request.time.clone().unzip();
        let options = CommitOptions {
            name: request.name.clone(),
            config,
            author: request.author.clone(),
            message: request.message.clone(),
            created_by: container.config.command.join(" "),
            created,
            latest,
        };
        let wanted = container.is_running() && !request.running;
        let still = match wanted {
            true => self.stand_still(container)?,
            false => Still {
                stands: false,
                thaw: None,
            },
        };
        let went_on = wanted && !still.stands;
        let upper = self.layout.container(&container.config.id).join("upper");
        let id = self.store.commit(&base, &upper, &options)?;
        drop(still);
        let comment = request.message.as_deref().unwrap_or_default();
        let more = [("comment", comment), ("imageID", &*id.to_string())];
        self.record_container_event(&container.config, "commit", &more);
        Ok((id, went_on))
    }

    /// The image of a container to whose layers one can be added.
    fn committable(&self, container: &Container) -> Result<Image, EngineError> {
        let config = &container.config;
        let refuse = |why: &str| {
            EngineError::Unsupported(format!("cannot commit container `{}`: {why}", config.name))
        };
        if config.image_id.is_empty() {
            return Err(refuse("it was made of a file, not of an image"));
        }
        let image = self.store.resolve(&config.image_id, None)?;
        if !image.wasm_layers.is_empty() {
            return Err(refuse(
                "its image is a wasm artifact, which has no layers of files",
            ));
        }
        Ok(image)
    }

    /// How containers of the new image are run: as this one.
    fn committed_config(
        &self,
        container: &Container,
        base: &Image,
    ) -> Result<RunConfig, EngineError> {
        let details = self.details(container)?;
        let settings = &container.config.settings;
        let mut config = base.config.config.clone();
        let process = details.spec.process().as_ref();
        let env = process.and_then(|process| process.env().clone());
        // What the engine itself put there is put there again.
        let own = ["HOSTNAME=", "HOME=", "TERM="];
        let of_image = |pair: &String| config.env.contains(pair);
        config.env = env
            .unwrap_or_default()
            .into_iter()
            .filter(|pair| of_image(pair) || !own.iter().any(|key| pair.starts_with(key)))
            .collect();
        config.entrypoint.clone_from(&settings.entrypoint);
        config.cmd.clone_from(&settings.cmd);
        config.user.clone_from(&settings.user);
        config.stop_signal.clone_from(&settings.stop_signal);
        config.labels.clone_from(&container.config.labels);
        if let Some(process) = process {
            let cwd = process.cwd().to_string_lossy().into_owned();
            if cwd != "/" || !config.working_dir.is_empty() {
                config.working_dir = cwd;
            }
        }
        for port in self.container_network(container)?.exposed {
            let protocol = if port.contains('/') { "" } else { "/tcp" };
            config
                .exposed_ports
                .insert(format!("{port}{protocol}"), json!({}));
        }
        Ok(config)
    }

    /// Stops all processes of a container where they are. One without a control group goes on, and
    /// one that stands still already stays so.
    fn stand_still(&self, container: &Container) -> Result<Still, EngineError> {
        let group = self.group(container)?;
        let failed = |error| EngineError::io("pause the container")(std::io::Error::other(error));
        let still = |stands, thaw| Ok(Still { stands, thaw });
        if group.processes().map_err(failed)?.is_empty() {
            return still(false, None);
        }
        if group.is_frozen().map_err(failed)? {
            return still(true, None);
        }
        group.freeze().map_err(failed)?;
        still(true, Some(group))
    }
}
