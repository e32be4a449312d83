//! The life of one container.
//!
//! ```text
//! lock, socket ── start ── loop: output, callers, timers ── ended ── drain ── record ── report ── tear down
//! ```

use std::error::Error;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::network::Live;
use runtime::{
    Event, ExitStatus, GuestReport, Plan, Request, Response, StartFailure, StdinMode, code,
};
use runtime_native::{Process, Stdio, cgroup};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use state::{ContainerState, Status, clock};
use sys::clone::namespace::PID;
use sys::lock::{FileLock, Mode};

use crate::client::{Client, Message, Output, write_some};
use crate::log::{Log, Partial};
use crate::network;
use crate::reap::reap;

/// A caller that has so much to read holds the container's output back.
const MAX_BACKLOG: usize = 1 << 20;

/// How long callers have to take the last output after the container has ended.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// How long an earlier monitor of the container has to give everything back.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

const SIGKILL: i32 = 9;

/// One stream of the container.
struct Stream {
    name: &'static str,
    /// `None` at its end.
    fd: Option<OwnedFd>,
    partial: Partial,
}

struct Monitor<'a> {
    plan: &'a Plan,
    state_dir: PathBuf,
    pid: i32,
    pidfd: OwnedFd,
    guest_report: Option<OwnedFd>,
    streams: Vec<Stream>,
    /// The write end of standard input, until a caller has taken it over.
    stdin: Option<OwnedFd>,
    is_terminal: bool,
    log: Log,
    listener: OwnedFd,
    clients: Vec<Client>,
    kill_at: Option<Instant>,
    auto_remove: bool,
    started_at: String,
    network: Option<Live>,
    /// Held so that the container's end is known before they are torn down, which takes 0.5 ms and
    /// more.
    namespaces: [Option<OwnedFd>; 2],
}

fn path(path: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}

/// Runs the container to its end.
pub(crate) fn run(plan: &Plan, report: &OwnedFd) -> Result<(), String> {
    // The front end's terminal and its death are nothing to the container.
    rustix::process::setsid().map_err(|error| format!("cannot start a session: {error}"))?;
    let run_dir = path(&plan.monitor.run_dir);
    // An earlier monitor that has reported the end may still be giving back what the container had.
    let lock = FileLock::acquire(&run_dir.join("lock"), Mode::Exclusive, LOCK_TIMEOUT);
    let lock = lock.map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => "cannot start the container: it is running".to_owned(),
        _ => format!("cannot lock the container: {error}"),
    })?;
    let socket = run_dir.join("ctl.sock");
    sys::durable::remove_tree(&socket)
        .map_err(|error| format!("cannot remove the old control socket: {error}"))?;
    let listener = sys::socket::listen(&socket)
        .map_err(|error| format!("cannot make the control socket: {error}"))?;
    let log =
        Log::open(&plan.monitor.log).map_err(|error| format!("cannot open the log: {error}"))?;
    let mut front_end = Client::new(
        report
            .try_clone()
            .map_err(|error| format!("cannot keep the front end's socket: {error}"))?,
    );
    front_end.watches = true;
    rustix::io::ioctl_fionbio(&front_end.socket, true)
        .map_err(|error| format!("cannot use the front end's socket: {error}"))?;

    let state_dir = path(&plan.monitor.state_dir);
    let (process, network) = match network::start(plan) {
        Ok(started) => started,
        Err(error) => {
            give_up(plan, &state_dir, &mut front_end, error.0);
            return Ok(());
        }
    };
    let mut monitor = Monitor::new(plan, process, state_dir, log, listener);
    monitor.network = network;
    if let Err(failure) = monitor.write_running() {
        // Whom nobody can find must not run.
        monitor.destroy();
        give_up(plan, &monitor.state_dir, &mut front_end, failure);
        return Ok(());
    }
    let started = Event::Started { pid: monitor.pid };
    front_end.send_event(&started);
    monitor.clients.push(front_end);
    // What the front end asked for before it started this program comes before the container's
    // output is read, and so loses none of it.
    monitor.read_request(0);
    if let Some(network) = &mut monitor.network {
        network.settle();
    }
    let status = monitor.serve();
    monitor.end(&status);
    drop(lock);
    Ok(())
}

/// What a wasm host that has ended left in the pipe.
fn read_report(pipe: &OwnedFd) -> Option<GuestReport> {
    rustix::io::ioctl_fionbio(pipe, true).ok()?;
    let mut buffer = [0; GuestReport::MAX_SIZE];
    let length = rustix::io::read(pipe, &mut buffer).ok()?;
    GuestReport::decode(buffer.get(..length)?)
}

/// Records and reports that the container could not be started.
fn give_up(plan: &Plan, state_dir: &Path, front_end: &mut Client, failure: StartFailure) {
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
    let trash = path(&plan.monitor.trash_dir);
    let volumes = plan.monitor.own_volumes.iter().map(|volume| path(volume));
    // Another container that has taken a volume over has removed the file.
    let owned = volumes.filter(|volume| volume.join("owned").exists());
    let trashed = std::iter::once(state_dir.to_owned())
        .chain(owned)
        .filter_map(|dir| sys::durable::discard(&dir, &trash).ok().flatten())
        .collect();
    if let Some(claim) = &plan.monitor.name_claim {
        drop(sys::durable::remove_tree(&path(claim)));
    }
    trashed
}

/// Removes what has no name any more; what stays is found by the next check.
fn delete(trashed: &[PathBuf]) {
    for dir in trashed {
        drop(sys::durable::remove_tree(dir));
    }
}

impl<'a> Monitor<'a> {
    fn new(
        plan: &'a Plan,
        process: Process,
        state_dir: PathBuf,
        log: Log,
        listener: OwnedFd,
    ) -> Self {
        let stream = |name, fd| Stream {
            name,
            fd: Some(fd),
            partial: Partial::default(),
        };
        let (streams, stdin, is_terminal) = match process.stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => (
                vec![stream("stdout", stdout), stream("stderr", stderr)],
                stdin,
                false,
            ),
            Stdio::Console(master) => {
                let input = master.try_clone().ok();
                (vec![stream("stdout", master)], input, true)
            }
            Stdio::Inherited => (Vec::new(), None, false),
        };
        for stream in &streams {
            if let Some(fd) = &stream.fd {
                // A descriptor that cannot be made non-blocking is read when poll says so.
                let _blocking = rustix::io::ioctl_fionbio(fd, true);
            }
        }
        Self {
            plan,
            state_dir,
            pid: process.pid,
            namespaces: sys::process::namespaces(process.pidfd.as_fd()),
            pidfd: process.pidfd,
            guest_report: process.guest_report,
            streams,
            stdin,
            is_terminal,
            log,
            listener,
            clients: Vec::new(),
            kill_at: None,
            auto_remove: plan.monitor.auto_remove,
            started_at: clock::now(),
            network: None,
        }
    }

    fn write_running(&self) -> Result<(), StartFailure> {
        let state = ContainerState {
            status: Status::Running,
            pid: Some(self.pid),
            started_at: Some(self.started_at.clone()),
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

    /// Ends the container at once, with nothing recorded.
    fn destroy(&self) {
        // What has ended by itself cannot be killed, which is as well.
        drop(self.kill_all());
        reap(self.pidfd.as_fd());
        drop(cgroup::remove(&self.plan.init.cgroup));
    }

    /// The loop. Returns when the container has ended and its output is passed on.
    fn serve(&mut self) -> ExitStatus {
        loop {
            let ended = self.turn(true);
            self.clients.retain(|client| !client.gone);
            if let Some(kill_at) = self.kill_at
                && Instant::now() >= kill_at
            {
                self.kill_at = None;
                // It may have ended in this moment.
                let _ended = self.kill_all();
            }
            if ended {
                break;
            }
        }
        let status = self.reap();
        self.kill_others();
        self.drain();
        status
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

    fn kill_all(&self) -> std::io::Result<()> {
        sys::signals::send(self.pidfd.as_fd(), SIGKILL)?;
        cgroup::kill(&self.plan.init.cgroup)
    }

    /// Waits for something and handles it; says whether the container has ended.
    fn turn(&mut self, wait: bool) -> bool {
        let throttled = self
            .clients
            .iter()
            .any(|client| client.backlog() > MAX_BACKLOG);
        let ready = self.poll(wait, throttled);
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
        for index in 0..ready.clients.len() {
            let at = ready.clients[index];
            if at.input {
                self.read_input(index);
            }
            if at.socket {
                self.read_request(index);
            }
        }
        if ready.network
            && let Some(network) = &mut self.network
        {
            network.turn();
        }
        if ready.listener
            && let Ok(socket) = sys::socket::accept(self.listener.as_fd())
        {
            self.accept(socket);
        }
        ready.ended
    }

    fn poll(&self, wait: bool, throttled: bool) -> Ready {
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        if let Some(network) = &self.network {
            fds.push(PollFd::new(network, PollFlags::IN));
        }
        let open: Vec<Option<&OwnedFd>> = self
            .streams
            .iter()
            .map(|s| s.fd.as_ref().filter(|_| !throttled))
            .collect();
        fds.extend(
            open.iter()
                .flatten()
                .map(|fd| PollFd::new(*fd, PollFlags::IN)),
        );
        for client in &self.clients {
            fds.push(PollFd::new(&client.socket, PollFlags::IN));
            for output in client.outputs.iter().flatten() {
                // Without a backlog only its end is of interest.
                let flags = if output.has_backlog() {
                    PollFlags::OUT
                } else {
                    PollFlags::empty()
                };
                fds.push(PollFd::new(&output.pipe, flags));
            }
            if let Some(input) = &client.input {
                fds.push(PollFd::new(input, PollFlags::IN));
            }
        }
        let timeout = if wait {
            self.timeout()
        } else {
            Some(Duration::ZERO)
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // Interrupted: nothing is ready, the loop comes back.
        let _interrupted = poll(&mut fds, timeout.as_ref());
        let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || results.next().unwrap_or(false);
        Ready {
            ended: next(),
            listener: next(),
            network: self.network.is_some() && next(),
            streams: open.iter().map(|fd| fd.is_some() && next()).collect(),
            clients: self
                .clients
                .iter()
                .map(|client| ClientReady {
                    socket: next(),
                    outputs: [
                        client.outputs[0].is_some() && next(),
                        client.outputs[1].is_some() && next(),
                    ],
                    input: client.input.is_some() && next(),
                })
                .collect(),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.kill_at
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Reads a stream until it has nothing more for now.
    fn read_stream(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let Some(fd) = &stream.fd else { return };
        let mut buffer = [0; 32 * 1024];
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer)) {
            Err(Errno::AGAIN) => {}
            // EIO: the last process has closed the terminal.
            Ok(0) | Err(_) => {
                stream.fd = None;
                self.log.finish(stream.name, &mut stream.partial);
                for client in &mut self.clients {
                    close_when_flushed(client, index);
                }
            }
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.log.write(stream.name, &mut stream.partial, bytes);
                for client in &mut self.clients {
                    if let Some(output) = client.outputs.get_mut(index)
                        && output
                            .as_mut()
                            .is_some_and(|output| output.push(bytes).is_err())
                    {
                        *output = None;
                    }
                }
            }
        }
    }

    /// Passes what a caller types on to the terminal.
    fn read_input(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let Some(input) = &client.input else { return };
        let mut buffer = [0; 4096];
        match rustix::io::read(input, &mut buffer) {
            Ok(length) if length > 0 => {
                if let Some(master) = &self.stdin {
                    // A program that does not read its terminal loses what does not fit, as at
                    // any terminal.
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let _full = write_some(master.as_fd(), bytes);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => client.input = None,
        }
    }

    /// Takes a caller in, if it is the owner of this monitor or root.
    fn accept(&mut self, socket: OwnedFd) {
        let owner = rustix::process::geteuid().as_raw();
        if sys::socket::peer_uid(socket.as_fd()).is_ok_and(|uid| uid == owner || uid == 0) {
            self.clients.push(Client::new(socket));
        }
    }

    fn read_request(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match client.receive() {
            Message::Nothing => {}
            Message::Gone => client.gone = true,
            Message::Request(Request::Attach {
                stdin,
                stdout,
                stderr,
            }) => {
                self.attach(index, stdin, [stdout, stderr]);
            }
            Message::Request(request) => {
                if let Some(response) = self.answer(index, &request)
                    && let Some(client) = self.clients.get_mut(index)
                {
                    client.send(&response, &[]);
                }
            }
        }
    }

    /// Does what a caller asks; no answer yet when it waits for the end.
    fn answer(&mut self, index: usize, request: &Request) -> Option<Response> {
        let refused = |errno: Errno| Response::Refused(runtime_native::reason(errno));
        match request {
            Request::Watch => {
                self.clients.get_mut(index)?.watches = true;
                Some(Response::Event(Event::Started { pid: self.pid }))
            }
            Request::Signal(signal) => {
                let sent = sys::signals::send(self.pidfd.as_fd(), *signal);
                Some(sent.map_or_else(refused, |()| Response::Done))
            }
            Request::Stop { signal, timeout_ms } => {
                let monitor = &self.plan.monitor;
                let signal = signal.unwrap_or(monitor.stop_signal);
                let timeout = timeout_ms.unwrap_or(monitor.stop_timeout_ms);
                let sent = sys::signals::send(self.pidfd.as_fd(), signal);
                self.clients.get_mut(index)?.waits_for_end = true;
                self.kill_at = Some(Instant::now() + Duration::from_millis(timeout));
                match sent {
                    Ok(()) | Err(Errno::SRCH) => None,
                    Err(errno) => Some(refused(errno)),
                }
            }
            Request::Resize { rows, columns } => {
                let size = rustix::termios::Winsize {
                    ws_row: *rows,
                    ws_col: *columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let terminal = self.stdin.as_ref().filter(|_| self.is_terminal);
                let done = terminal
                    .ok_or(Errno::NOTTY)
                    .and_then(|terminal| rustix::termios::tcsetwinsize(terminal, size));
                Some(done.map_or_else(refused, |()| Response::Done))
            }
            Request::Remove => {
                self.auto_remove = true;
                self.clients.get_mut(index)?.waits_for_end = true;
                // It may have ended in this moment.
                let _ended = self.kill_all();
                None
            }
            Request::JoinNetwork(bytes) => Some(network::join(self.network.as_mut(), bytes)),
            Request::LeaveNetwork(id) => Some(network::leave(self.network.as_mut(), id)),
            Request::Attach { .. } => None,
        }
    }

    fn attach(&mut self, index: usize, stdin: bool, outputs: [bool; 2]) {
        let prepared = self.prepare_attach(stdin, outputs);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match prepared {
            Ok(streams) => {
                let theirs: Vec<BorrowedFd<'_>> = streams.theirs.iter().map(AsFd::as_fd).collect();
                client.send(&Response::Attached, &theirs);
                client.outputs = streams.outputs;
                client.input = streams.input;
            }
            Err(reason) => client.send(&Response::Refused(reason), &[]),
        }
    }

    fn prepare_attach(&mut self, stdin: bool, wanted: [bool; 2]) -> Result<Attached, String> {
        let failed = |errno: Errno| runtime_native::reason(errno);
        let mut attached = Attached {
            theirs: Vec::new(),
            outputs: [None, None],
            input: None,
        };
        if stdin && self.is_terminal {
            let (ours, theirs) =
                rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
            attached.input = Some(ours);
            attached.theirs.push(theirs);
        } else if stdin {
            let writer = match self.plan.monitor.stdin {
                StdinMode::Keep => self.stdin.as_ref().and_then(|fd| fd.try_clone().ok()),
                StdinMode::Once | StdinMode::Null => self.stdin.take(),
            };
            attached
                .theirs
                .push(writer.ok_or("standard input is not open")?);
        }
        for (index, wanted) in wanted.into_iter().enumerate() {
            let Some(stream) = self.streams.get(index).filter(|_| wanted) else {
                continue;
            };
            let (output, theirs) = Output::new().map_err(failed)?;
            // A stream that has ended gives its end at once.
            if stream.fd.is_some()
                && let Some(slot) = attached.outputs.get_mut(index)
            {
                *slot = Some(output);
            }
            attached.theirs.push(theirs);
        }
        Ok(attached)
    }

    fn reap(&self) -> ExitStatus {
        let status = reap(self.pidfd.as_fd());
        let guest = self.guest_report.as_ref().and_then(read_report);
        ExitStatus {
            oom_killed: cgroup::oom_kills(&self.plan.init.cgroup) > 0
                || guest.as_ref().is_some_and(|guest| guest.out_of_memory),
            error: guest.map(|guest| guest.error),
            ..status
        }
    }

    /// Passes the last output on: everything that is in the pipes, then until callers took it.
    fn drain(&mut self) {
        let deadline = Instant::now() + FLUSH_DEADLINE;
        loop {
            let open = self.streams.iter().any(|stream| stream.fd.is_some());
            let waiting = self.clients.iter().any(|client| client.backlog() > 0);
            if !(open || waiting) || Instant::now() >= deadline {
                return;
            }
            self.kill_at = Some(deadline);
            for index in 0..self.streams.len() {
                self.read_stream(index);
            }
            if waiting {
                self.wait_for_readers();
            }
            self.clients.retain(|client| !client.gone);
        }
    }

    fn wait_for_readers(&mut self) {
        let mut outputs: Vec<&mut Output> = self
            .clients
            .iter_mut()
            .flat_map(|client| client.outputs.iter_mut().flatten())
            .filter(|output| output.has_backlog())
            .collect();
        let mut fds: Vec<PollFd<'_>> = outputs
            .iter()
            .map(|o| PollFd::new(&o.pipe, PollFlags::OUT))
            .collect();
        let timeout = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        // Interrupted: the caller's loop comes back.
        let _interrupted = poll(&mut fds, Some(&timeout));
        drop(fds);
        let broken: Vec<bool> = outputs.iter_mut().map(|o| o.flush().is_err()).collect();
        if broken.contains(&true) {
            for client in &mut self.clients {
                let failed = client
                    .outputs
                    .iter_mut()
                    .flatten()
                    .any(|o| o.flush().is_err());
                client.gone |= failed && !client.watches;
                if failed {
                    client.outputs = [None, None];
                }
            }
        }
    }

    /// Records the end, reports it, and clears up.
    fn end(&mut self, status: &ExitStatus) {
        let state = ContainerState {
            status: Status::Exited,
            pid: None,
            exit_code: Some(status.code),
            oom_killed: status.oom_killed,
            error: status.error.clone(),
            started_at: Some(self.started_at.clone()),
            finished_at: Some(clock::now()),
            ..ContainerState::created()
        };
        // The streams end before the report, so that a caller has all output when it hears of it.
        for client in &mut self.clients {
            client.outputs = [None, None];
        }
        if let Some(network) = &mut self.network {
            network.release_ports();
        }
        let trashed = finish_records(self.plan, &self.state_dir, &state, self.auto_remove);
        for client in &mut self.clients {
            if client.waits_for_end {
                client.send_last(&Response::Done);
            } else if client.watches {
                client.send_last(&Response::Event(Event::Exited(status.clone())));
            }
        }
        self.namespaces = [None, None];
        if let Some(mut network) = self.network.take() {
            network.release();
        }
        // Nobody waits for this; what stays is found by the next check.
        drop(cgroup::remove(&self.plan.init.cgroup));
        if self.auto_remove {
            drop(sys::durable::remove_tree(&path(&self.plan.monitor.run_dir)));
        }
        delete(&trashed);
    }
}

/// What `poll` said.
struct Ready {
    ended: bool,
    listener: bool,
    network: bool,
    streams: Vec<bool>,
    clients: Vec<ClientReady>,
}

#[derive(Clone, Copy)]
struct ClientReady {
    socket: bool,
    outputs: [bool; 2],
    input: bool,
}

/// The pipes of one attach.
struct Attached {
    theirs: Vec<OwnedFd>,
    outputs: [Option<Output>; 2],
    input: Option<OwnedFd>,
}

fn close_when_flushed(client: &mut Client, index: usize) {
    if let Some(output) = client.outputs.get_mut(index)
        && output.as_ref().is_some_and(|output| !output.has_backlog())
    {
        *output = None;
    }
}
