//! The process that holds a scope of systemd until the container's init is in it: a child of this
//! one's, which was the front end before.

use std::io;
use std::os::fd::OwnedFd;

use runtime::ScopeHold;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The child of this process that holds a scope of systemd.
#[derive(Debug)]
pub(super) struct Hold {
    end: OwnedFd,
    holder: Option<Pid>,
}

impl Hold {
    /// Takes over what the front end has left.
    pub(super) fn take(scope: &ScopeHold) -> io::Result<Self> {
        Ok(Self {
            end: sys::inherit::take(scope.end)?,
            holder: Pid::from_raw(scope.holder),
        })
    }

    /// Ends it.
    pub(super) fn release(self) {
        drop(self.end);
        if let Some(holder) = self.holder {
            // It ends with its input; somebody may have ended it before.
            let _reaped = waitid(WaitId::Pid(holder), WaitIdOptions::EXITED);
        }
    }
}
