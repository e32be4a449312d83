//! How far long operations are.

use crate::digest::Digest;

/// What is being done with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// It comes from a registry.
    Download,
    /// It is read from an archive.
    Load,
    /// It is unpacked into a layer directory.
    Unpack,
    /// It goes to a registry.
    Upload,
    /// It is written to an archive.
    Save,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was done.
    Done,
    /// Nothing was to do: the result was there.
    AlreadyThere,
    /// It failed; the error says why.
    Failed,
}

/// Watches long operations. Called from several threads at once; every method may do nothing.
pub trait Progress: Sync {
    /// A task on `blob` begins; `total` is the number of bytes to come, where it is known.
    fn begin(&self, task: Task, blob: &Digest, total: Option<u64>) {
        let _ = (task, blob, total);
    }

    /// `bytes` more bytes were handled.
    fn advance(&self, task: Task, blob: &Digest, bytes: u64) {
        let _ = (task, blob, bytes);
    }

    /// The task ended.
    fn end(&self, task: Task, blob: &Digest, outcome: Outcome) {
        let _ = (task, blob, outcome);
    }
}

/// Watches nothing.
impl Progress for () {}

/// Says nothing of what was there: an earlier step has told how it came.
pub(crate) struct OnlyNew<'a>(pub(crate) &'a dyn Progress);

impl Progress for OnlyNew<'_> {
    fn begin(&self, task: Task, blob: &Digest, total: Option<u64>) {
        self.0.begin(task, blob, total);
    }

    fn advance(&self, task: Task, blob: &Digest, bytes: u64) {
        self.0.advance(task, blob, bytes);
    }

    fn end(&self, task: Task, blob: &Digest, outcome: Outcome) {
        if outcome != Outcome::AlreadyThere {
            self.0.end(task, blob, outcome);
        }
    }
}
