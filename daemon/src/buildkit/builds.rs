//! Builds that run, and the last ones that ran: for who asks how they are, and for their history.
//! All of it is memory and ends with the daemon.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::board::Board;
use super::client::Stop;
use super::grpc::{Code, Status};
use super::solve::Solved;
use super::wire::control::{
    BuildHistoryEvent, BuildHistoryRecord, RpcStatus, SolveRequest, Timestamp,
};

/// How many builds may run; a client waits for one a call.
const MAX_RUNNING: usize = 64;

/// How many builds are remembered.
const MAX_ENDED: usize = 32;

/// How much of what they printed is remembered.
const MAX_OUTPUT: usize = 8 << 20;

/// How many results a build may have before it says which one it wants.
const MAX_RESULTS: usize = 16;

/// How long a build is waited for: clients ask for it beside the call that begins it.
const PATIENCE: Duration = Duration::from_secs(6);

/// Kinds of events of the history.
const STARTED: i32 = 0;
const COMPLETE: i32 = 1;
const DELETED: i32 = 2;

/// How a build ended.
struct Outcome {
    completed: Timestamp,
    error: Option<Status>,
    response: BTreeMap<String, String>,
}

/// What the client's side of a build returns: one of its results, or why there is none.
pub(super) type Returned = Result<Option<String>, Status>;

/// A build.
pub(super) struct Build {
    pub(super) request: SolveRequest,
    pub(super) board: Arc<Board>,
    pub(super) stop: Arc<Stop>,
    created: Timestamp,
    returns: Mutex<Option<oneshot::Sender<Returned>>>,
    results: Mutex<BTreeMap<String, Arc<Solved>>>,
    outcome: Mutex<Option<Outcome>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Build {
    fn new(request: SolveRequest) -> Self {
        Self {
            board: Arc::new(Board::new(&request.reference)),
            request,
            stop: Arc::default(),
            created: Timestamp::now(),
            returns: Mutex::default(),
            results: Mutex::default(),
            outcome: Mutex::default(),
        }
    }

    /// Keeps a result until the build ends, and gives its name.
    pub(super) fn keep(&self, solved: Solved) -> Result<String, Status> {
        let mut results = lock(&self.results);
        if results.len() >= MAX_RESULTS {
            return Err(Status::new(
                Code::ResourceExhausted,
                "the build has too many results",
            ));
        }
        let name = format!("{}-{}", self.request.reference, results.len());
        results.insert(name.clone(), Arc::new(solved));
        Ok(name)
    }

    /// A result by its name.
    pub(super) fn result(&self, name: &str) -> Result<Arc<Solved>, Status> {
        let result = lock(&self.results).get(name).cloned();
        result.ok_or_else(|| Status::new(Code::NotFound, format!("no such result: {name}")))
    }

    /// Waits for what the client returns.
    pub(super) fn returned(&self) -> oneshot::Receiver<Returned> {
        let (sender, receiver) = oneshot::channel();
        *lock(&self.returns) = Some(sender);
        receiver
    }

    /// The client returns.
    pub(super) fn give_back(&self, returned: Returned) -> Result<(), Status> {
        let sender = lock(&self.returns).take();
        let sender = sender.ok_or_else(|| {
            Status::new(Code::FailedPrecondition, "the build has returned already")
        })?;
        sender
            .send(returned)
            .map_err(|_| Status::new(Code::Cancelled, "nobody waits for the build any more"))
    }

    fn record(&self) -> BuildHistoryRecord {
        let counts = self.board.counts();
        let outcome = lock(&self.outcome);
        let error = outcome.as_ref().and_then(|outcome| outcome.error.as_ref());
        BuildHistoryRecord {
            reference: self.request.reference.clone(),
            frontend: self.request.frontend.clone(),
            frontend_attrs: self.request.frontend_attrs.clone(),
            exporters: self.request.all_exporters(),
            error: error.map(|status| RpcStatus {
                code: status.code.number(),
                message: status.message.clone(),
            }),
            created_at: Some(self.created),
            completed_at: outcome.as_ref().map(|outcome| outcome.completed),
            exporter_response: outcome
                .as_ref()
                .map(|outcome| outcome.response.clone())
                .unwrap_or_default(),
            pinned: false,
            num_cached_steps: counts.cached,
            num_total_steps: counts.total,
            num_completed_steps: counts.completed,
            num_warnings: counts.warnings,
        }
    }
}

#[derive(Default)]
struct All {
    running: BTreeMap<String, Arc<Build>>,
    /// The last one first.
    ended: VecDeque<Arc<Build>>,
}

/// All builds.
pub(crate) struct Builds {
    all: Mutex<All>,
    begun: Notify,
    changes: watch::Sender<u64>,
}

impl Default for Builds {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            begun: Notify::new(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Builds {
    /// Begins a build; it ends when what is given back is dropped.
    pub(super) fn begin(&self, request: SolveRequest) -> Result<Running<'_>, Status> {
        let name = request.reference.clone();
        if name.is_empty() || name.len() > 256 {
            return Err(Status::invalid("the build has no reference"));
        }
        let mut all = lock(&self.all);
        if all.running.contains_key(&name) {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("build {name} already exists"),
            ));
        }
        if all.running.len() >= MAX_RUNNING {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("{MAX_RUNNING} builds run already"),
            ));
        }
        let build = Arc::new(Build::new(request));
        all.running.insert(name, Arc::clone(&build));
        drop(all);
        self.begun.notify_waiters();
        self.changed();
        Ok(Running {
            builds: self,
            build,
        })
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A build by its reference; waits a little for one that is about to begin.
    pub(super) async fn get(&self, name: &str) -> Result<Arc<Build>, Status> {
        let find = async {
            loop {
                let mut begun = std::pin::pin!(self.begun.notified());
                begun.as_mut().enable();
                if let Some(build) = self.find(name) {
                    return build;
                }
                begun.await;
            }
        };
        timeout(PATIENCE, find)
            .await
            .map_err(|_| Status::new(Code::NotFound, format!("no such job {name}")))
    }

    fn find(&self, name: &str) -> Option<Arc<Build>> {
        let all = lock(&self.all);
        let ended = || all.ended.iter().find(|b| b.request.reference == name);
        all.running.get(name).or_else(ended).cloned()
    }

    fn end(&self, build: &Arc<Build>) {
        build.board.close();
        build.stop.stop();
        lock(&build.results).clear();
        let mut all = lock(&self.all);
        all.running.remove(&build.request.reference);
        all.ended.push_front(Arc::clone(build));
        all.ended.truncate(MAX_ENDED);
        let mut printed = 0;
        for build in &all.ended {
            printed += build.board.printed();
            if printed > MAX_OUTPUT {
                build.board.forget_output();
            }
        }
        drop(all);
        self.changed();
    }

    /// What is known of builds, with what has changed whenever something does.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Events that bring who has seen `seen` up to date.
    pub(super) fn news(
        &self,
        seen: &mut BTreeMap<String, i32>,
        is_wanted: impl Fn(&str) -> bool,
        active_only: bool,
    ) -> Vec<BuildHistoryEvent> {
        let mut now = BTreeMap::new();
        {
            let all = lock(&self.all);
            for build in all.ended.iter().filter(|_| !active_only) {
                now.insert(
                    build.request.reference.clone(),
                    (COMPLETE, Arc::clone(build)),
                );
            }
            for build in all.running.values() {
                now.insert(
                    build.request.reference.clone(),
                    (STARTED, Arc::clone(build)),
                );
            }
        }
        now.retain(|name, (_, build)| is_wanted(name) && !build.request.internal);
        let mut events = Vec::new();
        for name in seen.keys().filter(|name| !now.contains_key(*name)) {
            events.push(BuildHistoryEvent {
                kind: DELETED,
                record: Some(BuildHistoryRecord {
                    reference: name.clone(),
                    ..BuildHistoryRecord::default()
                }),
            });
        }
        seen.retain(|name, _| now.contains_key(name));
        for (name, (kind, build)) in now {
            if seen.insert(name, kind) != Some(kind) {
                events.push(BuildHistoryEvent {
                    kind,
                    record: Some(build.record()),
                });
            }
        }
        events
    }

    /// Forgets a build that has ended.
    pub(super) fn forget(&self, name: &str) -> Result<(), Status> {
        let mut all = lock(&self.all);
        let before = all.ended.len();
        all.ended.retain(|build| build.request.reference != name);
        if all.ended.len() == before {
            let text = format!("failed to delete record {name}: not found");
            return Err(Status::new(Code::NotFound, text));
        }
        drop(all);
        self.changed();
        Ok(())
    }
}

/// A build that runs. Dropped, it is told to end, and counts as ended.
pub(super) struct Running<'a> {
    builds: &'a Builds,
    pub(super) build: Arc<Build>,
}

impl Running<'_> {
    /// Notes how it ended.
    pub(super) fn finish(&self, result: Result<&BTreeMap<String, String>, &Status>) {
        *lock(&self.build.outcome) = Some(Outcome {
            completed: Timestamp::now(),
            error: result.err().cloned(),
            response: result.ok().cloned().unwrap_or_default(),
        });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut outcome = lock(&self.build.outcome);
        if outcome.is_none() {
            *outcome = Some(Outcome {
                completed: Timestamp::now(),
                error: Some(Status::new(Code::Cancelled, "context canceled")),
                response: BTreeMap::new(),
            });
        }
        drop(outcome);
        self.builds.end(&self.build);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> SolveRequest {
        SolveRequest {
            reference: name.to_owned(),
            ..SolveRequest::default()
        }
    }

    fn kinds(events: &[BuildHistoryEvent]) -> Vec<i32> {
        events.iter().map(|event| event.kind).collect()
    }

    #[test]
    fn history_tells_begin_end_and_removal_once() {
        let builds = Builds::default();
        let mut seen = BTreeMap::new();
        let mut news = |builds: &Builds| kinds(&builds.news(&mut seen, |_| true, false));
        let running = builds.begin(request("a")).unwrap();
        assert!(builds.begin(request("a")).is_err());
        assert_eq!(news(&builds), [STARTED]);
        assert!(news(&builds).is_empty());
        running.finish(Ok(&BTreeMap::new()));
        drop(running);
        assert_eq!(news(&builds), [COMPLETE]);
        builds.forget("a").unwrap();
        assert!(builds.forget("a").is_err());
        assert_eq!(news(&builds), [DELETED]);
    }

    #[test]
    fn build_that_is_dropped_is_told_to_stop_and_counts_as_cancelled() {
        let builds = Builds::default();
        let running = builds.begin(request("a")).unwrap();
        let build = Arc::clone(&running.build);
        drop(running);
        assert!(build.stop.is_set());
        assert_eq!(build.record().error.unwrap().code, Code::Cancelled.number());
        for n in 0..2 * MAX_ENDED {
            drop(builds.begin(request(&format!("b{n}"))).unwrap());
        }
        assert_eq!(lock(&builds.all).ended.len(), MAX_ENDED);
    }

    #[tokio::test]
    async fn result_is_returned_once() {
        let builds = Builds::default();
        let running = builds.begin(request("a")).unwrap();
        let build = builds.get("a").await.unwrap();
        let returned = running.build.returned();
        let name = build.keep(Solved::default()).unwrap();
        build.give_back(Ok(Some(name.clone()))).unwrap();
        assert!(build.give_back(Ok(None)).is_err());
        assert_eq!(returned.await.unwrap().unwrap(), Some(name.clone()));
        assert!(build.result(&name).is_ok() && build.result("x").is_err());
    }
}
