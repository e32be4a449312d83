//! A further program in a running container: started, signalled, awaited. Its streams go to the
//! front end directly, a terminal as well; what has to stay here is the parent of the program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{Event, ExecPlan, Request, Response, StartFailure, code};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, setsid};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::client::{Client, Message};
use crate::reap::reap;

/// Runs the program to its end.
pub(crate) fn run(plan: &ExecPlan, report: &OwnedFd) -> Result<(), StartFailure> {
    // The front end's terminal is nothing to the program, and what this process holds open is
    // nothing to the container's other programs: they must not look into the one that is about to
    // be theirs before it is (CVE-2016-9962).
    setsid().map_err(|errno| failure("start a session", errno))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| failure("hide from the container", errno))?;
    let socket = report
        .try_clone()
        .map_err(|_| failure("keep the front end's socket", Errno::MFILE))?;
    rustix::io::ioctl_fionbio(&socket, true)
        .map_err(|errno| failure("use the front end's socket", errno))?;
    let mut front_end = Client::new(socket);
    front_end.watches = true;
    let wanted = wanted(&front_end);
    let pipes = |errno| failure("make the program's pipes", errno);
    let (theirs, mut ours) = match plan.console {
        Some(_) => (streams([false; 3]).map_err(pipes)?.0, Vec::new()),
        None => streams(wanted.unwrap_or_default()).map_err(pipes)?,
    };
    let stdio = [theirs[0].as_fd(), theirs[1].as_fd(), theirs[2].as_fd()];
    let process = runtime_native::exec(plan, stdio).map_err(|error| error.0)?;
    drop(theirs);
    front_end.send_event(&Event::Started { pid: process.pid });
    if let (Some([stdin, stdout, _]), Some(console)) = (wanted, &process.console) {
        for _ in [stdin, stdout].into_iter().filter(|wanted| *wanted) {
            let end = console.try_clone();
            ours.push(end.map_err(|_| failure("share the terminal", Errno::MFILE))?);
        }
    }
    if wanted.is_some() {
        let ours: Vec<BorrowedFd<'_>> = ours.iter().map(AsFd::as_fd).collect();
        front_end.send(&Response::Attached, &ours);
    }
    drop(ours);
    let mut supervisor = Supervisor {
        front_end: Some(front_end),
        pidfd: process.pidfd,
        console: process.console,
        is_detached: wanted.is_none(),
    };
    supervisor.serve();
    Ok(())
}

fn failure(what: &str, errno: Errno) -> StartFailure {
    StartFailure {
        code: code::ENGINE,
        message: format!("cannot {what}: {}", runtime_native::reason(errno)),
    }
}

/// Which streams the front end wants: it has asked before it started this program. None at all when
/// it goes on without the program.
fn wanted(front_end: &Client) -> Option<[bool; 3]> {
    match front_end.receive() {
        Message::Request(Request::Attach {
            stdin,
            stdout,
            stderr,
        }) => Some([stdin, stdout, stderr]),
        _ => None,
    }
}

/// The program's three streams, and the other ends of those that are wanted; `/dev/null` for the
/// rest. The front end's own descriptors never reach the program: through a terminal among them it
/// could type into the caller's shell.
fn streams(wanted: [bool; 3]) -> Result<([OwnedFd; 3], Vec<OwnedFd>), Errno> {
    let mut ours = Vec::with_capacity(3);
    let mut make = |index: usize| {
        if !wanted[index] {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            return rustix::fs::open(c"/dev/null", flags, Mode::empty());
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (end, other) = if index == 0 {
            (read, write)
        } else {
            (write, read)
        };
        ours.push(other);
        Ok(end)
    };
    let theirs = [make(0)?, make(1)?, make(2)?];
    Ok((theirs, ours))
}

/// What is left to do while the program runs.
struct Supervisor {
    front_end: Option<Client>,
    pidfd: OwnedFd,
    console: Option<OwnedFd>,
    /// Nobody reads the terminal, so it is read here.
    is_detached: bool,
}

impl Supervisor {
    fn serve(&mut self) {
        loop {
            let [ended, asked, printed] = self.poll();
            if printed {
                self.discard_output();
            }
            if asked {
                self.answer();
            }
            if ended {
                break;
            }
        }
        let status = reap(self.pidfd.as_fd());
        self.console = None;
        if let Some(front_end) = &mut self.front_end {
            front_end.send_last(&Response::Event(Event::Exited(status)));
        }
    }

    fn poll(&self) -> [bool; 3] {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        if let Some(front_end) = &self.front_end {
            fds.push(PollFd::new(&front_end.socket, PollFlags::IN));
        }
        let console = self.console.as_ref().filter(|_| self.is_detached);
        if let Some(console) = console {
            fds.push(PollFd::new(console, PollFlags::IN));
        }
        // Interrupted: nothing is ready, the loop comes back.
        let _interrupted = poll(&mut fds, None);
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |present: bool| present && ready.next().unwrap_or(false);
        [
            next(true),
            next(self.front_end.is_some()),
            next(console.is_some()),
        ]
    }

    fn answer(&mut self) {
        let Some(front_end) = &mut self.front_end else {
            return;
        };
        let refused = |errno: Errno| Response::Refused(runtime_native::reason(errno));
        let response = match front_end.receive() {
            Message::Nothing => return,
            Message::Request(Request::Signal(signal)) => {
                let sent = sys::signals::send(self.pidfd.as_fd(), signal);
                sent.map_or_else(refused, |()| Response::Done)
            }
            Message::Request(Request::Resize { rows, columns }) => {
                let size = Winsize {
                    ws_row: rows,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let console = self.console.as_ref().ok_or(Errno::NOTTY);
                let done = console.and_then(|console| tcsetwinsize(console, size));
                done.map_or_else(refused, |()| Response::Done)
            }
            Message::Request(Request::Detach) => {
                self.is_detached = true;
                Response::Done
            }
            Message::Request(_) | Message::Exec(_) => refused(Errno::OPNOTSUPP),
            Message::Gone => {
                self.front_end = None;
                if !self.is_detached {
                    // The terminal's other holder: the program is told that it has hung up.
                    self.console = None;
                }
                return;
            }
        };
        front_end.send(&response, &[]);
        if front_end.gone {
            self.front_end = None;
        }
    }

    fn discard_output(&mut self) {
        let mut buffer = [0; 4096];
        let read = self
            .console
            .as_ref()
            .map(|console| rustix::io::read(console, &mut buffer));
        // EIO: the last program has closed the terminal.
        if matches!(read, Some(Ok(0) | Err(Errno::IO))) {
            self.console = None;
        }
    }
}
