//! The parent's side of a start: pipes, control groups, the clone, id maps, and the answer of the
//! child. Runs in `ketch-init`, which has one thread.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use runtime::{Console, IdMap, InitPlan, Program, StartFailure, StdinMode, UserMap, code};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::clone::{Side, clone_process, namespace};
use sys::exec::CStringArray;

use crate::cgroup;
use crate::init::{Child, ConsoleRequest};
use crate::step::{Failure, reason};

/// Why a container could not be started, with nothing of it left.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct StartError(pub StartFailure);

impl StartError {
    fn engine(what: &str, error: &io::Error) -> Self {
        let why = Errno::from_io_error(error).map_or_else(|| error.to_string(), reason);
        Self(StartFailure {
            code: code::ENGINE,
            message: format!("cannot {what}: {why}"),
        })
    }
}

/// The monitor's ends of the container's streams.
#[derive(Debug)]
pub enum Stdio {
    /// A pipe for each stream.
    Pipes {
        /// Write end of standard input, when it is open.
        stdin: Option<OwnedFd>,
        /// Read end of standard output.
        stdout: OwnedFd,
        /// Read end of standard error.
        stderr: OwnedFd,
    },
    /// The master side of the terminal.
    Console(OwnedFd),
}

/// A running container.
#[derive(Debug)]
pub struct Process {
    /// Its init, on the host.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its streams.
    pub stdio: Stdio,
}

/// Makes the control groups, clones the init and waits until its program runs.
///
/// On failure the control groups are removed again.
///
/// # Errors
/// What could not be done, with the exit code for it.
pub fn start(
    plan: &InitPlan,
    stdin: StdinMode,
    console: Option<Console>,
) -> Result<Process, StartError> {
    cgroup::create(&plan.cgroup).map_err(StartError)?;
    let result = start_in_cgroup(plan, stdin, console);
    if result.is_err() {
        // The first error is the one to report; what is left is found by the next check.
        drop(cgroup::remove(&plan.cgroup));
    }
    result
}

/// The child's ends, closed in the parent after the clone.
struct ChildEnds {
    stdio: Option<[OwnedFd; 3]>,
    console: Option<OwnedFd>,
}

fn start_in_cgroup(
    plan: &InitPlan,
    stdin: StdinMode,
    console: Option<Console>,
) -> Result<Process, StartError> {
    let pipes = |error: Errno| StartError::engine("make the container's pipes", &error.into());
    let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC).map_err(pipes)?;
    let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC).map_err(pipes)?;
    let (ours, theirs) = streams(stdin, console).map_err(pipes)?;
    let args = CStringArray::new(plan.process.args.clone());
    let env = CStringArray::new(environment(plan));
    let wasm_spec = wasm_spec(plan)?;
    let cgroup_dir = clone_cgroup(plan)?;
    join_pid_namespace(plan)?;

    let flags = plan
        .namespaces
        .iter()
        .filter(|n| n.path.is_none() && n.flag != namespace::CGROUP)
        .fold(0, |flags, n| flags | n.flag);
    let side = clone_process(flags, cgroup_dir.as_ref().map(AsFd::as_fd))
        .map_err(|error| clone_failure(flags, &error))?;
    let (pid, pidfd) = match side {
        Side::Child => {
            let stdio = theirs.stdio.as_ref();
            Child {
                plan,
                args: &args,
                env: &env,
                go: go_read.as_fd(),
                report: report_write.as_fd(),
                stdio: stdio.map(|[i, o, e]| [i.as_fd(), o.as_fd(), e.as_fd()]),
                console: theirs.console.as_ref().zip(console).map(|(socket, size)| {
                    ConsoleRequest {
                        socket: socket.as_fd(),
                        size,
                        owner: plan.process.uid,
                    }
                }),
                wasm_spec: wasm_spec.as_ref().map(AsFd::as_fd),
            }
            .run()
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((go_read, report_write, theirs, wasm_spec));

    let started = release(plan, pid, go_write)
        .and_then(|()| answer(plan, report_read))
        .and_then(|()| ours.collect());
    match started {
        Ok(stdio) => Ok(Process { pid, pidfd, stdio }),
        Err(failure) => {
            // It may have ended by itself.
            let _ended = sys::signals::send(pidfd.as_fd(), 9);
            let _reaped = rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            Err(failure)
        }
    }
}

/// The environment of the program. A wasm guest's is in its specification: the host's own is empty.
fn environment(plan: &InitPlan) -> Vec<CString> {
    match plan.process.program {
        Program::Path(_) => plan.process.env.clone(),
        Program::Wasm(_) => Vec::new(),
    }
}

fn wasm_spec(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    match &plan.process.program {
        Program::Path(_) => Ok(None),
        Program::Wasm(wasm) => sys::sealed::seal("ketch-wasm-spec", &wasm.spec)
            .map(Some)
            .map_err(|error| StartError::engine("hand the wasm host its specification", &error)),
    }
}

fn clone_cgroup(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    let Some(path) = &plan.cgroup.clone_into else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(&**path, flags, Mode::empty());
    open.map(Some)
        .map_err(|e| StartError::engine("open the container's cgroup", &e.into()))
}

/// Joins a pid namespace by path: it holds for the children of this process.
fn join_pid_namespace(plan: &InitPlan) -> Result<(), StartError> {
    let joined = plan
        .namespaces
        .iter()
        .find(|n| n.flag == namespace::PID && n.path.is_some());
    let Some(path) = joined.and_then(|n| n.path.as_ref()) else {
        return Ok(());
    };
    let failed = |e: Errno| StartError::engine("join the pid namespace", &e.into());
    let file = rustix::fs::open(&**path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let kind = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).map_err(failed)
}

fn clone_failure(flags: u64, error: &io::Error) -> StartError {
    let what = "create the container's namespaces";
    let mut failure = StartError::engine(what, error);
    match error.raw_os_error() {
        Some(libc_errno::EPERM) if flags & namespace::USER != 0 => {
            failure.0.message.push_str(
                " (user namespaces are switched off: see the sysctls kernel.unprivileged_userns_clone and user.max_user_namespaces)",
            );
        }
        Some(libc_errno::ENOSPC) => {
            failure
                .0
                .message
                .push_str(" (a limit of user.max_*_namespaces is reached)");
        }
        _ => {}
    }
    failure
}

/// The two errors that get a hint.
mod libc_errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOSPC: i32 = 28;
}

/// Our ends of the streams before the child has answered.
enum Ours {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Console(OwnedFd),
}

impl Ours {
    /// With a terminal, takes the master side that the child has sent.
    fn collect(self) -> Result<Stdio, StartError> {
        match self {
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => Ok(Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            }),
            Self::Console(socket) => {
                let mut buffer = [0; 8];
                let failed =
                    |e: Errno| StartError::engine("get the container's terminal", &e.into());
                let received = sys::socket::receive(socket.as_fd(), &mut buffer).map_err(failed)?;
                let master = received.descriptors.into_iter().next().ok_or(Errno::PIPE);
                Ok(Stdio::Console(master.map_err(failed)?))
            }
        }
    }
}

fn streams(stdin: StdinMode, console: Option<Console>) -> Result<(Ours, ChildEnds), Errno> {
    if console.is_some() {
        let (ours, theirs) = sys::socket::pair()?;
        return Ok((
            Ours::Console(ours),
            ChildEnds {
                stdio: None,
                console: Some(theirs),
            },
        ));
    }
    let (in_theirs, in_ours) = match stdin {
        StdinMode::Null => {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            (rustix::fs::open(c"/dev/null", flags, Mode::empty())?, None)
        }
        StdinMode::Once | StdinMode::Keep => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(write))
        }
    };
    let (out_ours, out_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_ours, err_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((
        Ours::Pipes {
            stdin: in_ours,
            stdout: out_ours,
            stderr: err_ours,
        },
        ChildEnds {
            stdio: Some([in_theirs, out_theirs, err_theirs]),
            console: None,
        },
    ))
}

/// Writes the id maps, puts the child into its control groups and lets it go on.
fn release(plan: &InitPlan, pid: i32, go: OwnedFd) -> Result<(), StartError> {
    let mut go = File::from(go);
    let signal = |go: &mut File| {
        go.write_all(b"g")
            .map_err(|e| StartError::engine("talk to the container's init", &e))
    };
    if let Some(map) = &plan.user_map {
        write_maps(pid, map).map_err(|e| StartError::engine("map the container's ids", &e))?;
        signal(&mut go)?;
    }
    cgroup::enter(&plan.cgroup, pid).map_err(StartError)?;
    // A child that has already failed does not read: its report says why.
    drop(signal(&mut go));
    Ok(())
}

fn write_maps(pid: i32, map: &UserMap) -> io::Result<()> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{pid}/{file}");
        File::options()
            .write(true)
            .open(path)?
            .write_all(text.as_bytes())
    };
    if map.deny_setgroups {
        write("setgroups", "deny")?;
    }
    write("uid_map", &map_text(&map.uid))?;
    write("gid_map", &map_text(&map.gid))
}

fn map_text(maps: &[IdMap]) -> String {
    maps.iter()
        .map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count))
        .collect()
}

/// Waits for the end of the report pipe: closed by `execve`, or after a failure was written.
fn answer(plan: &InitPlan, report: OwnedFd) -> Result<(), StartError> {
    let mut bytes = [0; Failure::SIZE];
    let mut report = File::from(report);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match report.read(room) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StartError::engine("hear from the container's init", &error)),
        }
    }
    if length == 0 {
        return Ok(());
    }
    let failure = Failure::decode(bytes).map(|failure| failure.describe(plan));
    Err(StartError(failure.unwrap_or_else(|| StartFailure {
        code: code::ENGINE,
        message: "cannot start the container: its init gave no reason".to_owned(),
    })))
}
