//! The container's output: read, logged, passed on to whoever is attached.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::client::Client;
use crate::log::Partial;
use crate::monitor::Monitor;

/// How long callers have to take the last output after the container has ended, and how long what
/// the program has left behind may go on to write.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// One stream of the container.
pub(crate) struct Stream {
    pub(crate) is_stderr: bool,
    /// `None` at its end.
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) partial: Partial,
}

impl Monitor {
    /// Reads once what a stream has now.
    pub(crate) fn read_stream(&mut self, index: usize) {
        let Some(stream) = self
            .running
            .as_mut()
            .and_then(|running| running.streams.get_mut(index))
        else {
            return;
        };
        let Some(fd) = &stream.fd else { return };
        let mut buffer = [0; 32 * 1024];
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer)) {
            Err(Errno::AGAIN) => {}
            // EIO: the last process has closed the terminal.
            Ok(0) | Err(_) => {
                stream.fd = None;
                self.log.finish(stream.is_stderr, &mut stream.partial);
                for client in &mut self.clients {
                    close_when_flushed(client, index);
                }
            }
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.log.write(stream.is_stderr, &mut stream.partial, bytes);
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

    /// Passes the last output on: everything that is in the pipes, then until callers took it.
    pub(crate) fn drain(&mut self) {
        let deadline = Instant::now() + FLUSH_DEADLINE;
        loop {
            for index in 0..2 {
                self.read_stream(index);
            }
            self.clients.retain(|client| !client.gone);
            let streams = self.running.iter().flat_map(|running| &running.streams);
            let open = streams.clone().any(|stream| stream.fd.is_some());
            let waiting = self.clients.iter().any(|client| client.backlog() > 0);
            if !(open || waiting) || Instant::now() >= deadline {
                return;
            }
            self.wait_for_streams();
        }
    }

    /// Waits until there is more output, or somebody takes what waits.
    fn wait_for_streams(&mut self) {
        let streams = self.running.iter().flat_map(|running| &running.streams);
        let mut fds: Vec<PollFd<'_>> = streams
            .filter_map(|stream| stream.fd.as_ref())
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        let outputs = self.clients.iter().flat_map(|client| &client.outputs);
        let waiting = outputs.flatten().filter(|output| output.has_backlog());
        fds.extend(waiting.map(|output| PollFd::new(&output.pipe, PollFlags::OUT)));
        let timeout = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        // Interrupted: the caller's loop comes back.
        let _interrupted = poll(&mut fds, Some(&timeout));
        drop(fds);
        for client in &mut self.clients {
            let mut waiting = client.outputs.iter_mut().flatten();
            if waiting.any(|output| output.flush().is_err()) {
                client.gone |= !client.watches;
                client.outputs = [None, None];
            }
        }
    }
}

fn close_when_flushed(client: &mut Client, index: usize) {
    if let Some(output) = client.outputs.get_mut(index)
        && output.as_ref().is_some_and(|output| !output.has_backlog())
    {
        *output = None;
    }
}
