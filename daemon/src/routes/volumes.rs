//! Volumes.

use std::collections::BTreeMap;

use engine::{CreateVolume, Engine, VolumeConfig};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Call, Reply, json as json_reply, no_content, ok};
use crate::error::{ApiError, chain};
use crate::filters::Filters;
use crate::scope::Scope;

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
        "Driver": config.driver,
        "Mountpoint": mountpoint(engine, config),
        "CreatedAt": config.created,
        "Labels": config.labels,
        "Scope": "local",
        "Options": if config.options.is_empty() { Value::Null } else { json!(config.options) },
    })
}

/// Where its files are; another driver's volume has a place while it is mounted only.
fn mountpoint(engine: &Engine, config: &VolumeConfig) -> String {
    if config.driver == engine::LOCAL {
        let path = engine.volume_data(&config.name);
        return path.to_string_lossy().into_owned();
    }
    let found = engine.driver_volume(config);
    found.map_or_else(|_| String::new(), |(volume, _)| volume.mountpoint)
}

/// The volumes with their sizes, for `system df`.
pub(crate) fn usage(engine: &Engine, scope: Option<&Scope>) -> Result<Vec<Value>, ApiError> {
    let mut records = Vec::new();
    for config in engine.volumes()? {
        if scope.is_some_and(|scope| !scope.sees(&config.labels)) {
            continue;
        }
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
            let is_wanted = filters.any("driver", |driver| driver == config.driver)
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
    let (daemon, scope) = (call.daemon.clone(), call.scope.clone());
    let request: Create = call.json().await?;
    if request.cluster_volume_spec.is_some() {
        return Err(ApiError::bad(
            "cannot use ClusterVolumeSpec: there are no swarms in ketch",
        ));
    }
    let mut options = CreateVolume {
        name: (!request.name.is_empty()).then_some(request.name),
        labels: request.labels,
        options: request.driver_opts,
        driver: (!request.driver.is_empty()).then_some(request.driver),
    };
    let created = daemon.run(move |engine| {
        if let Some(scope) = scope {
            scope.create_volume(engine, &mut options)?;
        }
        // As with Docker, the same volume again is no error.
        if let Some(name) = &options.name
            && let Ok(config) = engine.volume(name)
        {
            return Ok(record(engine, &config));
        }
        let config = engine.create_volume(&options)?;
        event(engine, &config, "create");
        Ok(record(engine, &config))
    });
    json_reply(StatusCode::CREATED, &created.await?)
}

fn event(engine: &Engine, config: &VolumeConfig, action: &str) {
    let attributes = [("driver", config.driver.as_str())];
    engine.record_event("volume", action, &config.name, &attributes);
}

/// `DELETE /volumes/{name}`.
pub(crate) async fn remove(call: Call, name: &str) -> Reply {
    let (name, force) = (name.to_owned(), call.query.is_set("force"));
    let removed = call.daemon.run(move |engine| {
        let config = match engine.volume(&name) {
            Err(engine::EngineError::NoSuchVolume(_)) if force => return Ok(()),
            found => found?,
        };
        match engine.remove_volume(&name) {
            // What its driver says of it does not matter any more.
            Err(error) if force && config.driver != engine::LOCAL => {
                tracing::warn!(
                    error = chain(&error),
                    volume = name,
                    "a volume is forgotten"
                );
                engine.forget_volume(&name)?;
            }
            removed => removed?,
        }
        event(engine, &config, "destroy");
        Ok(())
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
                    event(engine, &config, "destroy");
                    freed = freed.saturating_add(size);
                    deleted.push(config.name.clone());
                }
                // A container has it since.
                Err(error) => tracing::debug!(%error, "a volume is not pruned"),
            }
        }
        Ok(json!({ "VolumesDeleted": deleted, "SpaceReclaimed": freed }))
    });
    ok(&pruned.await?)
}
