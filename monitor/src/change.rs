//! A container that runs is changed: paused, let go on, given other limits.

use std::error::Error;

use runtime::{CgroupWrite, Response, RestartPolicy};
use runtime_native::cgroup;

use crate::monitor::Monitor;
use crate::requests::BETWEEN_RUNS;

/// An error with its causes on one line.
fn refused(error: &dyn Error) -> Response {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Response::Refused(sys::reason::without_numbers(&text))
}

impl Monitor {
    pub(crate) fn pause(&mut self) -> Response {
        self.set_paused(true)
    }

    pub(crate) fn unpause(&mut self) -> Response {
        self.set_paused(false)
    }

    /// What is asked to end goes on until then.
    pub(crate) fn wake(&mut self) {
        if self.running.as_ref().is_some_and(|run| run.is_paused) {
            // One that cannot be woken is killed when its time is over.
            let _response = self.set_paused(false);
        }
    }

    fn set_paused(&mut self, paused: bool) -> Response {
        let Some(running) = &mut self.running else {
            return Response::Refused(BETWEEN_RUNS.to_owned());
        };
        if running.is_paused == paused {
            let state = if paused { "paused" } else { "not paused" };
            return Response::Refused(format!("the container is {state}"));
        }
        let groups = &self.plan.init.cgroup;
        let done = if paused {
            cgroup::freeze(groups)
        } else {
            cgroup::thaw(groups)
        };
        if let Err(error) = done {
            return refused(&error);
        }
        running.is_paused = paused;
        if let (Some(health), Some(plan)) = (&mut running.health, &self.plan.monitor.health) {
            if paused {
                health.stop();
            } else {
                health.resume(plan);
            }
        }
        self.record_event(if paused { "pause" } else { "unpause" }, &[]);
        match self.record_running() {
            Ok(()) => Response::Done,
            Err(failure) => Response::Refused(failure.message),
        }
    }

    pub(crate) fn update(
        &mut self,
        now: &[CgroupWrite],
        later: Vec<CgroupWrite>,
        restart: Option<RestartPolicy>,
    ) -> Response {
        if self.running.is_some()
            && let Err(error) = cgroup::apply_change(now)
        {
            return refused(&error);
        }
        self.plan.init.cgroup.writes = later;
        if let Some(policy) = restart {
            self.restart.policy = policy;
        }
        Response::Done
    }
}
