//! The life of one container.
//!
//! ```text
//! lock, socket ── start ── loop: output, callers, timers ── ended ── drain ── record ── report ── tear down
//!                   └──────────────── pause ── give back ──────────────┘ when it is started again
//!              └─ rescue ─┘ when an earlier monitor was killed
//! ```

use std::error::Error;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{Event, ExitStatus, Plan, StartFailure, code};
use runtime_native::cgroup;
use state::{ContainerState, HealthStatus, Status};
use sys::clone::namespace::PID;
use sys::lock::{FileLock, Mode};

use crate::client::Client;
use crate::end::give_up;
use crate::health::Health;
use crate::log::Log;
use crate::network;
use crate::restart::Restart;
use crate::running::Running;

/// A caller that has so much to read holds the container's output back.
const MAX_BACKLOG: usize = 1 << 20;

/// How long an earlier monitor of the container has to give everything back.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The owner of one container.
pub(crate) struct Monitor {
    pub(crate) plan: Plan,
    pub(crate) state_dir: PathBuf,
    /// `None` between two runs.
    pub(crate) running: Option<Running>,
    pub(crate) restart: Restart,
    /// When it is started again.
    pub(crate) start_at: Option<Instant>,
    pub(crate) last_start: Option<String>,
    /// The last end of the program is in the log of events.
    pub(crate) is_death_recorded: bool,
    pub(crate) log: Log,
    pub(crate) listener: OwnedFd,
    pub(crate) clients: Vec<Client>,
    /// Further programs whose end is written down here, by their parents.
    pub(crate) execs: Vec<OwnedFd>,
    pub(crate) kill_at: Option<Instant>,
    /// `stop` was asked for.
    pub(crate) is_asked: bool,
    pub(crate) auto_remove: bool,
}

pub(crate) fn path(path: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}

/// The monitor before it has a program, the front end that has started it, and the lock that makes it
/// the container's owner.
pub(crate) fn open(
    plan: Plan,
    report: &OwnedFd,
    role: Role,
) -> Result<(Monitor, Client, FileLock), String> {
    // The front end's terminal and its death are nothing to the container.
    rustix::process::setsid().map_err(|error| format!("cannot start a session: {error}"))?;
    let run_dir = path(&plan.monitor.run_dir);
    let lock = lock(&run_dir, role).map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => "cannot start the container: it is running".to_owned(),
        _ => format!("cannot lock the container: {error}"),
    })?;
    let socket = run_dir.join("ctl.sock");
    sys::durable::remove_tree(&socket)
        .map_err(|error| format!("cannot remove the old control socket: {error}"))?;
    let listener = sys::socket::listen(&socket)
        .map_err(|error| format!("cannot make the control socket: {error}"))?;
    let log = Log::open(&plan.monitor.log, &path(&plan.monitor.state_dir))
        .map_err(|error| format!("cannot open the log: {error}"))?;
    let mut front_end = Client::new(
        report
            .try_clone()
            .map_err(|error| format!("cannot keep the front end's socket: {error}"))?,
    );
    front_end.watches = true;
    rustix::io::ioctl_fionbio(&front_end.socket, true)
        .map_err(|error| format!("cannot use the front end's socket: {error}"))?;
    Ok((Monitor::new(plan, log, listener), front_end, lock))
}

/// What a monitor is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To start a container.
    Start,
    /// To go on with one whose monitor was killed.
    Rescue,
}

/// Takes the container's lock, which others may hold for a moment: an earlier monitor that has reported
/// the end may still be giving back what the container had.
fn lock(run_dir: &Path, role: Role) -> std::io::Result<FileLock> {
    let (file, deadline) = (run_dir.join("lock"), Instant::now() + LOCK_TIMEOUT);
    loop {
        match FileLock::acquire(&file, Mode::Exclusive, LOCK_TIMEOUT / 100) {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                // Another rescue was faster.
                let has_owner =
                    role == Role::Rescue && sys::socket::connect(&run_dir.join("ctl.sock")).is_ok();
                if has_owner || Instant::now() >= deadline {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}

/// Runs the container to its end.
pub(crate) fn run(plan: Plan, report: &OwnedFd) -> Result<(), String> {
    let (mut monitor, mut front_end, lock) = open(plan, report, Role::Start)?;
    let pid = match monitor.start() {
        Ok(pid) => pid,
        Err(failure) => {
            give_up(&monitor.plan, &monitor.state_dir, &mut front_end, failure);
            return Ok(());
        }
    };
    front_end.send_event(&Event::Started { pid });
    monitor.record_start();
    monitor.clients.push(front_end);
    // What the front end asked for before it started this program comes before the container's
    // output is read, and so loses none of it.
    monitor.read_request(0);
    monitor.settle();
    let status = monitor.serve();
    let status = monitor.live(status);
    monitor.end(&status);
    drop(lock);
    Ok(())
}

impl Monitor {
    fn new(plan: Plan, log: Log, listener: OwnedFd) -> Self {
        Self {
            state_dir: path(&plan.monitor.state_dir),
            running: None,
            restart: Restart::new(plan.monitor.restart),
            start_at: None,
            last_start: None,
            is_death_recorded: false,
            log,
            listener,
            clients: Vec::new(),
            execs: Vec::new(),
            kill_at: None,
            is_asked: false,
            auto_remove: plan.monitor.auto_remove,
            plan,
        }
    }

    /// Starts the program; its pid.
    fn start(&mut self) -> Result<i32, StartFailure> {
        let started = network::start(&self.plan).map_err(|error| error.0)?;
        let mut running = Running::new(started);
        let health = self.plan.monitor.health.as_ref();
        running.health = health.map(|plan| Health::new(plan, &self.state_dir));
        let pid = running.pid;
        self.running = Some(running);
        self.is_asked = false;
        self.is_death_recorded = false;
        if let Err(failure) = self.record_running() {
            // Whom nobody can find must not run.
            if let Some(mut running) = self.running.take() {
                running.destroy(&self.plan.init.cgroup);
                if let Some(network) = &mut running.network {
                    network.release_ports();
                    network.release();
                }
            }
            return Err(failure);
        }
        Ok(pid)
    }

    /// What of the network can wait until the program runs.
    pub(crate) fn settle(&mut self) {
        let network = self.running.as_mut().and_then(|run| run.network.as_mut());
        if let Some(network) = network {
            network.settle();
        }
    }

    /// Records that the program runs, or stands still.
    pub(crate) fn record_running(&self) -> Result<(), StartFailure> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let state = ContainerState {
            status: if running.is_paused {
                Status::Paused
            } else {
                Status::Running
            },
            pid: Some(running.pid),
            pid_start: sys::process::start_time(running.pid).ok(),
            pipes: running.pipes,
            started_at: Some(running.started_at.clone()),
            restart_count: self.restart.count,
            ..ContainerState::created()
        };
        state.write(&self.state_dir).map_err(|error| StartFailure {
            code: code::ENGINE,
            message: match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        })
    }

    /// Run after run, until the program is not started again; how the last one ended. The first one
    /// has ended with `status`.
    pub(crate) fn live(&mut self, mut status: ExitStatus) -> ExitStatus {
        loop {
            let ran = self.running.as_ref().map(|run| run.since.elapsed());
            let Some(pause) = self.restart.next(status.code, ran.unwrap_or_default()) else {
                return status;
            };
            self.end_run(&status);
            match self.run_again(pause) {
                Some(next) => status = next,
                None => return status,
            }
        }
    }

    /// Starts the program once more after a pause; how it ended. Nothing when somebody has asked the
    /// container to end meanwhile.
    pub(crate) fn run_again(&mut self, pause: Duration) -> Option<ExitStatus> {
        if !self.wait_until(Instant::now() + pause) {
            return None;
        }
        Some(match self.start() {
            Ok(_) => {
                self.record_start();
                self.settle();
                self.serve()
            }
            Err(failure) => ExitStatus {
                code: failure.code,
                signal: None,
                oom_killed: false,
                error: Some(failure.message),
            },
        })
    }

    /// Answers callers until the program is to be started again; `false` when it is not.
    fn wait_until(&mut self, at: Instant) -> bool {
        self.start_at = Some(at);
        while !self.restart.is_stopped && Instant::now() < at {
            self.turn();
        }
        self.start_at = None;
        !self.restart.is_stopped
    }

    /// The loop. Returns when the program has ended and its output is passed on.
    pub(crate) fn serve(&mut self) -> ExitStatus {
        while !self.turn() {}
        let groups = &self.plan.init.cgroup;
        let status = self.running.as_ref().map(|running| running.reap(groups));
        self.kill_others();
        self.kill_at = None;
        self.drain();
        status.expect("a turn without a program does not end one")
    }

    /// With a pid namespace of its own all processes end with the first one (pid_namespaces(7)). In
    /// another's they would go on, and hold the output open.
    fn kill_others(&self) {
        let namespaces = &self.plan.init.namespaces;
        let is_own = |n: &runtime::Namespace| n.flag == PID && n.path.is_none();
        if !namespaces.iter().any(is_own) {
            // What stays is found by the removal of the group.
            drop(cgroup::kill(&self.plan.init.cgroup));
        }
    }

    /// Waits for something and handles it; says whether the program has ended.
    fn turn(&mut self) -> bool {
        let held_back = self
            .clients
            .iter()
            .any(|client| client.backlog() > MAX_BACKLOG);
        let ready = self.poll(held_back || self.log.is_full());
        if ready.log || self.log.timer().is_some_and(|at| Instant::now() >= at) {
            self.log.flush();
        }
        for (index, is_ready) in ready.streams.iter().enumerate() {
            if *is_ready {
                self.read_stream(index);
            }
        }
        for (client, at) in self.clients.iter_mut().zip(&ready.clients) {
            for (output, is_ready) in client.outputs.iter_mut().zip(at.outputs) {
                if is_ready
                    && output
                        .as_mut()
                        .is_some_and(|output| !output.has_backlog() || output.flush().is_err())
                {
                    // Ready without a backlog: the caller has closed its end.
                    *output = None;
                }
            }
        }
        for (index, at) in ready.clients.iter().enumerate() {
            if at.input {
                self.read_input(index);
            }
            if at.socket {
                self.read_request(index);
            }
        }
        let network = self.running.as_mut().and_then(|run| run.network.as_mut());
        if let Some(network) = network.filter(|_| ready.network) {
            network.turn();
        }
        self.look_after_health(ready.health);
        if ready.listener
            && let Ok(socket) = sys::socket::accept(self.listener.as_fd())
        {
            self.accept(socket);
        }
        self.clients.retain(|client| !client.gone);
        if ready.execs.contains(&true) {
            self.hear_execs(&ready.execs);
        }
        self.kill_when_due();
        ready.ended
    }

    /// Goes on with the health check; an unhealthy container may have to be started again.
    fn look_after_health(&mut self, is_ready: bool) {
        let (Some(plan), Some(running)) = (&self.plan.monitor.health, &mut self.running) else {
            return;
        };
        let Some(health) = running.health.as_mut().filter(|_| !running.is_paused) else {
            return;
        };
        let is_due = health.timer().is_some_and(|at| Instant::now() >= at);
        if !is_ready && !is_due {
            return;
        }
        let changed = health.turn(plan, &self.plan, running.pid, &self.state_dir);
        let restarts = plan.restart_on_unhealthy;
        let Some(status) = changed else { return };
        self.refresh_name();
        self.record_event(&format!("health_status: {}", status.name()), &[]);
        if status == HealthStatus::Unhealthy && restarts {
            self.restart.is_forced = true;
            self.end_unhealthy();
        }
    }

    fn kill_when_due(&mut self) {
        if self.kill_at.is_some_and(|at| Instant::now() >= at) {
            self.kill_at = None;
            if let Some(running) = &self.running {
                // It may have ended in this moment.
                let _ended = running.kill_all(&self.plan.init.cgroup);
            }
        }
    }
}
