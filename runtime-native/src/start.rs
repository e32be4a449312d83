//! The parent's side of a start: pipes, control groups, the clone, id maps, and the answer of the
//! child. Runs in `ketch-init`, which has one thread.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use runtime::{Console, InitPlan, Program, StartFailure, StdinMode, code};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::clone::{Side, clone_process, namespace};
use sys::exec::CStringArray;

use crate::cgroup::{self, Entrances};
use crate::hooks::{self, HookState};
use crate::init::{Child, ConsoleRequest, InitHooks};
use crate::listener;
use crate::prepare::{self, Prepared};
use crate::step::{Failure, Message, reason};
use crate::trace::Steps;
use crate::{net_devices, users};

/// Why a container could not be started, with nothing of it left.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct StartError(pub StartFailure);

impl StartError {
    pub(crate) fn engine(what: &str, error: &io::Error) -> Self {
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
    /// The caller's own, which the container has now.
    Inherited,
}

/// Where a container's standard streams come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// A pipe for each.
    Pipes(StdinMode),
    /// A terminal.
    Console(Console),
    /// The caller's own.
    Inherited,
}

/// The two pipes by which another process starts a container that was created before: a byte in
/// the first lets it go on; the second ends without a byte when its program runs.
#[derive(Debug)]
pub struct Gate {
    /// Read by the container's init.
    pub start: OwnedFd,
    /// Written by it when a last step fails.
    pub report: OwnedFd,
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
    /// Of a wasm container: where the host says how the guest ended, a [`runtime::GuestReport`].
    pub guest_report: Option<OwnedFd>,
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
    let streams = console.map_or(Streams::Pipes(stdin), Streams::Console);
    launch(plan, streams, None, &mut |_| Ok(()))
}

/// As [`start`]; with a gate only until everything but the program's start is done. `created` is
/// told the number of the init as soon as there is one, before any hook.
///
/// # Errors
/// As [`start`].
pub fn launch(
    plan: &InitPlan,
    streams: Streams,
    gate: Option<&Gate>,
    created: &mut dyn FnMut(i32) -> Result<(), StartFailure>,
) -> Result<Process, StartError> {
    let mut steps = Steps::new(plan.trace.as_ref())
        .map_err(|error| StartError::engine("write the steps of the start", &error))?;
    cgroup::create(&plan.cgroup).map_err(StartError)?;
    steps.mark("cgroups-made");
    let result = start_in_cgroup(plan, streams, gate, created, &mut steps);
    steps.mark("running");
    steps.write();
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

/// What the hooks inside the container are told, filled in once its number is known.
struct HookStates {
    create_container: OwnedFd,
    start_container: OwnedFd,
}

fn start_in_cgroup(
    plan: &InitPlan,
    streams_wanted: Streams,
    gate: Option<&Gate>,
    created: &mut dyn FnMut(i32) -> Result<(), StartFailure>,
    steps: &mut Steps,
) -> Result<Process, StartError> {
    let pipes = |error: Errno| StartError::engine("make the container's pipes", &error.into());
    let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC).map_err(pipes)?;
    let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC).map_err(pipes)?;
    let (ours, theirs) = streams(streams_wanted).map_err(pipes)?;
    let states = hook_states(plan).map_err(|e| StartError::engine("prepare the hooks", &e))?;
    let args = CStringArray::new(plan.process.args.clone());
    let env = CStringArray::new(environment(plan));
    let hooks = InitHooks::new(&plan.hooks);
    let (guest_report, wasm) = wasm_ends(plan)?.unzip();
    let cgroup_dir = clone_cgroup(plan)?;
    let prepared = Prepared::new(plan)?;
    let init = first_process(plan)?;
    let groups = Entrances::open(&plan.cgroup.enter).map_err(StartError)?;
    join_pid_namespace(plan)?;
    let own_time = own_time(plan)?;
    steps.mark("prepared");

    let left_to_others = namespace::CGROUP | own_time.as_ref().map_or(0, |_| namespace::TIME);
    let flags = plan
        .namespaces
        .iter()
        .filter(|n| n.path.is_none() && n.flag & left_to_others == 0)
        .fold(0, |flags, n| flags | n.flag);
    let group = cgroup_dir.as_ref().map(AsFd::as_fd);
    let side = match joined_users(plan) {
        Some(path) => users::clone_into(path, flags, group),
        None => clone_process(flags, group),
    };
    let side = side.map_err(|error| clone_failure(flags, &error))?;
    let (pid, pidfd) = match side {
        Side::Child => {
            let stdio = theirs.stdio.as_ref();
            Child {
                plan,
                args: &args,
                env: &env,
                hooks: &hooks,
                hook_states: states
                    .as_ref()
                    .map(|s| [s.create_container.as_fd(), s.start_container.as_fd()]),
                prepared: &prepared,
                begin: steps.begin(),
                init: init.as_ref().map(AsFd::as_fd),
                groups: &groups,
                gate: gate.map(|gate| [gate.start.as_fd(), gate.report.as_fd()]),
                go: go_read.as_fd(),
                report: report_write.as_fd(),
                stdio: stdio.map(|[i, o, e]| [i.as_fd(), o.as_fd(), e.as_fd()]),
                console: console_request(&theirs, streams_wanted, plan),
                wasm: wasm
                    .as_ref()
                    .map(|[spec, report]| [spec.as_fd(), report.as_fd()]),
            }
            .run()
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    steps.mark("cloned");
    drop((go_read, report_write, theirs, wasm, prepared, groups, init));

    let mut parent = Parent {
        plan,
        pid,
        pidfd: pidfd.as_fd(),
        go: File::from(go_write),
        states,
        steps,
    };
    let started = leave_time(own_time)
        .and_then(|()| created(pid).map_err(StartError))
        .and_then(|()| {
            parent.steps.mark("announced");
            parent.release()
        })
        .and_then(|()| parent.answer(report_read));
    if started.is_err() {
        end(pidfd.as_fd());
    }
    match (started, ours.collect()) {
        (Ok(()), Ok(stdio)) => Ok(Process {
            pid,
            pidfd,
            stdio,
            guest_report,
        }),
        (Err(mut failure), Ok(Stdio::Console(master))) => {
            // What a hook has printed there nobody else will show.
            let shown = left_in(master.as_fd());
            if !shown.is_empty() {
                failure.0.message.push_str(", output: ");
                failure.0.message.push_str(&shown);
            }
            Err(failure)
        }
        (Err(failure), _) => Err(failure),
        (Ok(()), Err(failure)) => {
            end(pidfd.as_fd());
            Err(failure)
        }
    }
}

/// Ends an init whose start has failed.
fn end(pidfd: BorrowedFd<'_>) {
    // It may have ended by itself.
    let _ended = sys::signals::send(pidfd, 9);
    let _reaped = rustix::process::waitid(
        rustix::process::WaitId::PidFd(pidfd),
        rustix::process::WaitIdOptions::EXITED,
    );
}

/// What a terminal still holds whose other side is closed: as much as an error message can show.
fn left_in(master: BorrowedFd<'_>) -> String {
    const SHOWN: usize = 1024;
    let mut bytes = [0; SHOWN];
    let mut length = 0;
    // A descriptor that somebody else has kept open must not hold us up.
    if rustix::io::ioctl_fionbio(master, true).is_err() {
        return String::new();
    }
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match rustix::io::read(master, room) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    // A program's text, not a command to whatever shows the message.
    let plain = |c: &char| !c.is_control() || *c == '\n';
    text.trim().chars().filter(plain).collect()
}

fn console_request<'a>(
    ends: &'a ChildEnds,
    streams: Streams,
    plan: &InitPlan,
) -> Option<ConsoleRequest<'a>> {
    let Streams::Console(size) = streams else {
        return None;
    };
    let socket = ends.console.as_ref()?.as_fd();
    Some(ConsoleRequest {
        socket,
        size,
        owner: plan.process.uid,
    })
}

fn hook_states(plan: &InitPlan) -> io::Result<Option<HookStates>> {
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

fn own_time(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    let mut namespaces = plan.namespaces.iter();
    let joined = namespaces.find(|n| n.flag == namespace::TIME && n.path.is_some());
    if let Some(path) = joined.and_then(|n| n.path.as_ref()) {
        let what = format!("join the namespace `{}`", path.to_string_lossy());
        return prepare::join_time_namespace(path)
            .map(Some)
            .map_err(|error| StartError::engine(&what, &error));
    }
    let Some(offsets) = &plan.time_offsets else {
        return Ok(None);
    };
    prepare::enter_time_namespace(offsets)
        .map(Some)
        .map_err(|error| StartError::engine("set the time namespace's offsets", &error))
}

fn leave_time(own: Option<OwnedFd>) -> Result<(), StartError> {
    own.map_or(Ok(()), |own| {
        prepare::leave_time_namespace(own.as_fd())
            .map_err(|error| StartError::engine("return to the host's time namespace", &error))
    })
}

/// The environment of the program. A wasm guest's is in its specification: the host's own is empty.
fn environment(plan: &InitPlan) -> Vec<CString> {
    match plan.process.program {
        Program::Path(_) => plan.process.env.clone(),
        Program::Wasm(_) => Vec::new(),
    }
}

/// For a wasm container: the read end of the guest's report, and what the host gets, its
/// specification and the report's write end.
fn wasm_ends(plan: &InitPlan) -> Result<Option<(OwnedFd, [OwnedFd; 2])>, StartError> {
    let Program::Wasm(wasm) = &plan.process.program else {
        return Ok(None);
    };
    let failed =
        |error: io::Error| StartError::engine("hand the wasm host its specification", &error);
    let spec = sys::sealed::seal("ketch-wasm-spec", &wasm.spec).map_err(failed)?;
    let (read, write) = lasting_pipe().map_err(|errno| failed(errno.into()))?;
    Ok(Some((read, [spec, write])))
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

/// The executable of `--init`, opened while the host's tree is in sight.
fn first_process(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    let Some(path) = &plan.process.init else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = rustix::fs::open(&**path, flags, Mode::empty());
    open.map(Some)
        .map_err(|e| StartError::engine("open the container's first process", &e.into()))
}

/// The user namespace that is joined.
fn joined_users(plan: &InitPlan) -> Option<&CString> {
    let users = plan.namespaces.iter().find(|n| n.flag == namespace::USER);
    users?.path.as_ref()
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
    Ready(Stdio),
    Console(OwnedFd),
}

impl Ours {
    /// With a terminal, takes the master side that the child has sent.
    fn collect(self) -> Result<Stdio, StartError> {
        match self {
            Self::Ready(stdio) => Ok(stdio),
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

/// A pipe for what the container writes. Its own end can be read as well, so the pipe always has a
/// reader: when the monitor is killed, who writes waits for another one to read on (`ketch-init
/// rescue`) instead of being killed by SIGPIPE. The end of the stream comes as with any other pipe.
fn lasting_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    let both = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok((read, both))
}

fn streams(wanted: Streams) -> Result<(Ours, ChildEnds), Errno> {
    let none = ChildEnds {
        stdio: None,
        console: None,
    };
    let stdin = match wanted {
        Streams::Pipes(stdin) => stdin,
        Streams::Inherited => return Ok((Ours::Ready(Stdio::Inherited), none)),
        Streams::Console(_) => {
            let (ours, theirs) = sys::socket::pair()?;
            let console = Some(theirs);
            return Ok((Ours::Console(ours), ChildEnds { console, ..none }));
        }
    };
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
    let (stdout, out_theirs) = lasting_pipe()?;
    let (stderr, err_theirs) = lasting_pipe()?;
    let ours = Ours::Ready(Stdio::Pipes {
        stdin: in_ours,
        stdout,
        stderr,
    });
    let stdio = Some([in_theirs, out_theirs, err_theirs]);
    Ok((ours, ChildEnds { stdio, ..none }))
}

/// The parent's side of the talk with a container's init.
struct Parent<'a> {
    plan: &'a InitPlan,
    pid: i32,
    pidfd: BorrowedFd<'a>,
    go: File,
    states: Option<HookStates>,
    steps: &'a mut Steps,
}

impl Parent<'_> {
    /// Writes the id maps and lets the child go on.
    fn release(&mut self) -> Result<(), StartError> {
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
    fn answer(&mut self, report: OwnedFd) -> Result<(), StartError> {
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
