//! The talk with a container's init, from the clone until its program runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{InitPlan, StartFailure, code};

use super::StartError;
use crate::hooks::{self, HookState};
use crate::step::{Failure, Message};
use crate::trace::Steps;
use crate::{listener, net_devices, prepare};

/// What the hooks inside the container are told, filled in once its number is known.
#[derive(Debug)]
pub(super) struct HookStates {
    pub(super) create_container: OwnedFd,
    pub(super) start_container: OwnedFd,
}

/// Files for them, when there are such hooks.
pub(super) fn hook_states(plan: &InitPlan) -> io::Result<Option<HookStates>> {
    let hooks = &plan.hooks;
    if hooks.create_container.is_empty() && hooks.start_container.is_empty() {
        return Ok(None);
    }
    let memory = || rustix::fs::memfd_create("ketch-state", rustix::fs::MemfdFlags::CLOEXEC);
    Ok(Some(HookStates {
        create_container: memory()?,
        start_container: memory()?,
    }))
}

/// The parent's side of the talk with a container's init.
pub(super) struct Parent<'a> {
    pub(super) plan: &'a InitPlan,
    pub(super) pid: i32,
    pub(super) pidfd: BorrowedFd<'a>,
    pub(super) go: File,
    pub(super) states: Option<HookStates>,
    pub(super) steps: &'a mut Steps,
}

impl Parent<'_> {
    /// Writes the id maps and lets the child go on.
    pub(super) fn release(&mut self) -> Result<(), StartError> {
        if let Some(map) = &self.plan.user_map {
            prepare::write_maps(self.pid, map)
                .map_err(|e| StartError::engine("map the container's ids", &e))?;
            self.signal()?;
        }
        net_devices::move_all(self.plan, self.pid)?;
        self.steps.mark("released");
        // A child that has already failed does not read: its report says why.
        drop(self.signal());
        Ok(())
    }

    fn signal(&mut self) -> Result<(), StartError> {
        self.go
            .write_all(b"g")
            .map_err(|e| StartError::engine("talk to the container's init", &e))
    }

    /// Hears the child out: until its program runs (`execve` closes the pipe), it waits at the gate,
    /// or a step has failed.
    pub(super) fn answer(&mut self, report: OwnedFd) -> Result<(), StartError> {
        let mut report = File::from(report);
        loop {
            let bytes = read_message(&mut report)
                .map_err(|e| StartError::engine("hear from the container's init", &e))?;
            let Some(bytes) = bytes else { return Ok(()) };
            match Message::decode(bytes) {
                Some(Message::Ready) => return Ok(()),
                Some(Message::Over(step, ns)) => {
                    self.steps.of_init(step, ns);
                    continue;
                }
                Some(Message::Mounted) => self.run_hooks()?,
                Some(Message::Listener(number)) => self.pass_listener(number)?,
                Some(Message::Failed(failure)) => {
                    return Err(StartError(failure.describe(self.plan)));
                }
                None => {
                    return Err(StartError(StartFailure {
                        code: code::ENGINE,
                        message: "cannot start the container: its init gave no reason".to_owned(),
                    }));
                }
            }
            self.signal()?;
        }
    }

    /// Runs the hooks of the runtime's side, and tells the others what they need.
    fn run_hooks(&mut self) -> Result<(), StartError> {
        let hooks = &self.plan.hooks;
        // Those of before version 1.0.2 know no container that is being created.
        let (old, new): (Vec<_>, Vec<_>) = hooks
            .create_runtime
            .iter()
            .cloned()
            .partition(|hook| hook.field.starts_with("hooks.prestart"));
        for (hooks_of, status) in [(old, "created"), (new, "creating")] {
            let state = HookState::new(&hooks.about, status, Some(self.pid));
            hooks::run_all(&hooks_of, &state).map_err(StartError)?;
        }
        if let Some(states) = self.states.take() {
            let failed = |e: io::Error| StartError::engine("prepare the hooks", &e);
            let pid = sys::process::innermost_pid(self.pid).map_err(failed)?;
            for (file, status) in [
                (states.create_container, "creating"),
                (states.start_container, "created"),
            ] {
                let state = HookState::new(&hooks.about, status, Some(pid));
                File::from(file).write_all(&state.json()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Takes the filter's notifications out of the init and hands them to whoever listens.
    fn pass_listener(&self, number: i32) -> Result<(), StartError> {
        let Some(listener) = &self.plan.process.seccomp_listener else {
            return Ok(());
        };
        let state = HookState::new(&self.plan.hooks.about, "creating", Some(self.pid));
        let socket = listener::connect(listener)?;
        listener::pass(
            (listener, socket.as_fd()),
            &state,
            self.pid,
            self.pidfd,
            number,
        )
    }
}

/// One message of a child; `None` at the pipe's end.
pub(crate) fn read_message(report: &mut File) -> io::Result<Option<[u8; Failure::SIZE]>> {
    let mut bytes = [0; Failure::SIZE];
    match report.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
