//! Texts that clients match, in Docker's words. Everything else keeps the engine's own.

use engine::EngineError;
use image::ImageError;
use network::NetworkError;

use crate::error::chain;

/// A path that is no route.
pub(crate) const PAGE_NOT_FOUND: &str = "page not found";
/// Logs of neither stream.
pub(crate) const NO_STREAM: &str = "Bad parameters: you must choose at least one stream";
/// Anything of a swarm.
pub(crate) const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// A container that is not there.
pub(crate) fn no_such_container(name: &str) -> String {
    format!("No such container: {name}")
}

/// An image that is not there, with its tag.
pub(crate) fn no_such_image(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let is_whole = last.contains(':') || name.contains('@');
    let tag = if is_whole { "" } else { ":latest" };
    format!("No such image: {name}{tag}")
}

/// An `exec` instance that is not there.
pub(crate) fn no_such_exec(id: &str) -> String {
    format!("No such exec instance: {id}")
}

/// What the engine says.
pub(crate) fn engine(error: &EngineError) -> String {
    match error {
        EngineError::NoSuchContainer(name) => no_such_container(name),
        EngineError::NameInUse { name, id } => format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
        ),
        EngineError::BadName(name) => {
            format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        }
        EngineError::NotRunning(name) => format!("container {name} is not running"),
        EngineError::Running {
            what: "remove",
            name,
        } => format!(
            "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
        ),
        EngineError::NoSuchVolume(name) => format!("get {name}: no such volume"),
        EngineError::VolumeInUse { name, containers } => {
            format!("remove {name}: volume is in use - [{containers}]")
        }
        EngineError::NoCommand(_) => "no command specified".to_owned(),
        EngineError::NoSuchSource(path) => format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {path}"
        ),
        // The command line takes its exit code from these words.
        EngineError::Start { code: 127, message } => {
            format!("unable to start container process: {message}: no such file or directory")
        }
        EngineError::Start { code: 126, message } => {
            format!("unable to start container process: {message}: permission denied")
        }
        other => chain(other),
    }
}

/// What the images' store says.
pub(crate) fn image(error: &ImageError) -> String {
    match error {
        ImageError::NotFound(name) => no_such_image(name),
        ImageError::InUse {
            image,
            reason,
            force_helps: true,
        } => {
            format!("conflict: unable to delete {image} (must be forced) - {reason}")
        }
        ImageError::InUse { image, reason, .. } => {
            format!("conflict: unable to delete {image} (cannot be forced) - {reason}")
        }
        other => chain(other),
    }
}

/// What networks say.
pub(crate) fn network(error: &NetworkError) -> String {
    match error {
        NetworkError::NotFound(name) => format!("network {name} not found"),
        NetworkError::NameInUse(name) => format!("network with name {name} already exists"),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_image_is_named_with_its_tag() {
        assert_eq!(no_such_image("alpine"), "No such image: alpine:latest");
        assert_eq!(no_such_image("h:5/a:1"), "No such image: h:5/a:1");
        assert_eq!(no_such_image("h:5/a"), "No such image: h:5/a:latest");
    }
}
