//! Exit codes and hints of the engine's errors.

use engine::EngineError;

use crate::remote::RemoteError;

/// The exit code of an error of the engine, or of another daemon.
pub(crate) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    let engine = error.downcast_ref::<EngineError>();
    let remote = error.downcast_ref::<RemoteError>();
    engine
        .map(EngineError::exit_code)
        .or(remote.map(RemoteError::exit_code))
}

/// What to do about an error of the engine or of a build.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(build) = error.downcast_ref::<builder::BuildError>() {
        return build.hint();
    }
    match error.downcast_ref::<EngineError>() {
        Some(EngineError::Image(image)) => image.hint(),
        Some(EngineError::NameInUse { name, .. }) => Some(format!(
            "remove it with `ketch rm {name}`, or choose another name"
        )),
        Some(EngineError::Running { name, .. }) => {
            Some(format!("stop it with `ketch stop {name}`, or add --force"))
        }
        Some(EngineError::NoProcesses { name, .. }) => Some(format!(
            "see what it prints with `ketch logs {name}`, or start another container of its image with `ketch run`"
        )),
        _ => None,
    }
}
