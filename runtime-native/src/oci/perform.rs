//! The part of `create`, `run` and `exec` that runs in `ketch-init`: one thread, a static program
//! that containers cannot write to, and soon the parent of a container.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use runtime::{Extent, OciContainer, OciExec, OciPlan, OciVerb, StartFailure, Terminal, code};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use sys::exec::CStringArray;

use super::hold::Hold;
use super::pid_file::Late;
use super::record::Record;
use super::relay::{self, Signals};
use super::{Log, OciError, pipe};
use crate::hooks::{self, HookState};
use crate::start::{Gate, Process, Stdio, Streams, launch};
use crate::{cgroup, exec};

/// How long systemd may take to see that a scope is empty.
const SCOPE_END: Duration = Duration::from_secs(5);

/// Becomes `ketch-init` at `init`, which performs the plan in this process's place.
///
/// # Errors
/// When that program cannot be executed. There is no other return.
pub fn hand_over(init: &Path, plan: &OciPlan) -> OciError {
    match prepare(init, plan) {
        Ok((path, args, env)) => {
            let errno = sys::exec::execve(&path, &args, &env);
            OciError::io("execute", init)(errno.into())
        }
        Err(error) => OciError::io("prepare the start of", init)(error),
    }
}

fn prepare(init: &Path, plan: &OciPlan) -> io::Result<(CString, CStringArray, CStringArray)> {
    let bytes = plan.encode().map_err(io::Error::other)?;
    let memory = sys::sealed::seal("ketch-plan", &bytes)?;
    // Out of the way of the descriptors that the program keeps.
    let lowest = i32::try_from(preserved(plan)).unwrap_or(0) + 3;
    let memory = sys::exec::move_descriptor_above(memory.as_fd(), lowest)?;
    rustix::io::fcntl_setfd(&memory, rustix::io::FdFlags::empty())?;
    let number = CString::new(memory.as_raw_fd().to_string())?;
    // It stays open for the program that takes over.
    let _number = std::os::fd::IntoRawFd::into_raw_fd(memory);
    let path = CString::new(init.as_os_str().as_bytes())?;
    let args = vec![c"ketch-init".to_owned(), c"oci".to_owned(), number];
    Ok((path, CStringArray::new(args), CStringArray::new(Vec::new())))
}

fn preserved(plan: &OciPlan) -> u32 {
    match &plan.verb {
        OciVerb::Create(container) => container.init.process.preserve_descriptors,
        OciVerb::Exec(exec) => exec.plan.process.preserve_descriptors,
    }
}

/// Performs the plan and gives the exit code. A failure is on standard error and in the log.
#[must_use]
pub fn perform(plan: &OciPlan) -> u8 {
    let log = Log::open(&plan.log);
    // Nothing that the caller had open by mistake reaches a hook or the container.
    let first = preserved(plan).saturating_add(3);
    let closed = sys::exec::close_on_exec_from(first).map_err(|errno| StartFailure {
        code: code::ENGINE,
        message: format!("cannot close the inherited descriptors: {errno}"),
    });
    let result = closed.and_then(|()| match &plan.verb {
        OciVerb::Create(container) => perform_create(container, &log),
        OciVerb::Exec(exec) => perform_exec(exec, &log),
    });
    match result {
        Ok(code) => code,
        Err(failure) => {
            log.error(&failure.message);
            // Nobody is told when even that is closed.
            drop(writeln!(io::stderr(), "error: {}", failure.message));
            match (&plan.verb, super::error::exit_code(&failure)) {
                (OciVerb::Exec(_), 1) => super::EXEC_FAILED,
                (_, code) => code,
            }
        }
    }
}

fn path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

fn failed(what: &str, error: &io::Error) -> StartFailure {
    crate::start::StartError::engine(what, error).0
}

fn streams(terminal: &Terminal) -> Streams {
    terminal.size().map_or(Streams::Inherited, Streams::Console)
}

fn perform_create(container: &OciContainer, log: &Log) -> Result<u8, StartFailure> {
    let hold = container.scope.as_ref().map(Hold::take).transpose();
    let hold = hold.map_err(|e| failed("keep the container's scope", &e))?;
    let record: Record = serde_json::from_slice(&container.record)
        .map_err(|e| failed("read the container's record", &e.into()))?;
    let mut run = Run {
        record,
        container,
        log,
        pid: None,
        hold,
    };
    let result = run.perform();
    if result.is_err() {
        run.undo();
    }
    result.map_err(|failure| match container.extent {
        // The code of a program is that of `run` alone.
        Extent::Create => StartFailure { code: 1, ..failure },
        Extent::Run | Extent::RunDetached => failure,
    })
}

/// A container on its way.
struct Run<'a> {
    record: Record,
    container: &'a OciContainer,
    log: &'a Log,
    /// Its init, once there is one.
    pid: Option<i32>,
    /// What keeps its scope until then.
    hold: Option<Hold>,
}

impl Run<'_> {
    fn perform(&mut self) -> Result<u8, StartFailure> {
        let container = self.container;
        let dir = path(&container.state_dir);
        let gate = self.gate()?;
        let signals = match container.extent {
            Extent::Run => Some(Signals::block().map_err(|e| failed("block signals", &e))?),
            Extent::Create | Extent::RunDetached => None,
        };
        let (pid, record) = (&mut self.pid, &mut self.record);
        let process = launch(
            &container.init,
            streams(&container.terminal),
            gate.as_ref(),
            &mut |number| {
                *pid = Some(number);
                record.pid = Some(number);
                record.start_time = sys::process::start_time(number).ok();
                record
                    .write(dir)
                    .map_err(|e| failed("write the container's state", &e))
            },
        )
        .map_err(|error| error.0)?;
        drop(gate);
        self.release();
        self.go_on(&process, signals).inspect_err(|_| {
            kill(process.pidfd.as_fd());
        })
    }

    /// The init is in the scope: nobody else has to be. Also when there will be none.
    fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
    }

    fn gate(&self) -> Result<Option<Gate>, StartFailure> {
        match self.container.extent {
            Extent::Create => pipe::gate(path(&self.container.state_dir))
                .map(Some)
                .map_err(|e| failed("open the container's pipes", &e)),
            Extent::Run | Extent::RunDetached => Ok(None),
        }
    }

    /// What comes after the container runs or waits.
    fn go_on(&self, process: &Process, signals: Option<Signals>) -> Result<u8, StartFailure> {
        let container = self.container;
        let master = terminal(&container.terminal, &process.stdio)?;
        if let Some(file) = &container.pid_file {
            Late::open(file)
                .and_then(|late| late.write(process.pid))
                .map_err(|e| failed("write the pid file", &e))?;
        }
        if let Some(socket) = &container.pidfd_socket {
            sys::socket::connect_stream(path(socket))
                .and_then(|socket| {
                    sys::socket::send(socket.as_fd(), b"pidfd", &[process.pidfd.as_fd()])
                })
                .map_err(|e| failed("send the pidfd", &e.into()))?;
        }
        self.log
            .debug(&format!("process {} is the container's first", process.pid));
        if container.extent == Extent::Create {
            return Ok(0);
        }
        let plan = &container.init.hooks;
        let state = HookState::new(&plan.about, "running", Some(process.pid));
        hooks::run_all(&plan.poststart, &state)?;
        let Some(signals) = signals else { return Ok(0) };
        let code = relay::until_end(process.pidfd.as_fd(), master, &signals)
            .map_err(|e| failed("wait for the container", &e))?;
        self.remove();
        Ok(code)
    }

    /// Removes a container that has ended.
    fn remove(&self) {
        let plan = &self.container.init;
        self.log.debug("the container has ended: removing it");
        let mut failures = Vec::new();
        let groups = cgroup::kill(&plan.cgroup).and_then(|()| match self.container.keep {
            // What it has used can still be read.
            true => Ok(()),
            false => self.remove_groups(),
        });
        if let Err(error) = groups {
            failures.push(format!("cannot remove the container's cgroups: {error}"));
        }
        failures.extend(self.record.remove_mounts());
        if !self.container.keep {
            let removed = sys::durable::remove_tree(path(&self.container.state_dir));
            if let Err(error) = removed {
                failures.push(format!("cannot remove the container's directory: {error}"));
            }
            let state = HookState::new(&plan.hooks.about, "stopped", None);
            failures.extend(hooks::run_each(&plan.hooks.poststop, &state));
        }
        for failure in failures {
            self.log.warning(&failure);
        }
    }

    /// A scope's group is systemd's to remove: taken away before systemd has seen it empty, the scope
    /// would stay for ever.
    fn remove_groups(&self) -> io::Result<()> {
        cgroup::remove(&self.container.init.cgroup)?;
        let Some(scope) = &self.container.scope else {
            return Ok(());
        };
        let dir = path(&scope.dir);
        let deadline = Instant::now() + SCOPE_END;
        while dir.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        cgroup::remove_dir(dir)
    }

    /// Leaves nothing of a container that could not be made.
    fn undo(&mut self) {
        self.release();
        let plan = &self.container.init;
        // The first error is reported; what stays is named in the log.
        if let Err(error) = cgroup::kill(&plan.cgroup).and_then(|()| self.remove_groups()) {
            self.log
                .warning(&format!("cannot remove the container's cgroups: {error}"));
        }
        for failure in self.record.remove_mounts() {
            self.log.warning(&failure);
        }
        if let Err(error) = sys::durable::remove_tree(path(&self.container.state_dir)) {
            self.log
                .warning(&format!("cannot remove the container's directory: {error}"));
        }
        if self.pid.is_some() {
            let state = HookState::new(&plan.hooks.about, "stopped", None);
            for failure in hooks::run_each(&plan.hooks.poststop, &state) {
                self.log.warning(&failure);
            }
        }
    }
}

fn kill(pidfd: BorrowedFd<'_>) {
    // It may have ended by itself.
    let _ended = sys::signals::send(pidfd, 9);
    let _reaped = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
}

/// Sends the master side to its socket, or keeps it to be relayed.
fn terminal(terminal: &Terminal, stdio: &Stdio) -> Result<Option<OwnedFd>, StartFailure> {
    let Stdio::Console(master) = stdio else {
        return Ok(None);
    };
    match terminal {
        Terminal::Socket { path: socket, .. } => {
            let socket = sys::socket::connect_stream(path(socket));
            socket
                .and_then(|socket| {
                    sys::socket::send(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                })
                .map_err(|e| failed("send the terminal to the console socket", &e.into()))?;
            Ok(None)
        }
        Terminal::Relay { .. } => master
            .try_clone()
            .map(Some)
            .map_err(|e| failed("keep the terminal", &e)),
        Terminal::None => Ok(None),
    }
}

fn perform_exec(verb: &OciExec, log: &Log) -> Result<u8, StartFailure> {
    let sockets = |what, error: rustix::io::Errno| failed(what, &error.into());
    // The host's files are out of sight once the container's namespaces are entered.
    let pid_file = verb.pid_file.as_deref().map(Late::open).transpose();
    let pid_file = pid_file.map_err(|e| failed("write the pid file", &e))?;
    let connect = |socket: &CString| sys::socket::connect_stream(path(socket));
    let console = match &verb.terminal {
        Terminal::Socket { path, .. } => {
            Some(connect(path).map_err(|e| sockets("reach the console socket", e))?)
        }
        Terminal::None | Terminal::Relay { .. } => None,
    };
    let pidfd_socket = verb.pidfd_socket.as_ref().map(connect).transpose();
    let pidfd_socket = pidfd_socket.map_err(|e| sockets("reach the pidfd socket", e))?;
    let signals = match verb.detach {
        false => Some(Signals::block().map_err(|e| failed("block signals", &e))?),
        true => None,
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let process = exec(&verb.plan, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
        .map_err(|error| error.0)?;
    log.debug(&format!("process {} runs in the container", process.pid));
    let told = pid_file.map_or(Ok(()), |file| file.write(process.pid));
    told.map_err(|e| failed("write the pid file", &e))?;
    if let Some(socket) = pidfd_socket {
        sys::socket::send(socket.as_fd(), b"pidfd", &[process.pidfd.as_fd()])
            .map_err(|e| sockets("send the pidfd", e))?;
    }
    let mut master = process.console;
    if let Some(socket) = console
        && let Some(master) = master.take()
    {
        sys::socket::send(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
            .map_err(|e| sockets("send the terminal to the console socket", e))?;
    }
    let Some(signals) = signals else { return Ok(0) };
    relay::until_end(process.pidfd.as_fd(), master, &signals)
        .map_err(|e| failed("wait for the program", &e))
}
