//! Containers whose owner is gone: their monitor was killed, or the host was restarted. What is left
//! of them is stopped, given back and recorded with the reason, once, by whoever comes first.

use std::path::Path;
use std::time::{Duration, Instant};

use runtime::{RestartPolicy, RootfsPlan, code};
use runtime_native::cgroup;
use runtime_native::plan::{Options, detect, plan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use state::{ContainerConfig, ContainerState, ExitRecord, Status, clock};
use sys::lock::{FileLock, Mode};

use crate::query::Container;
use crate::start::c_path;
use crate::{Engine, EngineError};

/// How long another process may take that rescues the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a killed program may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const SIGKILL: i32 = 9;

/// A container that was to be started again.
#[derive(Debug)]
pub struct BroughtBack {
    /// The container, as it was before.
    pub container: Container,
    /// How its start went.
    pub started: Result<(), EngineError>,
}

impl Engine {
    /// Takes over a container that is recorded as running and has no owner; its state then.
    ///
    /// # Errors
    /// When it was removed with its end, or its records cannot be read or written.
    pub(crate) fn rescue(&self, config: &ContainerConfig) -> Result<ContainerState, EngineError> {
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
            (None, _) => (u8::MAX, "the host was restarted while the container ran"),
            (_, true) => (
                code::KILLED,
                "the container was killed, because its monitor was gone",
            ),
            (_, false) => (
                u8::MAX,
                "the container's monitor is gone, and with it how the container ended",
            ),
        };
        // What stays is given back by whoever needs it.
        drop(self.clear_groups(config));
        drop(network::release(self.layout(), &config.id));
        state = ContainerState {
            status: Status::Exited,
            pid: None,
            exit_code: Some(exit_code),
            error: Some(reason.to_owned()),
            finished_at: Some(clock::now()),
            ..state
        };
        let code = exit_code.to_string();
        self.record_container_event(config, "die", &[("exitCode", &code), ("reason", reason)]);
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
        let (spec, _) = self.stored(&config.id)?;
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
