//! BuildKit's protocols, for clients that build with it: `docker build` with buildx, and compose. The
//! builds themselves are the builder's; here is how they are asked for.
//!
//! ```text
//! POST /grpc     the client calls          POST /session   the daemon calls
//!   control        builds, records           session         the list of sessions
//!   gateway        the client's part         client          what a build asks for
//!   tunnel         a session in a call       receive, send   trees of files
//!                                            agent           SSH agents
//! frontend  options of the Dockerfile frontend     inputs  contexts and Dockerfiles
//! solve     a build, on a thread that blocks       export  where its result goes
//! builds    those that run, and the last ones      board   what they tell
//! classic   the same before buildx: POST /build?version=2
//! grpc      calls and messages over HTTP/2         wire    what messages look like
//! ```
//!
//! A build has three calls at once: `Control/Solve` waits for its end, `Control/Status` hears of its
//! steps, and `LLBBridge/Solve` runs the frontend; `LLBBridge/Return` says which result the first one
//! exports.

mod agent;
mod board;
mod builds;
pub(crate) mod classic;
mod client;
mod control;
mod export;
mod frontend;
mod gateway;
mod grpc;
mod inputs;
mod receive;
mod send;
mod session;
mod solve;
mod tunnel;
mod wire;

use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prost::Message;

use crate::body;
use crate::call::{Call, Reply};
use crate::daemon::Daemon;
use crate::error::ApiError;

pub(crate) use control::BuildKit;
use grpc::{Answer, Replies, Status};
use session::Introduction;

/// HTTP/2 without encryption, as requests name it.
const H2C: &str = "h2c";

/// `POST /grpc`.
pub(crate) fn grpc(mut call: Call) -> Reply {
    let upgrade = upgrade(&mut call)?;
    let daemon = Arc::clone(&call.daemon);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else {
            return;
        };
        let served = grpc::serve(TokioIo::new(upgraded), move |call, replies| {
            answer(Arc::clone(&daemon), call, replies)
        });
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection of BuildKit's protocol has been cut off");
        }
    });
    switching()
}

/// `POST /session`.
pub(crate) fn session(mut call: Call) -> Reply {
    let introduction = Introduction::read(&call.headers).map_err(ApiError::bad)?;
    call.daemon
        .buildkit
        .sessions
        .check(&introduction)
        .map_err(ApiError::conflict)?;
    let upgrade = upgrade(&mut call)?;
    let daemon = Arc::clone(&call.daemon);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let sessions = &daemon.buildkit.sessions;
            sessions.keep(introduction, TokioIo::new(upgraded)).await;
        }
    });
    switching()
}

fn upgrade(call: &mut Call) -> Result<OnUpgrade, ApiError> {
    match call.header("upgrade") {
        None => return Err(ApiError::bad("no upgrade proto in request")),
        Some(H2C) => {}
        Some(other) => {
            return Err(ApiError::bad(format!("protocol {other} not supported")));
        }
    }
    call.upgrade
        .take()
        .ok_or_else(|| ApiError::bad("the connection cannot be upgraded"))
}

fn switching() -> Reply {
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(H2C));
    Ok(response)
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Health {
    /// 1 means serving.
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn answer(
    daemon: Arc<Daemon>,
    mut call: grpc::Call,
    mut replies: Replies,
) -> (Replies, Result<Answer, Status>) {
    let path = call.path.clone();
    let (service, method) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_default();
    let result = match service {
        "moby.buildkit.v1.Control" => {
            control::answer(&daemon, method, &mut call, &mut replies).await
        }
        "moby.buildkit.v1.frontend.LLBBridge" => {
            gateway::answer(&daemon, method, &mut call, &mut replies).await
        }
        "grpc.health.v1.Health" if method == "Check" => Ok(Answer::of(&Health { status: 1 })),
        // Clients that trace themselves send their traces along; nobody here keeps them.
        "opentelemetry.proto.collector.trace.v1.TraceService" => {
            Ok(Answer::of(&wire::gateway::Nothing {}))
        }
        _ => Err(Status::unimplemented(format!("unknown service {path}"))),
    };
    match &result {
        Ok(_) => tracing::info!(path, "call"),
        Err(error) => tracing::info!(path, code = error.code.number(), %error, "call"),
    }
    (replies, result)
}
