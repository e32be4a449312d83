//! The life of a container: start, stop, restart, kill, pause, rename, update, remove.

use std::sync::Arc;
use std::time::Duration;

use engine::{Changes, Container, Engine, EngineError, Force};
use http::StatusCode;
use runtime::Request;
use runtime_native::signal_number;
use serde_json::{Value, json};

use crate::attaches::Attached;
use crate::call::{Call, Reply, no_content, ok, read, status};
use crate::daemon::Daemon;
use crate::error::ApiError;
use crate::wire::host_config::{Resources, restart_policy};

/// A start takes no body; what is shorter than this is white space.
const MAX_START_BODY: u64 = 7;

/// How often a container that is to be removed is looked at.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(5);
/// How long its monitor may take.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// `POST /containers/{id}/start`.
pub(crate) async fn start(call: Call, id: &str) -> Reply {
    use http_body::Body as _;
    if call.body.size_hint().lower() > MAX_START_BODY {
        return Err(ApiError::bad(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let daemon = call.daemon.clone();
    let name = id.to_owned();
    let started = call
        .daemon
        .run(move |engine| begin(&daemon, engine, &engine.container(&name)?));
    match started.await? {
        Begun::Now => no_content(),
        Begun::Before => status(StatusCode::NOT_MODIFIED),
    }
}

/// Whether a container was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Now,
    Before,
}

/// Starts a container, and gives its streams to those who wait for them.
fn begin(daemon: &Arc<Daemon>, engine: &Engine, container: &Container) -> Result<Begun, ApiError> {
    if container.is_running() {
        return Ok(Begun::Before);
    }
    let mut waiting = daemon.attaches.take(&container.config.id).into_iter();
    let first = waiting.next();
    let started = engine
        .start(container, None, first.as_ref().map(|first| first.wanted))
        .and_then(|session| {
            session.wait_started()?;
            Ok(session)
        });
    let session = match started {
        Ok(session) => session,
        Err(error) => {
            if container.config.auto_remove {
                remove_unstarted(engine, container);
            }
            return Err(error.into());
        }
    };
    if let Some(first) = first {
        let streams = session.attached(first.wanted)?;
        // Who has hung up meanwhile gets nothing.
        drop(first.sender.send(Attached {
            session,
            streams,
            again: None,
        }));
    }
    for other in waiting {
        let attached = engine.connect(container).and_then(|session| {
            let streams = session.attach(other.wanted)?;
            session.watch()?;
            Ok(Attached {
                session,
                streams,
                again: None,
            })
        });
        match attached {
            Ok(attached) => drop(other.sender.send(attached)),
            Err(error) => tracing::debug!(%error, "a second attach found the container ended"),
        }
    }
    Ok(Begun::Now)
}

/// Removes a container that goes with its end and did not begin; its monitor has, when there was one,
/// and leaves to tell of it to who wanted the start.
fn remove_unstarted(engine: &Engine, container: &Container) {
    match engine.container(&container.config.id) {
        Ok(now) => {
            if let Err(error) = engine.remove(&now, Force::Yes) {
                tracing::warn!(%error, "a container that did not start is not removed");
            }
        }
        Err(_) => engine.record_container_event(&container.config, "destroy", &[]),
    }
}

/// The parameters of `stop` and `restart`: the signal, and the milliseconds until SIGKILL.
fn stop_parameters(call: &Call) -> Result<(Option<i32>, Option<u64>), ApiError> {
    let signal = call.query.get("signal").map(signal).transpose()?;
    let timeout_ms = match call.query.number("t") {
        // Negative: without end.
        Some(seconds) if seconds < 0 => Some(u64::MAX),
        Some(seconds) => u64::try_from(seconds).ok().map(|s| s.saturating_mul(1000)),
        None => None,
    };
    Ok((signal, timeout_ms))
}

fn signal(text: &str) -> Result<i32, ApiError> {
    signal_number(text)
        .filter(|number| *number > 0)
        .ok_or_else(|| ApiError::bad(format!("invalid signal: {text}")))
}

/// Stops a container; `false` when it did not run.
fn end(engine: &Engine, container: &Container, request: &Request) -> Result<bool, ApiError> {
    match engine
        .connect(container)
        .and_then(|session| session.ask(request))
    {
        Ok(()) => Ok(true),
        Err(error) => match engine.container(&container.config.id) {
            // Its monitor was killed, and another one has it.
            Ok(now) if now.is_running() => Ok(engine.ask(&now, request).map(|()| true)?),
            // Its monitor ended before, or meanwhile.
            _ => Ok(!matches!(error, EngineError::NotRunning(_))),
        },
    }
}

/// `POST /containers/{id}/stop`.
pub(crate) async fn stop(call: Call, id: &str) -> Reply {
    let ((signal, timeout_ms), name) = (stop_parameters(&call)?, id.to_owned());
    let request = Request::Stop { signal, timeout_ms };
    let ended = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        if !container.is_running() {
            return Ok(false);
        }
        end(engine, &container, &request)
    });
    match ended.await? {
        true => no_content(),
        false => status(StatusCode::NOT_MODIFIED),
    }
}

/// `POST /containers/{id}/restart`.
pub(crate) async fn restart(call: Call, id: &str) -> Reply {
    let ((signal, timeout_ms), name) = (stop_parameters(&call)?, id.to_owned());
    let request = Request::StopToRestart { signal, timeout_ms };
    let daemon = call.daemon.clone();
    let restarted = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        if container.is_running() {
            end(engine, &container, &request)?;
        }
        begin(&daemon, engine, &engine.container(&container.config.id)?)?;
        engine.record_container_event(&container.config, "restart", &[]);
        Ok(())
    });
    restarted.await?;
    no_content()
}

/// `POST /containers/{id}/kill`.
pub(crate) async fn kill(call: Call, id: &str) -> Reply {
    let signal = signal(call.query.get("signal").unwrap_or("SIGKILL"))?;
    let name = id.to_owned();
    let killed = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        let sent = engine.ask(&container, &Request::Signal(signal));
        match sent {
            Err(EngineError::NotRunning(name)) => {
                let id = &container.config.id;
                Err(ApiError::conflict(format!(
                    "cannot kill container: {name}: container {id} is not running"
                )))
            }
            sent => {
                sent?;
                let signal = signal.to_string();
                engine.record_container_event(&container.config, "kill", &[("signal", &signal)]);
                Ok(())
            }
        }
    });
    killed.await?;
    no_content()
}

/// `POST /containers/{id}/pause`.
pub(crate) async fn pause(call: Call, id: &str) -> Reply {
    let name = id.to_owned();
    let paused = call
        .daemon
        .run(move |engine| Ok(engine.pause(&engine.container(&name)?)?));
    paused.await?;
    no_content()
}

/// `POST /containers/{id}/unpause`.
pub(crate) async fn unpause(call: Call, id: &str) -> Reply {
    let name = id.to_owned();
    let unpaused = call
        .daemon
        .run(move |engine| Ok(engine.unpause(&engine.container(&name)?)?));
    unpaused.await?;
    no_content()
}

/// `POST /containers/{id}/rename`.
pub(crate) async fn rename(call: Call, id: &str) -> Reply {
    let new = call.query.get("name").unwrap_or_default();
    let new = new.strip_prefix('/').unwrap_or(new).to_owned();
    if new.is_empty() {
        return Err(ApiError::bad("Neither old nor new names may be empty"));
    }
    let name = id.to_owned();
    let renamed = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        engine.rename(&container, &new)?;
        let old = format!("/{}", container.config.name);
        let now = engine.container(&container.config.id)?;
        engine.record_container_event(&now.config, "rename", &[("oldName", &old)]);
        Ok(())
    });
    renamed.await?;
    no_content()
}

/// `POST /containers/{id}/update`.
pub(crate) async fn update(call: Call, id: &str) -> Reply {
    let daemon = call.daemon.clone();
    let value = call.value().await?.unwrap_or_else(|| json!({}));
    let restart = value
        .get("RestartPolicy")
        .cloned()
        .map(restart_policy)
        .transpose()?;
    let resources: Resources = read(without(value, "RestartPolicy"))?;
    let mut changes: Changes = resources.changes()?;
    changes.restart = restart;
    let name = id.to_owned();
    let updated = daemon.run(move |engine| {
        engine.update(&engine.container(&name)?, &changes)?;
        Ok(())
    });
    updated.await?;
    ok(&json!({ "Warnings": [] }))
}

fn without(mut value: Value, key: &str) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.remove(key);
    }
    value
}

/// `DELETE /containers/{id}`.
pub(crate) async fn remove(call: Call, id: &str) -> Reply {
    if call.query.is_set("link") {
        return Err(ApiError::bad(
            "links between containers are not supported by ketch",
        ));
    }
    let force = match call.query.is_set("force") {
        true => Force::Yes,
        false => Force::No,
    };
    let (volumes, name) = (call.query.is_set("v"), id.to_owned());
    let removed = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        let id = &container.config.id;
        let own = match volumes {
            true => engine.own_volumes(id),
            false => Vec::new(),
        };
        let was_running = container.is_running();
        match engine.remove(&container, force) {
            // It has ended by itself meanwhile.
            Err(EngineError::NotRunning(_)) if force == Force::Yes => {
                engine.remove(&engine.container(id)?, force)?;
            }
            removed => removed?,
        }
        if was_running {
            gone(engine, id)?;
        }
        Ok(engine.remove_own_volumes(&own)?)
    });
    removed.await?;
    no_content()
}

/// Waits until a container's records are gone: its monitor removes them.
fn gone(engine: &Engine, id: &str) -> Result<(), ApiError> {
    let begun = std::time::Instant::now();
    while engine.container(id).is_ok() {
        if begun.elapsed() > REMOVAL_TIMEOUT {
            return Err(ApiError::internal(
                "the container's monitor does not remove it",
            ));
        }
        std::thread::sleep(REMOVAL_INTERVAL);
    }
    Ok(())
}
