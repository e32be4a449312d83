//! The container's log: its output cut into lines and recorded in files that are rotated.

mod file;
mod lines;

use std::io;
use std::path::Path;

use runtime::LogPlan;

pub(crate) use lines::Partial;

use file::FileLog;

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<FileLog>,
}

impl Log {
    /// Opens the log in the container's directory.
    pub(crate) fn open(plan: &LogPlan, state_dir: &Path) -> io::Result<Self> {
        let file = plan.file.as_ref();
        let file = file.map(|plan| FileLog::open(plan, state_dir));
        Ok(Self {
            file: file.transpose()?,
        })
    }

    /// Takes what a stream gave and records its whole lines.
    pub(crate) fn write(&mut self, is_stderr: bool, partial: &mut Partial, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        partial.cut(bytes, |line| file.record(is_stderr, line));
        file.flush();
    }

    /// Records what is left of a line at the end of a stream.
    pub(crate) fn finish(&mut self, is_stderr: bool, partial: &mut Partial) {
        let rest = partial.take();
        if let Some(file) = &mut self.file
            && !rest.is_empty()
        {
            file.record(is_stderr, &rest);
            file.flush();
        }
    }
}
