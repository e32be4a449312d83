//! Volumes.

use std::collections::BTreeMap;

use engine::{CreateVolume, Engine, VolumeConfig};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Call, Reply, json as json_reply, no_content, ok};
use crate::error::ApiError;
use crate::filters::Filters;

const FILTERS: [&str; 5] = ["dangling", "driver", "label", "label!", "name"];
const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "all"];

/// The body of `POST /volumes/create`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct Create {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    cluster_volume_spec: Option<Value>,
}

fn record(engine: &Engine, config: &VolumeConfig) -> Value {
    json!({
        "Name": config.name,
        "Driver": engine::LOCAL,
        "Mountpoint": engine.volume_data(&config.name),
        "CreatedAt": config.created,
        "Labels": config.labels,
        "Scope": "local",
        "Options": if config.options.is_empty() { Value::Null } else { json!(config.options) },
    })
}

/// The volumes with their sizes, for `system df`.
pub(crate) fn usage(engine: &Engine) -> Result<Vec<Value>, ApiError> {
    let mut records = Vec::new();
    for config in engine.volumes()? {
        let mut value = record(engine, &config);
        value["UsageData"] = json!({
            "Size": engine.volume_size(&config.name)?,
            "RefCount": engine.volume_users(&config.name)?.len(),
        });
        records.push(value);
    }
    Ok(records)
}

/// `GET /volumes`.
pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let list = call.daemon.run(move |engine| {
        let mut records = Vec::new();
        for config in engine.volumes()? {
            let is_wanted = filters.any("driver", |driver| driver == engine::LOCAL)
                && filters.any("name", |name| config.name.contains(name))
                && filters.labels(&config.labels);
            if !is_wanted {
                continue;
            }
            if let Some(wanted) = dangling
                && engine.volume_users(&config.name)?.is_empty() != wanted
            {
                continue;
            }
            records.push(record(engine, &config));
        }
        Ok(json!({ "Volumes": records, "Warnings": null }))
    });
    ok(&list.await?)
}

/// `GET /volumes/{name}`.
pub(crate) async fn inspect(call: Call, name: &str) -> Reply {
    let name = name.to_owned();
    let found = call
        .daemon
        .run(move |engine| Ok(record(engine, &engine.volume(&name)?)));
    ok(&found.await?)
}

/// `POST /volumes/create`.
pub(crate) async fn create(call: Call) -> Reply {
    let daemon = call.daemon.clone();
    let request: Create = call.json().await?;
    if request.cluster_volume_spec.is_some() {
        return Err(ApiError::bad(
            "cannot use ClusterVolumeSpec: there are no swarms in ketch",
        ));
    }
    if !["", engine::LOCAL].contains(&request.driver.as_str()) {
        return Err(ApiError::not_found(format!(
            "error looking up volume plugin {}: plugin \"{0}\" not found",
            request.driver
        )));
    }
    let options = CreateVolume {
        name: (!request.name.is_empty()).then_some(request.name),
        labels: request.labels,
        options: request.driver_opts,
        ..CreateVolume::default()
    };
    let created = daemon.run(move |engine| {
        // As with Docker, the same volume again is no error.
        if let Some(name) = &options.name
            && let Ok(config) = engine.volume(name)
        {
            return Ok(record(engine, &config));
        }
        let config = engine.create_volume(&options)?;
        event(engine, &config.name, "create");
        Ok(record(engine, &config))
    });
    json_reply(StatusCode::CREATED, &created.await?)
}

fn event(engine: &Engine, name: &str, action: &str) {
    engine.record_event("volume", action, name, &[("driver", engine::LOCAL)]);
}

/// `DELETE /volumes/{name}`.
pub(crate) async fn remove(call: Call, name: &str) -> Reply {
    let (name, force) = (name.to_owned(), call.query.is_set("force"));
    let removed = call
        .daemon
        .run(move |engine| match engine.remove_volume(&name) {
            Ok(()) => {
                event(engine, &name, "destroy");
                Ok(())
            }
            Err(engine::EngineError::NoSuchVolume(_)) if force => Ok(()),
            Err(error) => Err(error.into()),
        });
    removed.await?;
    no_content()
}

/// `POST /volumes/prune`.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &PRUNE_FILTERS)?;
    let all = filters.flag("all")?.unwrap_or(false);
    let pruned = call.daemon.run(move |engine| {
        let (mut deleted, mut freed) = (Vec::new(), 0_u64);
        for config in engine.volumes()? {
            let is_wanted = (all || config.anonymous) && filters.labels(&config.labels);
            if !is_wanted || !engine.volume_users(&config.name)?.is_empty() {
                continue;
            }
            let size = engine.volume_size(&config.name).unwrap_or(0);
            match engine.remove_volume(&config.name) {
                Ok(()) => {
                    event(engine, &config.name, "destroy");
                    freed = freed.saturating_add(size);
                    deleted.push(config.name);
                }
                // A container has it since.
                Err(error) => tracing::debug!(%error, "a volume is not pruned"),
            }
        }
        Ok(json!({ "VolumesDeleted": deleted, "SpaceReclaimed": freed }))
    });
    ok(&pruned.await?)
}
