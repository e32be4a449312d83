//! A start, step by step: when each one was over, for measurements. Without a file to write to it
//! costs a comparison a step.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::step::Step;

/// When the start began; nothing when it is not traced.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Begin(Option<Timespec>);

impl Begin {
    /// Nanoseconds since then.
    pub(crate) fn elapsed_ns(self) -> Option<u64> {
        let begin = self.0?;
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = now.tv_sec.wrapping_sub(begin.tv_sec);
        let ns = seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(now.tv_nsec)
            .wrapping_sub(begin.tv_nsec);
        u64::try_from(ns).ok()
    }
}

/// The steps so far, of the parent and of the container's init.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    begin: Begin,
    file: Option<File>,
    text: String,
}

impl Steps {
    /// The start begins now; what cannot be written to is refused before anything is made.
    pub(crate) fn new(file: Option<&CString>) -> io::Result<Self> {
        let Some(path) = file else {
            return Ok(Self::default());
        };
        let path = path.to_str().map_err(io::Error::other)?;
        let mut options = File::options();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        Ok(Self {
            begin: Begin(Some(clock_gettime(ClockId::Monotonic))),
            file: Some(file),
            text: String::new(),
        })
    }

    pub(crate) fn begin(&self) -> Begin {
        self.begin
    }

    /// A step of the parent is over.
    pub(crate) fn mark(&mut self, step: &str) {
        if let Some(ns) = self.begin.elapsed_ns() {
            self.add("parent", format_args!("{step}"), ns);
        }
    }

    /// A step of the container's init was over then.
    pub(crate) fn of_init(&mut self, step: Step, ns: u64) {
        self.add("init", format_args!("{step:?}"), ns);
    }

    fn add(&mut self, side: &str, step: std::fmt::Arguments<'_>, ns: u64) {
        // Writing to a string does not fail.
        let _written = writeln!(self.text, "{side} {step} {}.{:03}", ns / 1000, ns % 1000);
    }

    /// Adds them to the file, a step a line: side, step, microseconds since the beginning.
    pub(crate) fn write(&mut self) {
        if let Some(file) = &mut self.file {
            // The container runs: a disk that is full must not end it.
            drop(file.write_all(self.text.as_bytes()));
        }
    }
}
