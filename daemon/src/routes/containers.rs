//! Containers: list, inspect, logs, top, prune.

use engine::{Container, Engine, ListOptions};
use serde_json::{Value, json};

use crate::body::{self, BodyWriter};
use crate::call::{Call, Reply, ok, streamed};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::routes::images::bound_time;
use crate::scope::Scope;
use crate::streams::{Framing, LogQuery, write_log};
use crate::version::ApiVersion;
use crate::wire::{container as wire, times};

const FILTERS: [&str; 15] = [
    "id", "name", "label", "label!", "status", "exited", "ancestor", "before", "since", "volume",
    "network", "publish", "expose", "health", "is-task",
];
const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "until"];

/// `GET /containers/json`.
pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &FILTERS)?;
    let limit = call.query.number("limit").filter(|limit| *limit > 0);
    let (size, version) = (call.query.is_set("size"), call.version);
    let base = ListOptions {
        all: call.query.is_set("all"),
        last: limit.and_then(|limit| usize::try_from(limit).ok()),
        ..ListOptions::default()
    };
    let list = call.daemon.run(move |engine| {
        // What the engine's own filters do not know is looked at here.
        let not: Vec<String> = filters.values("label!").to_vec();
        let texts = filters.texts();
        let texts: Vec<String> = texts
            .into_iter()
            .filter(|t| !t.starts_with("label!="))
            .collect();
        let options = base.filtered(&texts)?;
        let mut records = Vec::new();
        for container in engine.list(&options)? {
            let labels = &container.config.labels;
            let has = |wanted: &String| match wanted.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
                None => labels.contains_key(wanted),
            };
            if !not.iter().any(has) {
                records.extend(present(summary(engine, &container, version, size))?);
            }
        }
        Ok(records)
    });
    ok(&list.await?)
}

fn summary(
    engine: &Engine,
    container: &Container,
    version: ApiVersion,
    size: bool,
) -> Result<Value, ApiError> {
    let mut record = wire::summary(engine, container, version)?;
    if size {
        let size = engine.size(container)?;
        record["SizeRw"] = json!(size.own);
        record["SizeRootFs"] = json!(size.all);
    }
    Ok(record)
}

/// A container that has gone meanwhile is left out.
fn present(record: Result<Value, ApiError>) -> Result<Option<Value>, ApiError> {
    match record {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            tracing::debug!(error = error.message, "a container is left out of a list");
            Ok(None)
        }
    }
}

/// The containers with their sizes, for `system df`.
pub(crate) fn usage(
    engine: &Engine,
    version: ApiVersion,
    scope: Option<&Scope>,
) -> Result<Vec<Value>, ApiError> {
    let mut records = Vec::new();
    for container in engine.containers()? {
        if scope.is_some_and(|scope| !scope.sees(&container.config.labels)) {
            continue;
        }
        records.extend(present(summary(engine, &container, version, true))?);
    }
    Ok(records)
}

/// `GET /containers/{id}/json`.
pub(crate) async fn inspect(call: Call, id: &str) -> Reply {
    let (name, version, size) = (id.to_owned(), call.version, call.query.is_set("size"));
    let execs = call.daemon.execs.clone();
    let record = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        let mut record = wire::inspect(engine, &container, version)?;
        let running = execs.of(&container.config.id);
        record["ExecIDs"] = match running.is_empty() {
            true => Value::Null,
            false => json!(running),
        };
        if size {
            let size = engine.size(&container)?;
            record["SizeRw"] = json!(size.own);
            record["SizeRootFs"] = json!(size.all);
        }
        Ok(record)
    });
    ok(&record.await?)
}

/// `GET /containers/{id}/logs`.
pub(crate) async fn logs(call: Call, id: &str) -> Reply {
    let query = LogQuery::read(&call.query)?;
    let name = id.to_owned();
    let found = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        let streams = engine.streams_of(&container)?;
        // Asked here, so that the answer has a status.
        drop(engine.log(&container)?);
        Ok((container, Framing::of(streams.terminal)))
    });
    let (container, framing) = found.await?;
    let kind = framing.kind(call.version);
    let (sender, stream) = body::channel();
    call.daemon.follow(move |engine| {
        let mut writer = BodyWriter::new(sender);
        // A broken pipe is a client that has seen enough.
        if let Err(error) = write_log(engine, &container, &query, framing, &mut writer) {
            tracing::debug!(%error, "a log was not read to its end");
        }
    })?;
    streamed(kind, stream)
}

/// `GET /containers/{id}/top`.
pub(crate) async fn top(call: Call, id: &str) -> Reply {
    let name = id.to_owned();
    let options = call.query.get("ps_args").unwrap_or("-ef").to_owned();
    let rows = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        let pids = engine.processes(&container)?;
        crate::wire::processes::table(&pids, &options)
    });
    ok(&rows.await?)
}

/// `POST /containers/prune`.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &PRUNE_FILTERS)?;
    let until = filters.values("until").first();
    let until = until.map(|text| bound_time(text)).transpose()?;
    let pruned = call.daemon.run(move |engine| {
        let (mut deleted, mut freed) = (Vec::new(), 0_u64);
        for container in engine.containers()? {
            let config = &container.config;
            let is_old =
                until.is_none_or(|until| times::seconds(&config.created) < until.unix_timestamp());
            if container.is_running() || !is_old || !filters.labels(&config.labels) {
                continue;
            }
            let size = engine.size(&container).map_or(0, |size| size.own);
            match engine.remove(&container, engine::Force::No) {
                Ok(()) => {
                    deleted.push(config.id.clone());
                    freed = freed.saturating_add(size);
                }
                // Started or removed meanwhile.
                Err(error) => tracing::debug!(%error, "a container is not pruned"),
            }
        }
        engine.record_event(
            "container",
            "prune",
            "",
            &[("reclaimed", &freed.to_string())],
        );
        Ok(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": freed }))
    });
    ok(&pruned.await?)
}
