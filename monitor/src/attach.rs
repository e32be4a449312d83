//! A caller joins the container's streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{Response, StdinMode};
use rustix::io::Errno;

use crate::client::{Output, write_some};
use crate::monitor::Monitor;
use crate::requests::BETWEEN_RUNS;

/// The pipes of one attach.
struct Attached {
    theirs: Vec<OwnedFd>,
    outputs: [Option<Output>; 2],
    input: Option<OwnedFd>,
}

impl Monitor {
    pub(crate) fn attach(&mut self, index: usize, stdin: bool, outputs: [bool; 2]) {
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
        let running = self.running.as_mut().ok_or(BETWEEN_RUNS)?;
        let mut attached = Attached {
            theirs: Vec::new(),
            outputs: [None, None],
            input: None,
        };
        if stdin && running.is_terminal {
            let (ours, theirs) =
                rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
            attached.input = Some(ours);
            attached.theirs.push(theirs);
        } else if stdin {
            let writer = match self.plan.monitor.stdin {
                StdinMode::Keep => running.stdin.as_ref().and_then(|fd| fd.try_clone().ok()),
                StdinMode::Once | StdinMode::Null => running.stdin.take(),
            };
            attached
                .theirs
                .push(writer.ok_or("standard input is not open")?);
        }
        for (index, wanted) in wanted.into_iter().enumerate() {
            let Some(stream) = running.streams.get(index).filter(|_| wanted) else {
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

    /// Passes what a caller types on to the terminal.
    pub(crate) fn read_input(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let Some(input) = &client.input else { return };
        let mut buffer = [0; 4096];
        match rustix::io::read(input, &mut buffer) {
            Ok(length) if length > 0 => {
                let running = self.running.as_ref();
                if let Some(master) = running.and_then(|running| running.stdin.as_ref()) {
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
}
