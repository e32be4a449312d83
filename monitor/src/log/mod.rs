//! The container's log: its output cut into lines, recorded in files that are rotated, and sent to
//! whom it may concern.

mod file;
mod frame;
mod lines;
mod outlet;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use runtime::LogPlan;

pub(crate) use file::FileLog;
pub(crate) use frame::Frame;
pub(crate) use lines::Partial;

use outlet::Outlet;

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Log {
    /// Files that are written here.
    file: Option<FileLog>,
    /// What another process writes or sends.
    outlet: Option<Outlet>,
}

impl Log {
    /// Opens the log in the container's directory.
    pub(crate) fn open(plan: &LogPlan, state_dir: &Path) -> io::Result<Self> {
        let outlet = Outlet::new(plan, state_dir)?;
        let own = plan.file.as_ref();
        // A disk can be as slow as a server: files with a ring are written by the other process.
        let own = own.filter(|_| plan.ring_bytes.is_none() || plan.receiver.is_some());
        Ok(Self {
            file: own.map(|plan| FileLog::open(plan, state_dir)).transpose()?,
            outlet,
        })
    }

    /// Takes what a stream gave and records its whole lines.
    pub(crate) fn write(&mut self, is_stderr: bool, partial: &mut Partial, bytes: &[u8]) {
        let Self { file, outlet } = self;
        if file.is_none() && outlet.is_none() {
            return;
        }
        partial.cut(bytes, |line| {
            if let Some(file) = file {
                file.record(is_stderr, line);
            }
            if let Some(outlet) = outlet {
                outlet.push(is_stderr, line);
            }
        });
        self.flush();
    }

    /// Records what is left of a line at the end of a stream.
    pub(crate) fn finish(&mut self, is_stderr: bool, partial: &mut Partial) {
        let rest = partial.take();
        if rest.is_empty() {
            return;
        }
        if let Some(file) = &mut self.file {
            file.record(is_stderr, &rest);
        }
        if let Some(outlet) = &mut self.outlet {
            outlet.push(is_stderr, &rest);
        }
        self.flush();
    }

    /// Writes what waits, as far as that is possible at once.
    pub(crate) fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            file.flush();
        }
        if let Some(outlet) = &mut self.outlet {
            outlet.flush();
        }
    }

    /// Whether the container has to wait until lines are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.outlet.as_ref().is_some_and(Outlet::is_full)
    }

    /// What takes lines that wait, when it can be waited for.
    pub(crate) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        self.outlet.as_ref().and_then(Outlet::waiting)
    }

    /// When [`Log::flush`] wants to be called at the latest.
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.outlet.as_ref().and_then(Outlet::timer)
    }

    /// Whether lines wait.
    pub(crate) fn has_backlog(&self) -> bool {
        self.outlet.as_ref().is_some_and(Outlet::has_backlog)
    }

    /// Ends the log. What is in files is complete then; what is sent elsewhere goes on its way.
    pub(crate) fn close(&mut self) {
        self.flush();
        if let Some(outlet) = self.outlet.take() {
            outlet.close();
        }
    }
}
