//! Progress of long operations: one object a line. Errors come in the old and in the new form, for
//! clients read one or the other.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use image::{Digest, Outcome, Progress, Task};
use serde_json::{Value, json};

use crate::body::BodyWriter;

/// A line is written for each so many bytes of a blob.
const STEP: u64 = 512 * 1024;

/// Writes progress to a client. One that is gone is not told any more; the operation goes on.
#[derive(Debug)]
pub(crate) struct ProgressLines {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    to: BodyWriter,
    blobs: BTreeMap<(Digest, &'static str), Count>,
    shows: bool,
}

#[derive(Debug, Default)]
struct Count {
    done: u64,
    told: u64,
    total: u64,
}

impl ProgressLines {
    /// `shows` is whether blobs are shown at all.
    pub(crate) fn new(to: BodyWriter, shows: bool) -> Self {
        let blobs = BTreeMap::new();
        Self {
            state: Mutex::new(State { to, blobs, shows }),
        }
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// One line.
    pub(crate) fn line(&self, value: &Value) {
        self.with(|state| state.line(value));
    }

    /// A line of status.
    pub(crate) fn status(&self, text: &str) {
        self.line(&json!({ "status": text }));
    }

    /// The end of an operation that failed.
    pub(crate) fn error(&self, message: &str) {
        self.line(&json!({
            "errorDetail": { "message": message },
            "error": message,
        }));
    }
}

impl Drop for ProgressLines {
    /// An operation that ends in a panic has an end that can be told from success.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.error("the daemon has failed in this request");
        }
    }
}

impl State {
    fn line(&mut self, value: &Value) {
        let mut line = value.to_string();
        line.push_str("\r\n");
        // Who does not read any more is not told.
        drop(
            self.to
                .write_all(line.as_bytes())
                .and_then(|()| self.to.flush()),
        );
    }
}

/// Docker's words for what is done with a layer, while and after.
fn words(task: Task) -> (&'static str, &'static str) {
    match task {
        Task::Download => ("Downloading", "Download complete"),
        Task::Unpack => ("Extracting", "Pull complete"),
        Task::Upload => ("Pushing", "Pushed"),
        Task::Load => ("Loading layer", "Loaded layer"),
        _ => ("Working", "Done"),
    }
}

impl Progress for ProgressLines {
    fn begin(&self, task: Task, blob: &Digest, total: Option<u64>) {
        let (word, _) = words(task);
        self.with(|state| {
            if !state.shows {
                return;
            }
            let count = Count {
                total: total.unwrap_or(0),
                ..Count::default()
            };
            state.blobs.insert((*blob, word), count);
            if matches!(task, Task::Download) {
                let line = json!({
                    "status": "Pulling fs layer", "progressDetail": {}, "id": blob.short(),
                });
                state.line(&line);
            }
        });
    }

    fn advance(&self, task: Task, blob: &Digest, bytes: u64) {
        let (word, _) = words(task);
        self.with(|state| {
            let Some(count) = state.blobs.get_mut(&(*blob, word)) else {
                return;
            };
            count.done += bytes;
            if count.done < count.told + STEP {
                return;
            }
            count.told = count.done;
            let line = json!({
                "status": word,
                "progressDetail": { "current": count.done, "total": count.total },
                "id": blob.short(),
            });
            state.line(&line);
        });
    }

    fn end(&self, task: Task, blob: &Digest, outcome: Outcome) {
        let (word, after) = words(task);
        self.with(|state| {
            if !state.shows {
                return;
            }
            state.blobs.remove(&(*blob, word));
            let status = match outcome {
                Outcome::Done => after,
                Outcome::AlreadyThere if matches!(task, Task::Upload) => "Layer already exists",
                Outcome::AlreadyThere => "Already exists",
                // The error that follows says why.
                _ => return,
            };
            let line = json!({ "status": status, "progressDetail": {}, "id": blob.short() });
            state.line(&line);
        });
    }
}
