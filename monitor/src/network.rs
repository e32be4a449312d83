//! The container's network on the way to its start.

use ::network::{EndpointPlan, Live, NetworkError, NetworkPlan};
use runtime::{Plan, Response, StartFailure, code};
use runtime_native::{Process, StartError, Streams, launch};

/// Starts the container; its network is made while its init waits.
pub(crate) fn start(plan: &Plan) -> Result<(Process, Option<Live>), StartError> {
    let monitor = &plan.monitor;
    let streams = monitor
        .console
        .map_or(Streams::Pipes(monitor.stdin), Streams::Console);
    let mut live = None;
    let mut created = |pid| {
        if let Some(bytes) = &monitor.network {
            live = Some(make(bytes, pid).map_err(|error| failure(&error))?);
        }
        Ok(())
    };
    let started = launch(&plan.init, streams, None, &mut created);
    match (started, live) {
        (Ok(process), live) => Ok((process, live)),
        (Err(error), live) => {
            if let Some(mut live) = live {
                live.release_ports();
                live.release();
            }
            Err(error)
        }
    }
}

fn make(bytes: &[u8], pid: i32) -> Result<Live, NetworkError> {
    let netns = sys::net::namespace_of(Some(pid)).map_err(|errno| NetworkError::Kernel {
        what: "find the container's network".to_owned(),
        source: errno.into(),
    })?;
    Live::start(NetworkPlan::decode(bytes)?, netns, pid)
}

fn failure(error: &NetworkError) -> StartFailure {
    StartFailure {
        code: code::ENGINE,
        message: error.line(),
    }
}

/// Puts the running container on a further network.
pub(crate) fn join(live: Option<&mut Live>, bytes: &[u8]) -> Response {
    let Some(live) = live else {
        return Response::Refused(WITHOUT_NETWORKS.to_owned());
    };
    let joined = EndpointPlan::decode(bytes).and_then(|endpoint| live.join(endpoint));
    answer(joined)
}

/// Takes the running container off a network.
pub(crate) fn leave(live: Option<&mut Live>, id: &str) -> Response {
    match live {
        Some(live) => answer(live.leave(id)),
        None => Response::Refused(WITHOUT_NETWORKS.to_owned()),
    }
}

/// A container that was started without networks has a monitor that serves none.
const WITHOUT_NETWORKS: &str =
    "cannot change the networks of a running container that was started without any: restart it";

fn answer(done: Result<(), NetworkError>) -> Response {
    done.map_or_else(|error| Response::Refused(error.line()), |()| Response::Done)
}
