//! A further program in a running container: its namespaces by pidfd, its control groups, then the
//! same last steps as a container's init.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{ContainerFacts, ExecPlan, Program, StartFailure, code};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::ThreadNameSpaceType;
use sys::clone::{Side, clone_process, namespace};
use sys::exec::{CStringArray, exit_now};

use crate::cgroup::Entrances;
use crate::hooks::HookState;
use crate::init::{self, At, ConsoleRequest};
use crate::listener;
use crate::start::{StartError, read_message};
use crate::step::{Failure, Message, Step, exec_failure, reason};

/// A program that was started beside a container's own.
#[derive(Debug)]
pub struct ExecProcess {
    /// Its process, as the caller sees it.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The master side of its terminal; without one it has the caller's streams.
    pub console: Option<OwnedFd>,
}

fn failed(what: &str, errno: Errno) -> StartError {
    let message = format!("cannot {what}: {}", reason(errno));
    StartError(StartFailure {
        code: code::ENGINE,
        message,
    })
}

/// The namespaces that are entered where they are not the caller's own: flag and name below
/// `/proc/<pid>/ns` (namespaces(7)).
const NAMESPACES: [(u64, &str); 7] = [
    (namespace::USER, "user"),
    (namespace::MOUNT, "mnt"),
    (namespace::UTS, "uts"),
    (namespace::IPC, "ipc"),
    (namespace::PID, "pid"),
    (namespace::NET, "net"),
    (namespace::CGROUP, "cgroup"),
];

/// Those namespaces of a container's process that this one does not stand in itself.
///
/// # Errors
/// When there is no such process.
pub fn foreign_namespaces(pid: i32) -> io::Result<u64> {
    let mut flags = 0;
    for (flag, name) in NAMESPACES {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}"))?;
        if theirs != ours {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// Starts the program. The calling process moves into the container's namespaces for good, so it
/// can do nothing else afterwards but wait.
///
/// # Errors
/// What could not be done, with the exit code for it.
pub fn exec(plan: &ExecPlan, stdio: [BorrowedFd<'_>; 3]) -> Result<ExecProcess, StartError> {
    let target = open_target(plan)?;
    let cgroup_dir = match &plan.cgroup_clone_into {
        Some(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(&**path, flags, Mode::empty());
            Some(dir.map_err(|e| failed("open the container's cgroup", e))?)
        }
        None => None,
    };
    let (go_read, go_write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe", e))?;
    let (report_read, report_write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe", e))?;
    let console = match plan.console {
        Some(size) => Some((
            sys::socket::pair().map_err(|e| failed("make a socket", e))?,
            size,
        )),
        None => None,
    };
    let args = CStringArray::new(plan.process.args.clone());
    let env = CStringArray::new(plan.process.env.clone());
    // The files of the host's cgroups are out of sight once the mount namespace is entered.
    let groups = Entrances::open(&plan.cgroup_enter).map_err(StartError)?;

    if let Some(mask) = &plan.process.affinity.initial {
        sys::schedule::set_cpu_affinity(mask).map_err(|e| failed("set the CPUs", e))?;
    }
    let flags = u32::try_from(plan.namespaces)
        .map_err(|_| failed("enter the container's namespaces", Errno::INVAL))?;
    let flags = ThreadNameSpaceType::from_bits_retain(flags);
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), flags)
        .map_err(|e| failed("enter the container's namespaces", e))?;
    let side = clone_process(0, cgroup_dir.as_ref().map(AsFd::as_fd))
        .map_err(|e| failed("clone", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    let (pid, pidfd) = match side {
        Side::Child => Child {
            plan,
            args: &args,
            env: &env,
            groups: &groups,
            go: go_read.as_fd(),
            stdio,
            console: console.as_ref().map(|((_, socket), size)| ConsoleRequest {
                socket: socket.as_fd(),
                size: *size,
                owner: plan.process.uid,
            }),
        }
        .run(report_write.as_fd()),
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((go_read, report_write, groups));
    let mut go = File::from(go_write);
    Talk {
        plan,
        pid,
        pidfd: pidfd.as_fd(),
    }
    .wait_for_exec(&mut go, report_read)?;
    let console = match console {
        Some(((ours, theirs), _)) => {
            drop(theirs);
            let mut buffer = [0; 8];
            let received = sys::socket::receive(ours.as_fd(), &mut buffer)
                .map_err(|e| failed("get the terminal", e))?;
            received.descriptors.into_iter().next()
        }
        None => None,
    };
    Ok(ExecProcess {
        pid,
        pidfd,
        console,
    })
}

/// The container's init, if it is still the same process.
fn open_target(plan: &ExecPlan) -> Result<OwnedFd, StartError> {
    let gone = || {
        StartError(StartFailure {
            code: code::ENGINE,
            message: "cannot execute in the container: it is not running".to_owned(),
        })
    };
    let pid = Pid::from_raw(plan.pid).ok_or_else(gone)?;
    let target = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    if sys::process::start_time(plan.pid).ok() != Some(plan.start_time) {
        return Err(gone());
    }
    Ok(target)
}

/// The parent's side of the talk with the child.
struct Talk<'a> {
    plan: &'a ExecPlan,
    pid: i32,
    pidfd: BorrowedFd<'a>,
}

impl Talk<'_> {
    fn wait_for_exec(&self, go: &mut File, report: OwnedFd) -> Result<(), StartError> {
        let broken = |e: io::Error| {
            failed(
                "hear from the program",
                Errno::from_io_error(&e).unwrap_or(Errno::IO),
            )
        };
        let mut report = File::from(report);
        while let Some(bytes) = read_message(&mut report).map_err(broken)? {
            match Message::decode(bytes) {
                Some(Message::Failed(failure)) => return Err(self.describe(failure)),
                Some(Message::Listener(number)) => self.pass_listener(number)?,
                _ => {}
            }
            go.write_all(b"g").map_err(broken)?;
        }
        Ok(())
    }

    /// The filter of a further program has a listener of its own.
    fn pass_listener(&self, number: i32) -> Result<(), StartError> {
        let Some(listener) = &self.plan.process.seccomp_listener else {
            return Ok(());
        };
        let about = ContainerFacts::default();
        let state = HookState::new(&about, "running", Some(self.plan.pid));
        listener::pass(listener, &state, self.pid, self.pidfd, number)
    }

    fn describe(&self, failure: Failure) -> StartError {
        match failure.step {
            Step::Exec => StartError(exec_failure(
                self.plan.process.args.first().map(AsRef::as_ref),
                failure.errno,
            )),
            Step::Chdir | Step::CwdOutside => {
                let cwd = self.plan.process.cwd.to_string_lossy();
                let what = format!("enter the working directory `{cwd}`");
                failed(&what, failure.errno)
            }
            step => failed(
                &format!("execute in the container ({step:?})"),
                failure.errno,
            ),
        }
    }
}

/// The child: session, streams, limits, identity, `execve`.
struct Child<'a> {
    plan: &'a ExecPlan,
    args: &'a CStringArray,
    env: &'a CStringArray,
    groups: &'a Entrances,
    go: BorrowedFd<'a>,
    stdio: [BorrowedFd<'a>; 3],
    console: Option<ConsoleRequest<'a>>,
}

impl Child<'_> {
    fn run(&self, report: BorrowedFd<'_>) -> ! {
        let failure = match self.steps(report) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        // The parent may be gone; then there is nobody to tell.
        let _gone = rustix::io::write(report, &failure.encode());
        exit_now(127)
    }

    fn steps(&self, report: BorrowedFd<'_>) -> init::Result<std::convert::Infallible> {
        let process = &self.plan.process;
        init::enter_groups(self.groups)?;
        match &self.console {
            Some(request) => {
                rustix::process::setsid().at(Step::Session)?;
                init::attach_console(request)?;
            }
            None => {
                for (number, from) in (0..).zip(self.stdio) {
                    sys::exec::place_descriptor(from, number).at(Step::Stdio)?;
                }
            }
        }
        let announce = init::Announce {
            report,
            go: self.go,
        };
        // What a filter may hold back comes before it.
        sys::exec::reset_signals();
        let first = process.preserve_descriptors.saturating_add(3);
        sys::exec::close_on_exec_from(first).at(Step::CloseDescriptors)?;
        init::assume_identity(process, &announce)?;
        match &process.program {
            Program::Path(candidates) => {
                Err(init::try_candidates(candidates, self.args, self.env)).at(Step::Exec)
            }
            Program::Wasm(_) => Err(Errno::INVAL).at(Step::Exec),
        }
    }
}
