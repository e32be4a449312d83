//! The end: how the container ended is recorded and reported, and what it had is given back.

use std::path::{Path, PathBuf};

use runtime::{Event, ExitStatus, Plan, Response, StartFailure};
use runtime_native::cgroup;
use state::{ContainerConfig, ContainerState, ExitRecord, Status, clock};

use crate::client::Client;
use crate::monitor::{Monitor, path};

/// Records and reports that the container could not be started.
pub(crate) fn give_up(
    plan: &Plan,
    state_dir: &Path,
    front_end: &mut Client,
    failure: StartFailure,
) {
    let failed = ContainerState {
        status: Status::Created,
        exit_code: Some(failure.code),
        error: Some(failure.message.clone()),
        ..ContainerState::created()
    };
    let trashed = finish_records(plan, state_dir, &failed, plan.monitor.auto_remove);
    front_end.send_last(&Response::Event(Event::Failed(failure)));
    delete(&trashed);
}

/// Records the end, or lets the container vanish. Gives back what is left to [`delete`]: nobody
/// has to wait for that.
#[must_use]
fn finish_records(
    plan: &Plan,
    state_dir: &Path,
    state: &ContainerState,
    remove: bool,
) -> Vec<PathBuf> {
    // What fails here is found by the next caller: the lock is free and the state says otherwise.
    if !remove {
        drop(state.write(state_dir));
        return Vec::new();
    }
    let claim = name_claim(plan, state_dir);
    let trash = path(&plan.monitor.trash_dir);
    let volumes = plan.monitor.own_volumes.iter().map(|volume| path(volume));
    // Another container that has taken a volume over has removed the file.
    let owned = volumes.filter(|volume| volume.join("owned").exists());
    let trashed = std::iter::once(state_dir.to_owned())
        .chain(owned)
        .filter_map(|dir| sys::durable::discard(&dir, &trash).ok().flatten())
        .collect();
    if let Some(claim) = claim {
        unclaim(&claim, &plan.monitor.id);
    }
    trashed
}

/// Removes what has no name any more; what stays is found by the next check.
fn delete(trashed: &[PathBuf]) {
    for dir in trashed {
        drop(sys::durable::remove_tree(dir));
    }
}

/// The claim of the name that the container has now.
fn name_claim(plan: &Plan, state_dir: &Path) -> Option<PathBuf> {
    let first = path(plan.monitor.name_claim.as_ref()?);
    match ContainerConfig::read(state_dir) {
        Ok(config) => Some(first.with_file_name(config.name)),
        Err(_) => Some(first),
    }
}

/// Gives a claim back, unless it is another container's by now: one whose container is gone may be
/// taken over.
fn unclaim(claim: &Path, id: &str) {
    if std::fs::read(claim).is_ok_and(|owner| owner.trim_ascii() == id.as_bytes()) {
        drop(sys::durable::remove_tree(claim));
    }
}

impl Monitor {
    /// What is recorded of a program that has ended.
    fn ended(&self, status: &ExitStatus, then: Status) -> ContainerState {
        let started = self.running.as_ref().map(|run| run.started_at.clone());
        ContainerState {
            status: then,
            exit_code: Some(status.code),
            oom_killed: status.oom_killed,
            error: status.error.clone(),
            started_at: started.or_else(|| self.last_start.clone()),
            finished_at: Some(clock::now()),
            restart_count: self.restart.count,
            stopped_by_user: self.restart.is_stopped,
            ..ContainerState::created()
        }
    }

    /// For whoever asks when the container is gone. Who asks before is told otherwise.
    fn record_exit(&self, code: u8) {
        let monitor = &self.plan.monitor;
        let name = name_claim(&self.plan, &self.state_dir);
        let name = name.as_ref().and_then(|claim| claim.file_name()?.to_str());
        let record = ExitRecord::new(&monitor.id, name.unwrap_or_default(), code);
        drop(record.write(&path(&monitor.exits_dir)));
    }

    /// Writes down that the program has ended.
    fn record_death(&mut self, status: &ExitStatus) {
        self.is_death_recorded = true;
        if status.oom_killed {
            self.record_event("oom", &[]);
        }
        let ran = self.running.as_ref().map(|run| run.since.elapsed());
        let seconds = ran.unwrap_or_default().as_secs().to_string();
        let code = status.code.to_string();
        self.record_event("die", &[("exitCode", &code), ("execDuration", &seconds)]);
        self.record_others(&self.plan.monitor.end_events);
    }

    /// Records that the program has ended and is started again soon, and gives back what this run
    /// of it had. Whoever waited for its end hears of it.
    pub(crate) fn end_run(&mut self, status: &ExitStatus) {
        self.refresh_name();
        let state = self.ended(status, Status::Restarting);
        // As in `finish_records`.
        drop(state.write(&self.state_dir));
        self.record_death(status);
        self.close_streams();
        for client in &mut self.clients {
            if client.watches {
                client.send_last(&Response::Event(Event::Exited(status.clone())));
                client.gone = true;
            }
        }
        self.clients.retain(|client| !client.gone);
        self.release_run();
    }

    /// Records the end, reports it, and clears up.
    pub(crate) fn end(&mut self, status: &ExitStatus) {
        self.refresh_name();
        let state = self.ended(status, Status::Exited);
        self.close_streams();
        // Whoever follows the log reads it to its end when it hears of the container's.
        self.log.close();
        if self.auto_remove {
            self.record_exit(status.code);
        }
        let trashed = finish_records(&self.plan, &self.state_dir, &state, self.auto_remove);
        // Before the report: whoever hears of the end may remove the container and write that down.
        // One that was to be started again has had its death recorded.
        if !self.is_death_recorded {
            self.record_death(status);
        }
        if self.is_asked {
            self.record_event("stop", &[]);
        }
        if self.auto_remove {
            self.record_event("destroy", &[]);
        }
        for client in &mut self.clients {
            if client.waits_for_end {
                client.send_last(&Response::Done);
            } else if client.watches {
                client.send_last(&Response::Event(Event::Exited(status.clone())));
            }
        }
        self.release_run();
        if self.auto_remove {
            drop(sys::durable::remove_tree(&path(&self.plan.monitor.run_dir)));
        }
        delete(&trashed);
    }

    /// The streams end before the report, so that a caller has all output when it hears of it; and
    /// the ports are free then.
    fn close_streams(&mut self) {
        for client in &mut self.clients {
            client.outputs = [None, None];
            client.input = None;
        }
        let network = self.running.as_mut().and_then(|run| run.network.as_mut());
        if let Some(network) = network {
            network.release_ports();
        }
    }

    /// Nobody waits for this; what stays is found by the next check.
    fn release_run(&mut self) {
        let Some(run) = self.running.take() else {
            return;
        };
        self.last_start = Some(run.started_at);
        drop(run.namespaces);
        if let Some(mut health) = run.health {
            health.stop();
        }
        if let Some(mut network) = run.network {
            network.release();
        }
        drop(cgroup::remove(&self.plan.init.cgroup));
    }
}
