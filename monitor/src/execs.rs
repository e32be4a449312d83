//! The ends of further programs whose callers have left: their parents have moved into the container,
//! where the log of events is out of reach, so they are heard here.

use std::os::fd::{AsFd, OwnedFd};

use runtime::{Event, MAX_MESSAGE, Response};
use rustix::io::Errno;

use crate::monitor::Monitor;

impl Monitor {
    /// Writes down which of them have ended; `ready` says from which something can be heard.
    pub(crate) fn hear_execs(&mut self, ready: &[bool]) {
        let all = std::mem::take(&mut self.execs);
        let heard = ready.iter().copied().chain(std::iter::repeat(false));
        for (session, is_ready) in all.into_iter().zip(heard) {
            match is_ready.then(|| hear(&session)) {
                // It goes on, or has said something else.
                None | Some(Ok(None)) => self.execs.push(session),
                Some(Ok(Some(code))) => {
                    self.refresh_name();
                    self.record_event("exec_die", &[("exitCode", &code.to_string())]);
                }
                // Its parent was killed, and how it ends is not known.
                Some(Err(_)) => {}
            }
        }
    }
}

/// The exit code when the parent tells of the end.
fn hear(session: &OwnedFd) -> Result<Option<u8>, Errno> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let length = sys::socket::receive(session.as_fd(), &mut buffer)?.length;
    if length == 0 {
        return Err(Errno::PIPE);
    }
    match Response::decode(buffer.get(..length).unwrap_or_default()) {
        Ok(Response::Event(Event::Exited(status))) => Ok(Some(status.code)),
        _ => Ok(None),
    }
}
