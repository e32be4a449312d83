//! A container whose monitor was killed goes on under this one. Its program is no child of this
//! process; the kernel tells of its end all the same.
//!
//! ```text
//! state.json: running ── all of it is found ────────────── as after a start
//!                     ├─ the program has ended ──────────── its end, as far as the kernel tells
//!                     └─ something is lost with the monitor ── killed, and recorded with the reason
//!         restarting ── pause ── started
//! ```
//!
//! Lost with a monitor are terminals, standard input that no caller held, and addresses and ports that
//! somebody else has taken meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ::network::{Live, NetworkPlan};
use runtime::{Event, ExitStatus, Plan};
use runtime_native::cgroup;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use state::{ContainerState, Pipes, Status, clock, nanoseconds_now};

use crate::health::Health;
use crate::log::Partial;
use crate::monitor::{Monitor, Role, open};
use crate::output::Stream;
use crate::pipes;
use crate::reap::reap_foreign;
use crate::restart::FIRST_PAUSE;
use crate::running::{Parent, Running, SIGKILL};
use crate::volumes;

/// Why a container with a terminal does not go on.
const NO_TERMINAL: &str =
    "the container was killed, because its monitor was gone, and with it its terminal";

/// What is recorded of a program that ended while nobody looked.
const NOT_KNOWN: &str = "the container's monitor is gone, and with it how the container ended";

/// A program of an earlier monitor, which may have ended.
struct Found {
    pid: i32,
    pidfd: OwnedFd,
    start_time: u64,
}

/// Takes the container over, and runs it to its end.
pub(crate) fn run(plan: Plan, report: &OwnedFd) -> Result<(), String> {
    let (mut monitor, front_end, lock) = open(plan, report, Role::Rescue)?;
    let state = ContainerState::read(&monitor.state_dir)
        .map_err(|error| format!("cannot read the container's state: {error}"))?;
    if !state.status.is_owned() {
        return Err("the container has ended".to_owned());
    }
    // From here on it is this process's to give back what the container has.
    let volumes = monitor.plan.monitor.volumes.clone();
    volumes::around(volumes.as_deref(), || {
        monitor.clients.push(front_end);
        let status = monitor.go_on(&state);
        monitor.end(&status);
    });
    drop(lock);
    Ok(())
}

impl Monitor {
    /// Tells the front end that the container has an owner.
    fn announce(&mut self, pid: i32) {
        for client in &mut self.clients {
            client.send_event(&Event::Started { pid });
        }
    }

    /// Goes on where the earlier monitor was, to the container's end; how that was.
    fn go_on(&mut self, state: &ContainerState) -> ExitStatus {
        self.restart.count = state.restart_count;
        self.last_start.clone_from(&state.started_at);
        let first = match state.status {
            Status::Restarting => {
                self.is_death_recorded = true;
                self.announce(0);
                self.run_again(FIRST_PAUSE)
            }
            _ => Some(self.take_over(state)),
        };
        match first {
            Some(status) => self.live(status),
            // Somebody has asked it to end before it was started again.
            None => ExitStatus {
                code: state.exit_code.unwrap_or(0),
                signal: None,
                oom_killed: state.oom_killed,
                error: state.error.clone(),
            },
        }
    }

    /// Goes on with the program until it ends; how it did.
    fn take_over(&mut self, state: &ContainerState) -> ExitStatus {
        let Some(found) = find(state) else {
            self.clear_left();
            return unknown();
        };
        match self.adopt(state, &found) {
            Ok(running) => {
                self.running = Some(running);
                self.announce(found.pid);
                self.record_event("rescue", &[]);
                self.settle();
                self.serve()
            }
            Err(reason) => self.put_down(&found, reason),
        }
    }

    /// Everything that the earlier monitor had of the program, had again.
    fn adopt(&self, state: &ContainerState, found: &Found) -> Result<Running, String> {
        let monitor = &self.plan.monitor;
        if monitor.console.is_some() {
            return Err(NO_TERMINAL.to_owned());
        }
        let lost = |why: String| {
            format!(
                "the container was killed, because its monitor was gone and no other could take over: {why}"
            )
        };
        let pipes = state
            .pipes
            .ok_or_else(|| lost("its pipes are not recorded".to_owned()))?;
        let mut pids = vec![found.pid];
        pids.extend(cgroup::processes(&self.plan.init.cgroup).unwrap_or_default());
        let (streams, guest_report) = reopen(pipes, &pids)
            .map_err(|error| lost(format!("cannot open its pipes again: {error}")))?;
        let since = since(state.started_at.as_deref());
        let health = monitor.health.as_ref();
        let health = health.map(|plan| Health::resumed(plan, &self.plan, &self.state_dir, since));
        let pidfd = found.pidfd.try_clone();
        let pidfd = pidfd.map_err(|error| lost(format!("cannot keep its process: {error}")))?;
        Ok(Running {
            pid: found.pid,
            parent: Parent::Reaper {
                start_time: found.start_time,
            },
            namespaces: sys::process::namespaces(pidfd.as_fd()),
            pidfd,
            guest_report,
            pipes: Some(pipes),
            streams,
            stdin: None,
            is_terminal: false,
            is_paused: state.status == Status::Paused,
            health,
            // The last, for what it has would have to be given back.
            network: self.network_again(found.pid).map_err(lost)?,
            started_at: state.started_at.clone().unwrap_or_else(clock::now),
            since,
        })
    }

    fn network_again(&self, pid: i32) -> Result<Option<Live>, String> {
        let Some(bytes) = &self.plan.monitor.network else {
            return Ok(None);
        };
        let plan = NetworkPlan::decode(bytes).map_err(|error| error.line())?;
        let netns = sys::net::namespace_of(Some(pid))
            .map_err(|errno| format!("cannot find its network: {errno}"))?;
        Live::resume(plan, netns, pid)
            .map(Some)
            .map_err(|error| error.line())
    }

    /// Ends a program that cannot go on, unless it has ended by itself.
    fn put_down(&self, found: &Found, reason: String) -> ExitStatus {
        let groups = &self.plan.init.cgroup;
        let had_ended = has_ended(&found.pidfd);
        if !had_ended {
            // It may end in this moment.
            let _ended = sys::signals::send(found.pidfd.as_fd(), SIGKILL);
            drop(cgroup::kill(groups));
        }
        let mut status = reap_foreign(found.pidfd.as_fd(), found.pid, found.start_time);
        status.oom_killed = cgroup::oom_kills(groups) > 0;
        if !had_ended {
            status.error = Some(reason);
        }
        self.clear_left();
        status
    }

    /// Gives back what the program and its monitor had.
    fn clear_left(&self) {
        let groups = &self.plan.init.cgroup;
        // What stays is found by the next check.
        drop(cgroup::kill(groups));
        drop(cgroup::remove(groups));
        let network = self.plan.monitor.network.as_deref();
        if let Some(Ok(plan)) = network.map(NetworkPlan::decode) {
            ::network::clear_left(&plan);
        }
    }
}

fn unknown() -> ExitStatus {
    ExitStatus {
        code: u8::MAX,
        signal: None,
        oom_killed: false,
        error: Some(NOT_KNOWN.to_owned()),
    }
}

/// The recorded program, when it is still known: as long as nobody has waited for it.
fn find(state: &ContainerState) -> Option<Found> {
    let (pid, start_time) = state.pid.zip(state.pid_start)?;
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // The number alone could be another process's by now.
    let is_it = sys::process::start_time(pid).is_ok_and(|started| started == start_time);
    is_it.then_some(Found {
        pid,
        pidfd,
        start_time,
    })
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec::default();
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(ready) if ready > 0)
}

/// The two streams, and where a wasm host reports.
fn reopen(wanted: Pipes, pids: &[i32]) -> std::io::Result<(Vec<Stream>, Option<OwnedFd>)> {
    let stream = |is_stderr, inode| {
        let fd = pipes::reopen(inode, pids)?;
        Ok::<_, std::io::Error>(Stream {
            is_stderr,
            fd,
            partial: Partial::default(),
        })
    };
    let streams = vec![stream(false, wanted.stdout)?, stream(true, wanted.stderr)?];
    let report = wanted.guest_report;
    let report = report.map(|inode| pipes::reopen(inode, pids)).transpose()?;
    Ok((streams, report.flatten()))
}

/// When the program was started, as far as this clock reaches back.
fn since(started_at: Option<&str>) -> Instant {
    let now = Instant::now();
    let age = started_at
        .and_then(clock::to_nanoseconds)
        .and_then(|at| u64::try_from(nanoseconds_now() - at).ok());
    age.and_then(|age| now.checked_sub(Duration::from_nanos(age)))
        .unwrap_or(now)
}
