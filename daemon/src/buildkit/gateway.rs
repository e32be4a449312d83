//! `moby.buildkit.v1.frontend.LLBBridge`: a client takes part in a build that it has begun with
//! `Control/Solve`. It asks for results, and returns the one that is exported.

use std::sync::Arc;

use super::control::{blocking, run, worker};
use super::grpc::{Answer, Call, Code, Replies, Status};
use super::wire::gateway::{
    ApiCap, Nothing, PongResponse, Ref, ReturnRequest, SolveRequest, SolveResponse, SolveResult,
};
use crate::daemon::Daemon;

/// The header that names the build.
const BUILD: &str = "buildkit-controlapi-buildid";

/// What can be asked for here (`frontend/gateway/pb/caps.go`).
const GATEWAY_CAPS: [&str; 8] = [
    "solve.base",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "gateway.solve.metadata",
    "gateway.evaluate",
    "frontend.caps",
];

/// What builds can do, as far as clients look (`solver/pb/caps.go`).
const BUILD_CAPS: [&str; 10] = [
    "source.image",
    "source.local",
    "source.git",
    "source.http",
    "exec.mount.cache",
    "exec.mount.secret",
    "exec.mount.ssh",
    "file.base",
    "exporter.multiple",
    "exporter.image.annotations",
];

/// Answers a call of the service.
pub(super) async fn answer(
    daemon: &Arc<Daemon>,
    method: &str,
    call: &mut Call,
    replies: &mut Replies,
) -> Result<Answer, Status> {
    let name = call.headers.get(BUILD).and_then(|name| name.to_str().ok());
    let name = name.ok_or_else(|| Status::invalid(format!("the call has no {BUILD}")))?;
    let build = daemon.buildkit.builds.get(name).await?;
    match method {
        "Ping" => {
            let worker = blocking(daemon, |engine| Ok(worker(engine))).await?;
            Ok(Answer::of(&PongResponse {
                frontend_api_caps: caps(&GATEWAY_CAPS),
                llb_caps: caps(&BUILD_CAPS),
                workers: vec![worker],
            }))
        }
        "Solve" => {
            let request: SolveRequest = call.messages.only().await?;
            check(&request)?;
            let work = async {
                // Dropped with this call when the client takes it back.
                let mut stop = StopOnDrop(Some(&build.stop));
                let solved = run(daemon, &build, request.frontend, request.frontend_opt).await;
                stop.0 = None;
                solved
            };
            let solved = replies.unless_cancelled(work).await?;
            let metadata = solved.metadata.clone();
            let reference = match solved.built {
                Some(_) => Some(Ref {
                    id: build.keep(solved)?,
                }),
                None => None,
            };
            Ok(Answer::of(&SolveResponse {
                result: Some(SolveResult {
                    reference,
                    metadata,
                }),
            }))
        }
        "Return" => {
            let request: ReturnRequest = call.messages.only().await?;
            let returned = match request.error {
                Some(error) => Err(Status::new(Code::of(error.code), error.message)),
                None => {
                    let reference = request.result.and_then(|result| result.reference);
                    Ok(reference.map(|r| r.id).filter(|id| !id.is_empty()))
                }
            };
            build.give_back(returned)?;
            Ok(Answer::of(&Nothing {}))
        }
        // Results are complete when they are given out.
        "Evaluate" => {
            let request: Ref = call.messages.only().await?;
            build.result(&request.id)?;
            Ok(Answer::of(&Nothing {}))
        }
        other => Err(Status::unimplemented(format!(
            "{other} is not supported: there are Ping, Solve, Evaluate and Return"
        ))),
    }
}

fn caps(ids: &[&str]) -> Vec<ApiCap> {
    let cap = |id: &&str| ApiCap {
        id: (*id).to_owned(),
        enabled: true,
    };
    ids.iter().map(cap).collect()
}

fn check(request: &SolveRequest) -> Result<(), Status> {
    let has_graph = request
        .definition
        .as_ref()
        .is_some_and(|definition| !definition.def.is_empty());
    if has_graph || request.frontend.is_empty() || !request.frontend_inputs.is_empty() {
        return Err(Status::unimplemented(
            "cannot build a definition in LLB: ketch builds Dockerfiles",
        ));
    }
    Ok(())
}

/// Tells a build to end, unless it has.
struct StopOnDrop<'a>(Option<&'a super::client::Stop>);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(stop) = self.0 {
            stop.stop();
        }
    }
}
