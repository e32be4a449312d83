//! What a build tells its clients: steps, how far they are, what they print. Everything is kept until
//! the build is forgotten, so that who asks late sees all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use builder::{Event, Progress, StepEnd, StepId};
use bytes::Bytes;
use image::{Digest, Outcome, Task};
use tokio::sync::Notify;

use super::wire::control::{
    Position, Range, SourceInfo, StatusResponse, Timestamp, Vertex, VertexLog, VertexStatus,
    VertexWarning,
};

/// How much of what a step prints is kept, as in BuildKit.
const MAX_LOG: usize = 2 << 20;

/// How much of what all steps of a build print is kept.
const MAX_LOGS: usize = 32 << 20;

/// How many notes go into one message.
const AT_ONCE: usize = 512;

/// Clients show a step as stopped when its error ends like this.
const STOPPED: &str = "context canceled";

/// Something to tell.
#[derive(Debug, Clone)]
enum Note {
    Vertex(Vertex),
    Status(VertexStatus),
    Log(VertexLog),
    Warning(VertexWarning),
}

/// How many steps of a build came how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) total: i32,
    pub(super) completed: i32,
    pub(super) cached: i32,
    pub(super) warnings: i32,
}

#[derive(Debug, Default)]
struct State {
    notes: Vec<Note>,
    is_closed: bool,
    counts: Counts,
    /// Bytes of output by step.
    printed: BTreeMap<String, usize>,
    printed_by_all: usize,
}

/// The notes of one build.
#[derive(Debug)]
pub(super) struct Board {
    /// What makes its steps differ from those of others.
    name: String,
    state: Mutex<State>,
    changed: Notify,
}

impl Board {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, note: Note) {
        let mut state = self.lock();
        if !state.is_closed {
            state.notes.push(note);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn digest(&self, step: &str) -> String {
        Digest::of(format!("{}\n{step}", self.name).as_bytes()).to_string()
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_waiters();
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// How much memory its output takes.
    pub(super) fn printed(&self) -> usize {
        self.lock().printed_by_all
    }

    /// Forgets what was printed.
    pub(super) fn forget_output(&self) {
        let mut state = self.lock();
        state.notes.retain(|note| !matches!(note, Note::Log(_)));
        state.printed_by_all = 0;
    }

    /// What was noted from `at` on, which is moved; waits for something. `None` at the end.
    pub(super) async fn next(&self, at: &mut usize) -> Option<StatusResponse> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.lock();
                let new = state.notes.get(*at..).unwrap_or_default();
                if !new.is_empty() {
                    let new = new.get(..AT_ONCE).unwrap_or(new);
                    *at += new.len();
                    return Some(response(new));
                }
                if state.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A step that begins.
    pub(super) fn begin(self: &Arc<Self>, name: &str) -> Step {
        // Several steps may have one name.
        let number = {
            let counts = &mut self.lock().counts;
            counts.total += 1;
            counts.total
        };
        let step = Step {
            board: Arc::clone(self),
            vertex: Vertex {
                digest: self.digest(&format!("{number} {name}")),
                name: name.to_owned(),
                started: Some(Timestamp::now()),
                ..Vertex::default()
            },
            is_ended: false,
        };
        self.add(Note::Vertex(step.vertex.clone()));
        step
    }

    fn print(&self, vertex: &str, text: &str) {
        let mut state = self.lock();
        let all = state.printed_by_all;
        let printed = state.printed.entry(vertex.to_owned()).or_default();
        if *printed > MAX_LOG || all > MAX_LOGS {
            return;
        }
        *printed += text.len();
        let text = match *printed > MAX_LOG || all + text.len() > MAX_LOGS {
            true => "[output clipped, log limit 2MiB reached]\n",
            false => text,
        };
        state.printed_by_all += text.len();
        drop(state);
        self.add(Note::Log(VertexLog {
            vertex: vertex.to_owned(),
            timestamp: Some(Timestamp::now()),
            stream: 1,
            msg: Bytes::copy_from_slice(text.as_bytes()),
        }));
    }

    fn warn(&self, warning: VertexWarning) {
        self.lock().counts.warnings += 1;
        self.add(Note::Warning(warning));
    }
}

fn response(notes: &[Note]) -> StatusResponse {
    let mut response = StatusResponse::default();
    for note in notes {
        match note.clone() {
            Note::Vertex(vertex) => response.vertexes.push(vertex),
            Note::Status(status) => response.statuses.push(status),
            Note::Log(log) => response.logs.push(log),
            Note::Warning(warning) => response.warnings.push(warning),
        }
    }
    response
}

/// A step that is not one of the Dockerfile. Dropped, it has failed with something else.
#[derive(Debug)]
pub(super) struct Step {
    board: Arc<Board>,
    vertex: Vertex,
    is_ended: bool,
}

impl Step {
    /// How far a part of it is; `total` is 0 when that is not known.
    pub(super) fn part(&self, name: &str, current: u64, total: u64, ended: Ended) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let now = Timestamp::now();
        self.board.add(Note::Status(VertexStatus {
            id: name.to_owned(),
            vertex: self.vertex.digest.clone(),
            name: String::new(),
            current: number(current),
            total: number(total),
            timestamp: Some(now),
            started: self.vertex.started,
            completed: (ended == Ended::Yes).then_some(now),
        }));
    }

    /// It is done.
    pub(super) fn done(mut self) {
        self.end("");
    }

    /// It has failed.
    pub(super) fn failed(mut self, error: &str) {
        self.end(error);
    }

    /// A warning about it.
    pub(super) fn warn(&self, text: &str) {
        self.board.warn(VertexWarning {
            vertex: self.vertex.digest.clone(),
            level: 1,
            short: Bytes::copy_from_slice(text.as_bytes()),
            ..VertexWarning::default()
        });
    }

    fn end(&mut self, error: &str) {
        self.is_ended = true;
        self.vertex.completed = Some(Timestamp::now());
        error.clone_into(&mut self.vertex.error);
        if error.is_empty() {
            self.board.lock().counts.completed += 1;
        }
        self.board.add(Note::Vertex(self.vertex.clone()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end(STOPPED);
        }
    }
}

/// Whether a part of a step has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Yes,
    No,
}

/// The steps of the Dockerfile, as the builder tells them.
pub(super) struct Steps {
    board: Arc<Board>,
    /// The step that read the Dockerfile: warnings are about it.
    definition: String,
    source: SourceInfo,
    running: Mutex<BTreeMap<StepId, Vertex>>,
    failed: Mutex<Vec<Vertex>>,
}

impl Steps {
    /// `definition` is the step that read the Dockerfile.
    pub(super) fn new(board: &Arc<Board>, definition: &Step, name: &str, text: &str) -> Self {
        Self {
            board: Arc::clone(board),
            definition: definition.vertex.digest.clone(),
            source: SourceInfo {
                filename: name.to_owned(),
                data: Bytes::copy_from_slice(text.as_bytes()),
                language: "Dockerfile".to_owned(),
            },
            running: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// The error that the build ended with: what failed gets it.
    pub(super) fn fail(&self, error: &str) {
        let failed = std::mem::take(&mut *lock(&self.failed));
        for mut vertex in failed {
            error.clone_into(&mut vertex.error);
            self.board.add(Note::Vertex(vertex));
        }
    }

    fn end(&self, step: StepId, end: StepEnd) {
        let Some(mut vertex) = lock(&self.running).remove(&step) else {
            return;
        };
        vertex.completed = Some(Timestamp::now());
        match end {
            StepEnd::Done | StepEnd::Cached => {
                vertex.cached = end == StepEnd::Cached;
                let counts = &mut self.board.lock().counts;
                counts.completed += 1;
                counts.cached += i32::from(vertex.cached);
            }
            StepEnd::Failed => return lock(&self.failed).push(vertex),
            _ => STOPPED.clone_into(&mut vertex.error),
        }
        self.board.add(Note::Vertex(vertex));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress for Steps {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Begin { step, name } => {
                let vertex = Vertex {
                    digest: self.board.digest(&format!("step {step}")),
                    name: (*name).to_owned(),
                    started: Some(Timestamp::now()),
                    ..Vertex::default()
                };
                lock(&self.running).insert(*step, vertex.clone());
                self.board.lock().counts.total += 1;
                self.board.add(Note::Vertex(vertex));
            }
            Event::Output { step, line } => {
                let vertex = self.board.digest(&format!("step {step}"));
                self.board.print(&vertex, &format!("{line}\n"));
            }
            Event::End { step, end, .. } => self.end(*step, *end),
            Event::Finding(finding) => {
                let line = |n: usize| Position {
                    line: i32::try_from(n).unwrap_or(i32::MAX),
                    character: 0,
                };
                let short = format!(
                    "{}: {} (line {})",
                    finding.rule, finding.text, finding.place.line
                );
                self.board.warn(VertexWarning {
                    vertex: self.definition.clone(),
                    level: 1,
                    short: short.into(),
                    info: Some(self.source.clone()),
                    ranges: vec![Range {
                        start: Some(line(finding.place.line)),
                        end: Some(line(finding.end)),
                    }],
                    ..VertexWarning::default()
                });
            }
            Event::Warning(text) => self.board.warn(VertexWarning {
                vertex: self.definition.clone(),
                level: 1,
                short: Bytes::copy_from_slice(text.as_bytes()),
                ..VertexWarning::default()
            }),
            _ => {}
        }
    }
}

/// A part of a step is told after so many bytes.
const PART: u64 = 1 << 20;

/// What an image's blobs are doing, as parts of a step.
pub(super) struct Blobs<'a> {
    step: &'a Step,
    blobs: Mutex<BTreeMap<(Digest, &'static str), Count>>,
}

#[derive(Debug, Default)]
struct Count {
    done: u64,
    told: u64,
    total: u64,
}

impl<'a> Blobs<'a> {
    pub(super) fn of(step: &'a Step) -> Self {
        Self {
            step,
            blobs: Mutex::default(),
        }
    }

    fn tell(&self, blob: &Digest, word: &str, count: &Count, ended: Ended) {
        let name = format!("{word} sha256:{}", blob.short());
        self.step.part(&name, count.done, count.total, ended);
    }
}

fn word(task: Task) -> &'static str {
    match task {
        Task::Download => "resolve",
        Task::Unpack => "extracting",
        Task::Upload => "pushing",
        _ => "writing",
    }
}

impl image::Progress for Blobs<'_> {
    fn begin(&self, task: Task, blob: &Digest, total: Option<u64>) {
        let count = Count {
            total: total.unwrap_or(0),
            ..Count::default()
        };
        self.tell(blob, word(task), &count, Ended::No);
        lock(&self.blobs).insert((*blob, word(task)), count);
    }

    fn advance(&self, task: Task, blob: &Digest, bytes: u64) {
        let mut blobs = lock(&self.blobs);
        let Some(count) = blobs.get_mut(&(*blob, word(task))) else {
            return;
        };
        count.done += bytes;
        if count.done >= count.told + PART {
            count.told = count.done;
            self.tell(blob, word(task), count, Ended::No);
        }
    }

    fn end(&self, task: Task, blob: &Digest, outcome: Outcome) {
        let count = lock(&self.blobs).remove(&(*blob, word(task)));
        let count = count.unwrap_or_default();
        if outcome != Outcome::Failed {
            self.tell(blob, word(task), &count, Ended::Yes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn all(board: &Board) -> StatusResponse {
        response(&board.lock().notes)
    }

    #[test]
    fn steps_of_the_builder_become_vertexes() {
        let board = Arc::new(Board::new("b"));
        let definition = board.begin("read");
        let steps = Steps::new(&board, &definition, "Dockerfile", "FROM x");
        let end = |step, end| Event::End {
            step,
            end,
            took: Duration::ZERO,
        };
        for step in 0..3 {
            steps.event(&Event::Begin { step, name: "RUN" });
        }
        steps.event(&Event::Output {
            step: 0,
            line: "hello",
        });
        steps.event(&end(0, StepEnd::Cached));
        steps.event(&end(1, StepEnd::Failed));
        steps.event(&end(2, StepEnd::Stopped));
        steps.fail("no");
        definition.done();
        let told = all(&board);
        let ended: Vec<_> = told
            .vertexes
            .iter()
            .filter(|vertex| vertex.completed.is_some())
            .map(|vertex| (vertex.cached, vertex.error.as_str()))
            .collect();
        assert_eq!(
            ended,
            [(true, ""), (false, STOPPED), (false, "no"), (false, "")]
        );
        assert_eq!(told.logs.len(), 1);
        assert_eq!(told.logs[0].msg, "hello\n");
        assert_eq!(told.logs[0].vertex, told.vertexes[1].digest);
        let counts = board.counts();
        assert_eq!((counts.total, counts.completed, counts.cached), (4, 2, 1));
    }

    #[test]
    fn output_of_a_step_is_clipped() {
        let board = Arc::new(Board::new("b"));
        let line = "x".repeat(1 << 20);
        for _ in 0..9 {
            board.print("v", &line);
        }
        let told = all(&board);
        assert_eq!(told.logs.len(), 3);
        assert!(told.logs[2].msg.starts_with(b"[output clipped"));
        assert!(board.printed() < 3 << 20);
        board.forget_output();
        assert_eq!(all(&board).logs.len(), 0);
    }

    #[tokio::test]
    async fn late_reader_sees_everything_and_the_end() {
        let board = Arc::new(Board::new("b"));
        board.begin("one").done();
        board.close();
        let mut at = 0;
        assert_eq!(board.next(&mut at).await.unwrap().vertexes.len(), 2);
        assert_eq!(board.next(&mut at).await, None);
    }
}
