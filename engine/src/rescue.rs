//! Containers whose owner is gone. When their monitor was killed, another one takes them over; when no
//! other can, or the host was restarted, what is left of them is stopped, given back and recorded with
//! the reason. Whoever comes first does it, once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::{Console, RestartPolicy, RootfsPlan, code};
use runtime_native::cgroup;
use runtime_native::plan::{Options, detect, plan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use state::{ContainerConfig, ContainerState, ExitRecord, Layout, Status, clock};
use sys::lock::{FileLock, Mode, is_held};

use crate::mounts;
use crate::network::ContainerNetwork;
use crate::query::Container;
use crate::start::{Parts, Role, c_path, encoded};
use crate::volume_driver::DriverMounts;
use crate::{Engine, EngineError};

/// How long another process may take that rescues the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a killed program may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const SIGKILL: i32 = 9;

/// A container that is recorded as running and has no owner.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// Its id.
    pub id: String,
    /// Its program, when that still runs.
    pub pid: Option<i32>,
}

/// A container whose monitor was killed, and that somebody has looked at.
#[derive(Debug)]
pub struct Rescued {
    /// Its id.
    pub id: String,
    /// Whether it is looked after again.
    pub result: Result<(), EngineError>,
}

/// The containers whose monitors were killed since the host was started, and whom nobody has looked at
/// since. Cheap: the locks of all containers are looked at, and the records of those that are free.
///
/// # Errors
/// When the run directory cannot be listed.
pub fn orphans(layout: &Layout) -> Result<Vec<Orphan>, EngineError> {
    let failed = EngineError::io("list the containers that run");
    let mut found = Vec::new();
    let entries = match fs::read_dir(layout.run().join("containers")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(&failed)?;
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        // One that cannot be asked is not ours to take over.
        if is_held(&entry.path().join("lock")).unwrap_or(true) {
            continue;
        }
        let state = ContainerState::read(&layout.container(&id));
        if let Some(state) = state.ok().filter(|state| state.status.is_owned()) {
            let is_there = |(pid, started): &(i32, u64)| sys::process::is_alive(*pid, *started);
            let program = state.pid.zip(state.pid_start).filter(is_there);
            let pid = program.map(|(pid, _)| pid);
            found.push(Orphan { id, pid });
        }
    }
    Ok(found)
}

/// A container that was to be started again.
#[derive(Debug)]
pub struct BroughtBack {
    /// The container, as it was before.
    pub container: Container,
    /// How its start went.
    pub started: Result<(), EngineError>,
}

/// An error with its causes on one line.
fn with_causes(error: &EngineError) -> String {
    let first: &dyn std::error::Error = error;
    let chain = std::iter::successors(Some(first), |error| error.source());
    let texts: Vec<String> = chain.map(ToString::to_string).collect();
    texts.join(": ")
}

impl Engine {
    /// Gives a container that is recorded as running and has no owner another one; its state then.
    ///
    /// # Errors
    /// When it was removed with its end, or its records cannot be read or written.
    pub(crate) fn rescue(&self, config: &ContainerConfig) -> Result<ContainerState, EngineError> {
        let dir = self.layout().container(&config.id);
        let taken_over = self.take_over(config);
        let gone = || EngineError::NoSuchContainer(config.name.clone());
        let now = || match ContainerState::read(&dir) {
            Err(error) if error.is_absent() => Err(gone()),
            other => Ok(other?),
        };
        match taken_over {
            Ok(()) => now(),
            // Somebody else was faster.
            Err(_) if self.has_monitor(&config.id) => now(),
            Err(why) => self.bury(config, &why),
        }
    }

    /// Gives other monitors to containers whose own were killed, before anybody looks at them; each with
    /// how that went. An ordinary user's are left to commands, which enter the user namespace of each.
    ///
    /// # Errors
    /// As [`orphans`].
    pub fn rescue_orphans(&self) -> Result<Vec<Rescued>, EngineError> {
        if self.is_in_user_namespace() {
            return Ok(Vec::new());
        }
        let found = orphans(self.layout())?.into_iter();
        let all = found.map(|Orphan { id, .. }| Rescued {
            result: self.container(&id).map(drop),
            id,
        });
        Ok(all.collect())
    }

    /// Starts another monitor, which goes on with the container, or ends it when it cannot.
    fn take_over(&self, config: &ContainerConfig) -> Result<(), EngineError> {
        let run_dir = self.layout().container_run(&config.id);
        if !run_dir.join("lock").exists() {
            return Err(EngineError::NotRunning(config.name.clone()));
        }
        if !self.is_in_user_namespace() && !rustix::process::geteuid().is_root() {
            return Err(EngineError::Unsupported(
                "a monitor of an ordinary user's container stands in its user namespace".to_owned(),
            ));
        }
        let (spec, launch) = self.stored(&config.id)?;
        let dir = self.layout().container(&config.id);
        let parts = Parts {
            spec: &spec,
            launch: &launch,
            network: &ContainerNetwork::read(&dir)?,
            mounts: &mounts::read(&dir)?,
        };
        let console = launch.terminal.then_some(Console::UNKNOWN);
        let drivers = DriverMounts::of_running(&run_dir);
        let plan = self.plan_start(config, &parts, console, &drivers)?;
        let session = self.spawn(Role::Rescue, &encoded(&plan)?, None)?;
        session.wait_taken_over()
    }

    /// Whether somebody answers for a container.
    pub(crate) fn has_monitor(&self, id: &str) -> bool {
        let socket = self.layout().container_run(id).join("ctl.sock");
        sys::socket::connect(&socket).is_ok()
    }

    /// Stops what is left of a container that no other monitor could take over, and records that.
    fn bury(
        &self,
        config: &ContainerConfig,
        why: &EngineError,
    ) -> Result<ContainerState, EngineError> {
        let dir = self.layout().container(&config.id);
        let run_dir = self.layout().container_run(&config.id);
        let failed = EngineError::io("take over a container without a monitor");
        let lock = match FileLock::acquire(&run_dir.join("lock"), Mode::Exclusive, LOCK_TIMEOUT) {
            Ok(lock) => Some(lock),
            // Somebody else is at it, or it has been started again.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Ok(ContainerState::read(&dir)?);
            }
            // The run directory is gone after a reboot.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // It may have been rescued, or started again, meanwhile.
        let mut state = ContainerState::read(&dir)?;
        if !state.status.is_owned() {
            return Ok(state);
        }
        let killed = lock.is_some() && self.kill_left(&state).map_err(&failed)?;
        let (exit_code, reason) = match (&lock, killed) {
            (None, _) => {
                let reason = "the host was restarted while the container ran";
                (u8::MAX, reason.to_owned())
            }
            (_, true) => (
                code::KILLED,
                format!(
                    "the container was killed, because its monitor was gone and no other could take over: {}",
                    with_causes(why)
                ),
            ),
            (_, false) => {
                let reason = "the container's monitor is gone, and with it how the container ended";
                (u8::MAX, reason.to_owned())
            }
        };
        // What stays is given back by whoever needs it.
        drop(self.clear_groups(config));
        drop(network::release(self.layout(), &config.id));
        state = ContainerState {
            status: Status::Exited,
            pid: None,
            pid_start: None,
            pipes: None,
            exit_code: Some(exit_code),
            error: Some(reason.clone()),
            finished_at: Some(clock::now()),
            ..state
        };
        let code = exit_code.to_string();
        self.record_container_event(config, "die", &[("exitCode", &code), ("reason", &reason)]);
        if config.auto_remove {
            ExitRecord::new(&config.id, &config.name, exit_code).write(&self.layout().exits())?;
            self.remove_records(config)?;
            self.record_container_event(config, "destroy", &[]);
            return Err(EngineError::NoSuchContainer(config.name.clone()));
        }
        state.write(&dir)?;
        Ok(state)
    }

    /// Kills the program if it still runs; whether it did.
    fn kill_left(&self, state: &ContainerState) -> std::io::Result<bool> {
        let Some((pid, started)) = state.pid.zip(state.pid_start) else {
            return Ok(false);
        };
        let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| {
            // The number alone could be another process's by now.
            pidfd_open(pid, PidfdFlags::empty()).ok()
        }) else {
            return Ok(false);
        };
        use std::os::fd::AsFd;
        if !sys::process::is_alive(pid, started)
            || sys::signals::send(pidfd.as_fd(), SIGKILL).is_err()
        {
            return Ok(false);
        }
        let deadline = Instant::now() + KILL_TIMEOUT;
        // A frozen one dies when it is thawed, which `clear_groups` does.
        let timeout =
            Timespec::try_from(deadline - Instant::now()).map_err(std::io::Error::other)?;
        let _waited = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        Ok(true)
    }

    /// Kills what is left in the container's control groups, and removes them.
    fn clear_groups(&self, config: &ContainerConfig) -> Result<(), EngineError> {
        let spec = self.spec_of(&config.id)?;
        let rootfs = RootfsPlan::Directory {
            path: c_path(Path::new("/"))?,
            readonly: false,
        };
        let hierarchy = detect();
        let options = Options {
            user_namespace: self.user_namespace.map(|ids| ids.gids),
            ..Options::new(rootfs, &config.id, &hierarchy)
        };
        let groups = plan(&spec, options)?.cgroup;
        cgroup::kill(&groups)
            .and_then(|()| cgroup::remove(&groups))
            .map_err(EngineError::io("remove the container's control groups"))
    }

    /// Starts again what ran when the host, or a monitor, went down, as far as its restart policy
    /// says so: each container with how that went.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn bring_back(&self) -> Result<Vec<BroughtBack>, EngineError> {
        let mut brought = Vec::new();
        // The oldest first: others may need them.
        for container in self.containers()?.into_iter().rev() {
            let state = &container.state;
            let policy = self.restart_policy(&container).unwrap_or(RestartPolicy::No);
            let has_run = state.started_at.is_some() && !container.is_running();
            if has_run && policy.comes_back(state.exit_code.unwrap_or(0), state.stopped_by_user) {
                let started = self
                    .start(&container, None, None)
                    .and_then(|session| session.wait_started().map(drop));
                brought.push(BroughtBack { container, started });
            }
        }
        Ok(brought)
    }
}
