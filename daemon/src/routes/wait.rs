//! `POST /containers/{id}/wait`: the answer's head is sent at once, its body when it has happened.

use std::sync::Arc;

use bytes::Bytes;
use engine::{Container, EngineError};
use serde_json::json;
use state::EventRecord;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::body;
use crate::call::{Call, Reply, streamed};
use crate::daemon::Daemon;
use crate::error::ApiError;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// That it does not run.
    NotRunning,
    /// That it ends the next time.
    NextExit,
    /// That it is removed.
    Removed,
}

impl Condition {
    fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(ApiError::bad(format!("invalid condition: \"{other}\""))),
        }
    }
}

/// Waits.
pub(crate) async fn wait(call: Call, id: &str) -> Reply {
    let condition = Condition::parse(call.query.get("condition").unwrap_or_default())?;
    let daemon = call.daemon;
    // Before the container is looked at, so that nothing comes between.
    let events = daemon.hub.subscribe();
    let name = id.to_owned();
    let container = daemon
        .run(move |engine| Ok(engine.container(&name)?))
        .await?;
    let (sender, stream) = body::channel();
    tokio::spawn(async move {
        // Who has hung up is not waited for.
        let answer = tokio::select! {
            answer = ended(&daemon, container, condition, events) => answer,
            () = sender.closed() => return,
        };
        let value = match answer {
            Ok(code) => json!({ "StatusCode": code }),
            Err(error) => json!({ "StatusCode": 125, "Error": { "Message": error.message } }),
        };
        // The last thing that is done with it.
        drop(sender.send(Bytes::from(format!("{value}\n"))).await);
    });
    streamed("application/json", stream)
}

async fn ended(
    daemon: &Arc<Daemon>,
    container: Container,
    condition: Condition,
    mut events: Receiver<Arc<EventRecord>>,
) -> Result<u8, ApiError> {
    let id = container.config.id.clone();
    let mut code = container.state.exit_code.unwrap_or(0);
    if condition == Condition::NotRunning && !container.is_running() {
        return Ok(code);
    }
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => {
                // Events were missed: the records say what has happened.
                match look(daemon, &id, condition).await? {
                    Some(code) => return Ok(code),
                    None => continue,
                }
            }
            Err(RecvError::Closed) => return Err(ApiError::internal("the daemon ends")),
        };
        if event.kind != "container" || event.actor.id != id {
            continue;
        }
        match event.action.as_str() {
            "die" => {
                let own = event.actor.attributes.get("exitCode");
                code = own.and_then(|code| code.parse().ok()).unwrap_or(code);
                if condition != Condition::Removed {
                    return Ok(code);
                }
            }
            "destroy" => return Ok(code),
            _ => {}
        }
    }
}

async fn look(
    daemon: &Arc<Daemon>,
    id: &str,
    condition: Condition,
) -> Result<Option<u8>, ApiError> {
    let id = id.to_owned();
    let found = daemon.run(move |engine| match engine.container(&id) {
        Ok(container) => {
            let code = container.state.exit_code.unwrap_or(0);
            let is_over = condition != Condition::Removed && !container.is_running();
            Ok(is_over.then_some(code))
        }
        Err(EngineError::NoSuchContainer(_)) => {
            Ok(Some(engine.removed_exit_code(&id).unwrap_or(0)))
        }
        Err(error) => Err(error.into()),
    });
    found.await
}
