//! `Mounts` of `inspect`, in Docker's shape.

use engine::{Container, Engine};
use serde_json::{Value, json};

/// `Mounts`, in Docker's shape.
pub(crate) fn json(engine: &Engine, container: &Container) -> Vec<Value> {
    let mounts = engine
        .container_mounts(&container.config.id)
        .unwrap_or_default();
    mounts
        .iter()
        .map(|mount| {
            let mut record = json!({
                "Type": mount.kind,
                "Source": mount.source,
                "Destination": mount.target,
                "Mode": "",
                "RW": !mount.readonly,
                "Propagation": mount.options.iter().find(|o| o.contains("private") || o.contains("slave") || o.contains("shared")),
            });
            if let Some(volume) = &mount.volume {
                record["Name"] = volume.clone().into();
                record["Driver"] = mount.driver.as_deref().unwrap_or(engine::LOCAL).into();
            }
            record
        })
        .collect()
}
