//! When a container is probed, and what follows.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::{HealthPlan, Plan, ProbePlan};
use rustix::event::PollFlags;
use state::{HealthState, HealthStatus, MAX_PROBE_OUTPUT, ProbeResult, clock, nanoseconds_now};

use super::Outcome;
use super::http::HttpProbe;
use super::program::{self, ProgramProbe};

/// The health of one run of a container.
#[derive(Debug)]
pub(crate) struct Health {
    state: HealthState,
    since: Instant,
    next: Instant,
    probe: Option<Probe>,
    /// How many were begun.
    begun: u64,
}

/// A probe that runs, or that is being killed.
#[derive(Debug)]
struct Probe {
    kind: Kind,
    start: String,
    /// `None` once it has taken too long.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Kind {
    Program(ProgramProbe),
    Http(HttpProbe),
}

impl Health {
    /// That of a container that has just been started.
    pub(crate) fn new(plan: &HealthPlan, state_dir: &Path) -> Self {
        let state = HealthState::starting();
        // Shown wrongly at worst until the first probe.
        drop(state.write(state_dir));
        let mut health = Self {
            state,
            since: Instant::now(),
            next: Instant::now(),
            probe: None,
            begun: 0,
        };
        health.next += health.pause(plan);
        health
    }

    /// That of a container whose earlier monitor was killed: what is known of it holds. A probe that
    /// was running is nobody's any more.
    pub(crate) fn resumed(
        plan: &HealthPlan,
        container: &Plan,
        state_dir: &Path,
        since: Instant,
    ) -> Self {
        program::kill_earlier(&container.init.cgroup);
        let state = HealthState::read(state_dir).unwrap_or_else(|_| HealthState::starting());
        let mut health = Self {
            state,
            since,
            next: Instant::now(),
            probe: None,
            // No number that the earlier monitor has come to.
            begun: u64::try_from(nanoseconds_now()).unwrap_or(0),
        };
        health.next += health.pause(plan);
        health
    }

    /// Failures do not count yet.
    fn is_starting(&self, plan: &HealthPlan) -> bool {
        self.state.status == HealthStatus::Starting
            && self.since.elapsed() < Duration::from_millis(plan.start_period_ms)
    }

    fn pause(&self, plan: &HealthPlan) -> Duration {
        Duration::from_millis(if self.is_starting(plan) {
            plan.start_interval_ms
        } else {
            plan.interval_ms
        })
    }

    /// When [`Health::turn`] wants to be called at the latest.
    pub(crate) fn timer(&self) -> Option<Instant> {
        match &self.probe {
            Some(probe) => probe.deadline,
            None => Some(self.next),
        }
    }

    /// What [`Health::turn`] waits for.
    pub(crate) fn descriptors(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match self.probe.as_ref().map(|probe| &probe.kind) {
            Some(Kind::Program(probe)) => probe.descriptors(),
            Some(Kind::Http(probe)) => vec![probe.descriptor()],
            None => Vec::new(),
        }
    }

    /// Goes on with a probe, or begins one; the new status when it has changed.
    pub(crate) fn turn(
        &mut self,
        plan: &HealthPlan,
        container: &Plan,
        pid: i32,
        state_dir: &Path,
    ) -> Option<HealthStatus> {
        let outcome = match &mut self.probe {
            None if Instant::now() < self.next => return None,
            None => self.begin(plan, container, pid)?,
            Some(probe) => {
                let ended = match &mut probe.kind {
                    Kind::Program(probe) => probe.turn(),
                    Kind::Http(probe) => probe.turn(),
                };
                match ended {
                    Some(_) if probe.deadline.is_none() => {
                        // Its result was recorded when it had taken too long.
                        self.probe = None;
                        return None;
                    }
                    Some(outcome) => outcome,
                    None => probe.give_up(plan)?,
                }
            }
        };
        let start = self.probe.as_ref().map(|probe| probe.start.clone());
        self.probe.take_if(|probe| probe.deadline.is_some());
        let result = ProbeResult {
            start: start.unwrap_or_else(clock::now),
            end: clock::now(),
            exit_code: outcome.exit_code,
            output: text(&outcome.output),
        };
        let counts = !self.is_starting(plan);
        let changed = self.state.add(result, counts, plan.retries);
        // As in `new`.
        drop(self.state.write(state_dir));
        self.next = Instant::now() + self.pause(plan);
        changed.then_some(self.state.status)
    }

    /// Begins a probe; its outcome when that fails.
    fn begin(&mut self, plan: &HealthPlan, container: &Plan, pid: i32) -> Option<Outcome> {
        self.begun += 1;
        let kind = match &plan.probe {
            ProbePlan::Program(process) => {
                ProgramProbe::start(process, container, pid, self.begun).map(Kind::Program)
            }
            ProbePlan::Http { port, target } => {
                let probe = HttpProbe::start(pid, *port, target);
                probe.map(Kind::Http).map_err(io::Error::from)
            }
        };
        match kind {
            Ok(kind) => {
                self.probe = Some(Probe {
                    kind,
                    start: clock::now(),
                    deadline: Some(Instant::now() + Duration::from_millis(plan.timeout_ms)),
                });
                None
            }
            Err(error) => Some(Outcome::failed(&format!("cannot start the probe: {error}"))),
        }
    }

    /// The container stands still, or has ended: no probe is due, and one that runs is killed.
    pub(crate) fn stop(&mut self) {
        if let Some(Probe {
            kind: Kind::Program(probe),
            ..
        }) = &mut self.probe
        {
            probe.kill();
        }
        self.probe = None;
    }

    /// The container goes on: the next probe is due after a whole interval.
    pub(crate) fn resume(&mut self, plan: &HealthPlan) {
        self.next = Instant::now() + self.pause(plan);
    }
}

impl Probe {
    /// Kills it when it has taken too long; its outcome then.
    fn give_up(&mut self, plan: &HealthPlan) -> Option<Outcome> {
        self.deadline.filter(|at| Instant::now() >= *at)?;
        let output = match &mut self.kind {
            Kind::Program(probe) => {
                self.deadline = None;
                probe.kill();
                probe.output()
            }
            Kind::Http(_) => Vec::new(),
        };
        let mut text = format!("the probe took longer than {} ms", plan.timeout_ms).into_bytes();
        if !output.is_empty() {
            text.extend_from_slice(b": ");
            text.extend_from_slice(&output);
        }
        Some(Outcome {
            exit_code: -1,
            output: text,
        })
    }
}

/// What is shown of an output.
fn text(output: &[u8]) -> String {
    let cut = output.get(..MAX_PROBE_OUTPUT).unwrap_or(output);
    String::from_utf8_lossy(cut).into_owned()
}
