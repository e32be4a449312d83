//! What a build tells while it runs.

use std::time::Duration;

use crate::lint::Finding;

/// A step of a build, by its number.
pub type StepId = usize;

/// How a step came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepEnd {
    /// It was carried out.
    Done,
    /// Its result was there.
    Cached,
    /// It failed.
    Failed,
    /// Something else failed first.
    Stopped,
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step begins.
    Begin {
        /// Its number.
        step: StepId,
        /// What it is: `[stage 2/5] RUN make`.
        name: &'a str,
    },
    /// A step's program printed a line.
    Output {
        /// Its number.
        step: StepId,
        /// The line.
        line: &'a str,
    },
    /// A step has ended.
    End {
        /// Its number.
        step: StepId,
        /// How.
        end: StepEnd,
        /// What it took.
        took: Duration,
    },
    /// A lint rule found something.
    Finding(&'a Finding),
    /// Something else that the user should know.
    Warning(&'a str),
}

/// Hears what happens, from several threads.
pub trait Progress: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Nobody listens.
impl Progress for () {
    fn event(&self, _event: &Event<'_>) {}
}
