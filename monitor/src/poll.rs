//! What the loop waits for: the container's end and output, callers and what they have not taken
//! yet, the network, the next timer.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::health::Health;
use crate::monitor::Monitor;

/// What `poll` said.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) ended: bool,
    pub(crate) listener: bool,
    pub(crate) network: bool,
    pub(crate) health: bool,
    pub(crate) log: bool,
    pub(crate) streams: Vec<bool>,
    pub(crate) execs: Vec<bool>,
    pub(crate) clients: Vec<ClientReady>,
}

#[derive(Clone, Copy)]
pub(crate) struct ClientReady {
    pub(crate) socket: bool,
    pub(crate) outputs: [bool; 2],
    pub(crate) input: bool,
}

impl Monitor {
    /// Waits until something can be done, at most until the next timer. Held-back output is not read.
    pub(crate) fn poll(&self, held_back: bool) -> Ready {
        let running = self.running.as_ref();
        let network = running.and_then(|running| running.network.as_ref());
        let streams: Vec<Option<&OwnedFd>> = running
            .iter()
            .flat_map(|running| &running.streams)
            .map(|stream| stream.fd.as_ref().filter(|_| !held_back))
            .collect();
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(running.map(|running| PollFd::new(&running.pidfd, PollFlags::IN)));
        fds.extend(network.map(|network| PollFd::new(network, PollFlags::IN)));
        let health = running.and_then(|running| running.health.as_ref());
        let probe = health.map(Health::descriptors).unwrap_or_default();
        fds.extend(
            probe
                .iter()
                .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)),
        );
        let log = self.log.waiting();
        fds.extend(log.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        fds.extend(
            streams
                .iter()
                .flatten()
                .map(|fd| PollFd::new(*fd, PollFlags::IN)),
        );
        let execs = self.execs.iter();
        fds.extend(execs.map(|fd| PollFd::new(fd, PollFlags::IN)));
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
        let timeout = self
            .timeout()
            .and_then(|timeout| Timespec::try_from(timeout).ok());
        // Interrupted: nothing is ready, the loop comes back.
        let _interrupted = poll(&mut fds, timeout.as_ref());
        let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |present: bool| present && results.next().unwrap_or(false);
        Ready {
            listener: next(true),
            ended: next(running.is_some()),
            network: next(network.is_some()),
            // Each of them is asked: `any` would leave the rest.
            health: probe.iter().fold(false, |any, _| next(true) || any),
            log: next(log.is_some()),
            streams: streams.iter().map(|fd| next(fd.is_some())).collect(),
            execs: self.execs.iter().map(|_| next(true)).collect(),
            clients: self
                .clients
                .iter()
                .map(|client| ClientReady {
                    socket: next(true),
                    outputs: [
                        next(client.outputs[0].is_some()),
                        next(client.outputs[1].is_some()),
                    ],
                    input: next(client.input.is_some()),
                })
                .collect(),
        }
    }

    /// How long until the next timer.
    fn timeout(&self) -> Option<Duration> {
        let health = self.running.as_ref().and_then(|run| run.health.as_ref());
        let health = health.and_then(Health::timer);
        let timers = [self.kill_at, self.start_at, health, self.log.timer()];
        let next = timers.into_iter().flatten().min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }
}
