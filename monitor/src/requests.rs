//! What callers of the control socket ask for.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use runtime::{Event, Request, Response};
use rustix::io::Errno;

use crate::client::{Client, Message};
use crate::monitor::Monitor;
use crate::network;

/// Signals that ask a program to end (signal(7)): INT, QUIT, KILL, TERM. After one of them, or the
/// container's own stop signal, it is not started again.
const ENDING: [i32; 4] = [2, 3, 9, 15];

/// The answer to what only a program can do, between two runs of it.
pub(crate) const BETWEEN_RUNS: &str = "the container is restarting: wait until it runs";

/// How long an unhealthy container has between the stop signal and SIGKILL.
const UNHEALTHY_GRACE: Duration = Duration::from_secs(1);

fn refused(errno: Errno) -> Response {
    Response::Refused(runtime_native::reason(errno))
}

/// What a wasm host shows of its guests' memory.
fn linear_memory(pid: i32) -> Option<u64> {
    let file = sys::sealed::find(pid, runtime::LINEAR_MEMORY).ok()?;
    let mut bytes = [0; 8];
    sys::file::read_exact_at(&file, &mut bytes, 0).ok()?;
    Some(u64::from_le_bytes(bytes))
}

impl Monitor {
    /// Takes a caller in, if it is the owner of this monitor or root.
    pub(crate) fn accept(&mut self, socket: OwnedFd) {
        let owner = rustix::process::geteuid().as_raw();
        if sys::socket::peer_uid(socket.as_fd()).is_ok_and(|uid| uid == owner || uid == 0) {
            self.clients.push(Client::new(socket));
        }
    }

    pub(crate) fn read_request(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match client.receive() {
            Message::Nothing => {}
            Message::Gone => client.gone = true,
            Message::Exec(session) => {
                client.send(&Response::Done, &[]);
                self.execs.push(session);
            }
            Message::Request(Request::Attach {
                stdin,
                stdout,
                stderr,
            }) => {
                self.attach(index, stdin, [stdout, stderr]);
                self.refresh_name();
                self.record_event("attach", &[]);
            }
            Message::Request(request) => {
                self.refresh_name();
                if let Some(response) = self.answer(index, request)
                    && let Some(client) = self.clients.get_mut(index)
                {
                    client.send(&response, &[]);
                }
            }
        }
    }

    /// Does what a caller asks; no answer yet when it waits for the end.
    fn answer(&mut self, index: usize, request: Request) -> Option<Response> {
        match request {
            Request::Watch => {
                self.clients.get_mut(index)?.watches = true;
                let pid = self.running.as_ref().map_or(0, |running| running.pid);
                Some(Response::Event(Event::Started { pid }))
            }
            Request::Signal(signal) => Some(self.signal(signal)),
            Request::Stop { signal, timeout_ms } => {
                self.clients.get_mut(index)?.waits_for_end = true;
                self.stop(signal, timeout_ms)
            }
            Request::StopToRestart { signal, timeout_ms } => {
                self.auto_remove = false;
                self.clients.get_mut(index)?.waits_for_end = true;
                self.stop(signal, timeout_ms)
            }
            Request::Resize { rows, columns } => Some(self.resize(rows, columns)),
            Request::Remove => {
                self.auto_remove = true;
                self.restart.is_stopped = true;
                self.clients.get_mut(index)?.waits_for_end = true;
                if let Some(running) = &self.running {
                    // It may have ended in this moment.
                    let _ended = running.kill_all(&self.plan.init.cgroup);
                    self.record_event("kill", &[("signal", "9")]);
                }
                None
            }
            Request::Detach => {
                self.record_event("detach", &[]);
                Some(Response::Done)
            }
            Request::Pause => Some(self.pause()),
            Request::Unpause => Some(self.unpause()),
            Request::Update {
                now,
                later,
                restart,
            } => Some(self.update(&now, later, restart)),
            Request::JoinNetwork(bytes) => Some(match &mut self.running {
                Some(running) => network::join(running.network.as_mut(), &bytes),
                None => Response::Refused(BETWEEN_RUNS.to_owned()),
            }),
            Request::LeaveNetwork(id) => Some(match &mut self.running {
                Some(running) => network::leave(running.network.as_mut(), &id),
                None => Response::Refused(BETWEEN_RUNS.to_owned()),
            }),
            Request::LinearMemory => {
                let pid = self.running.as_ref().map(|running| running.pid);
                Some(Response::LinearMemory(pid.and_then(linear_memory)))
            }
            Request::Attach { .. } | Request::KeepExec => None,
        }
    }

    fn signal(&mut self, signal: i32) -> Response {
        let ends = ENDING.contains(&signal) || signal == self.plan.monitor.stop_signal;
        let Some(running) = &self.running else {
            // There is no program to be sent it; that there will be none again can be had.
            self.restart.is_stopped |= ends;
            return if ends {
                Response::Done
            } else {
                Response::Refused(BETWEEN_RUNS.to_owned())
            };
        };
        if let Err(errno) = sys::signals::send(running.pidfd.as_fd(), signal) {
            return refused(errno);
        }
        self.record_event("kill", &[("signal", &signal.to_string())]);
        if ends {
            self.restart.is_stopped = true;
            self.wake();
        }
        Response::Done
    }

    /// Asks the program to end; answered when it has, unless it cannot be asked.
    fn stop(&mut self, signal: Option<i32>, timeout_ms: Option<u64>) -> Option<Response> {
        let monitor = &self.plan.monitor;
        let signal = signal.unwrap_or(monitor.stop_signal);
        let timeout = timeout_ms.unwrap_or(monitor.stop_timeout_ms);
        self.restart.is_stopped = true;
        self.is_asked = true;
        let running = self.running.as_ref()?;
        self.kill_at = Some(Instant::now() + Duration::from_millis(timeout));
        let sent = sys::signals::send(running.pidfd.as_fd(), signal);
        self.record_event("kill", &[("signal", &signal.to_string())]);
        self.wake();
        match sent {
            Ok(()) | Err(Errno::SRCH) => None,
            Err(errno) => Some(refused(errno)),
        }
    }

    /// Ends a container that is to be started again because it is unhealthy. It is not given its
    /// whole time: it has had its retries.
    pub(crate) fn end_unhealthy(&mut self) {
        let Some(running) = &self.running else { return };
        let signal = self.plan.monitor.stop_signal;
        // It may have ended in this moment.
        let _ended = sys::signals::send(running.pidfd.as_fd(), signal);
        let at = Instant::now() + UNHEALTHY_GRACE;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        let signal = signal.to_string();
        self.record_event("kill", &[("signal", &signal), ("reason", "unhealthy")]);
    }

    fn resize(&self, rows: u16, columns: u16) -> Response {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let running = self.running.as_ref().filter(|running| running.is_terminal);
        let done = running
            .and_then(|running| running.stdin.as_ref())
            .ok_or(Errno::NOTTY)
            .and_then(|terminal| rustix::termios::tcsetwinsize(terminal, size));
        if done.is_ok() {
            let (height, width) = (rows.to_string(), columns.to_string());
            self.record_event("resize", &[("height", &height), ("width", &width)]);
        }
        done.map_or_else(refused, |()| Response::Done)
    }
}
