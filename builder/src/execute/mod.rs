//! Carrying a graph out: each needed stage on a thread of its own, which waits where it needs another.

mod add;
mod archive;
mod cache_mount;
mod config;
mod copying;
mod exports;
mod images;
mod mounts;
mod output;
mod running;
mod stage;
mod state;
mod stubs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::Engine;
use image::{BuildSession, BuiltLayer, Digest, Platform};

use crate::cache::{Cache, CacheRecord};
use crate::dockerfile::{Dockerfile, Instruction, Kind};
use crate::error::BuildError;
use crate::exchange::Foreign;
use crate::ignore::Ignore;
use crate::lint::{Finding, is_skipped};
use crate::options::{BuildOptions, Fetch, NamedContext, NoCache};
use crate::progress::{Event, Progress, StepEnd, StepId};
use crate::scope;
use crate::stages::{Graph, Inputs};
use crate::stamps::Stamps;
use crate::switches::{Switches, is_switch};
use crate::tree::{HostTree, Tree};
pub(crate) use cache_mount::all as cache_mounts;
pub(crate) use config::secret_arguments;
pub(crate) use exports::Exports;
pub use output::BuiltImage;
use stage::At;
pub(crate) use stage::created;
pub(crate) use state::{Base, Layer, State};

/// What all parts of a build share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) fetch: &'a Fetch<'a>,
    pub(crate) progress: &'a dyn Progress,
    /// Set by the user's Ctrl-C.
    pub(crate) stop: &'a AtomicBool,
    pub(crate) session: &'a BuildSession,
    pub(crate) options: &'a BuildOptions,
    pub(crate) file: &'a Dockerfile,
    pub(crate) steps: &'a AtomicUsize,
    /// What nothing that is made is newer than.
    pub(crate) epoch: i64,
    pub(crate) switches: &'a Switches,
}

/// What became of a stage.
enum Slot {
    Waiting,
    Running,
    Done(Arc<State>),
    Failed,
}

/// An image that stages begin with, once somebody has unpacked it.
type BaseSlot = Arc<Mutex<Option<Arc<Base>>>>;

/// What was made and has no name yet.
#[derive(Default)]
struct Fresh {
    layers: Vec<Arc<BuiltLayer>>,
    records: Vec<(Digest, CacheRecord)>,
    by_key: HashMap<Digest, Layer>,
}

/// The build for one platform.
pub(crate) struct Execution<'a> {
    shared: Shared<'a>,
    graph: Graph,
    platform: Platform,
    automatic: BTreeMap<String, String>,
    cache: Cache<'a>,
    context: Option<Tree>,
    stamps: Option<Stamps>,
    contexts: BTreeMap<String, Tree>,
    slots: Vec<(Mutex<Slot>, Condvar)>,
    /// By name and platform.
    images: Mutex<HashMap<(String, String), BaseSlot>>,
    fresh: Mutex<Fresh>,
    failure: Mutex<Option<BuildError>>,
    consumed: Mutex<BTreeSet<String>>,
    findings: Mutex<Vec<Finding>>,
    /// Records that other builds wrote, and where their layers are.
    foreign: Vec<Foreign>,
    /// What this build used and made: for the cache that it writes.
    used: Mutex<BTreeMap<Digest, CacheRecord>>,
    /// Ids and directories of the mounts' caches that it used.
    used_mounts: Mutex<BTreeMap<String, std::path::PathBuf>>,
}

/// What a thread that panicked left is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Execution<'a> {
    pub(crate) fn new(shared: Shared<'a>, platform: Platform) -> Result<Self, BuildError> {
        let options = shared.options;
        let last = shared.file.instructions.iter().rev();
        let mut last = last.filter_map(|instruction| match &instruction.kind {
            Kind::From(from) => Some(from.stage.as_ref().map(|name| name.to_ascii_lowercase())),
            _ => None,
        });
        let target = options.target.clone();
        let target = target.or_else(|| last.next().flatten());
        let automatic = scope::automatic(&platform, target.as_deref());
        let inputs = Inputs {
            args: &options.args,
            automatic: &automatic,
            contexts: &options.contexts,
            target: options.target.as_deref(),
        };
        let graph = Graph::new(shared.file, &inputs)?;
        let (context, stamps) = open_context(&shared)?;
        let foreign = exports::open_foreign(&shared, &platform)?;
        let mut contexts = BTreeMap::new();
        for (name, context) in &options.contexts {
            if let NamedContext::Directory(path) = context {
                let ignore = read_ignore(path)?;
                contexts.insert(name.clone(), host_tree(path, ignore)?);
            }
        }
        let execution = Self {
            slots: graph
                .stages
                .iter()
                .map(|_| (Mutex::new(Slot::Waiting), Condvar::new()))
                .collect(),
            cache: Cache::open(shared.engine)?,
            shared,
            graph,
            platform,
            automatic,
            context,
            stamps,
            contexts,
            images: Mutex::default(),
            fresh: Mutex::default(),
            failure: Mutex::default(),
            consumed: Mutex::default(),
            findings: Mutex::default(),
            foreign,
            used: Mutex::default(),
            used_mounts: Mutex::default(),
        };
        execution.check_allowed()?;
        Ok(execution)
    }

    /// Refuses what the file may not ask for before anything is carried out.
    fn check_allowed(&self) -> Result<(), BuildError> {
        let needed = self.graph.needed.iter();
        for stage in needed.filter_map(|index| self.graph.stages.get(*index)) {
            if self.graph.replacement(stage.index).is_some() {
                continue;
            }
            for instruction in &stage.instructions {
                if let Kind::Run(run) = &instruction.kind {
                    let at = At {
                        file: self.shared.file,
                        instruction,
                        stage,
                        label: "",
                    };
                    self.require_allowed(at, run)?;
                }
            }
        }
        Ok(())
    }

    /// Builds the target. Whatever was completed is kept in the cache, also when something fails.
    pub(crate) fn run(&self) -> Result<Arc<State>, BuildError> {
        std::thread::scope(|scope| {
            for index in &self.graph.needed {
                scope.spawn(move || drop(self.stage(*index)));
            }
        });
        let kept = self.keep();
        if let Some(stamps) = &self.stamps
            && let Err(error) = stamps.save()
        {
            tracing::debug!(%error, "the stat cache of the context was not written");
        }
        if let Some(error) = lock(&self.failure).take() {
            return Err(error);
        }
        kept?;
        if self.is_stopped() {
            return Err(BuildError::Stopped);
        }
        self.warn_unused();
        self.stage(self.graph.target)
    }

    /// Gives what was made its names, under one barrier, and then the cache its records.
    fn keep(&self) -> Result<(), BuildError> {
        let mut fresh = lock(&self.fresh);
        let layers: Vec<&BuiltLayer> = fresh.layers.iter().map(AsRef::as_ref).collect();
        self.shared.session.publish(&layers)?;
        self.cache.put(&std::mem::take(&mut fresh.records))
    }

    /// The findings of rules that need values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        std::mem::take(&mut lock(&self.findings))
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed) || lock(&self.failure).is_some()
    }

    /// The result of a stage: made here, or by the thread that has begun with it.
    fn stage(&self, index: usize) -> Result<Arc<State>, BuildError> {
        let (slot, ready) = self.slots.get(index).ok_or(BuildError::Stopped)?;
        let mut guard = lock(slot);
        loop {
            match &*guard {
                Slot::Done(state) => return Ok(Arc::clone(state)),
                Slot::Failed => return Err(BuildError::Stopped),
                Slot::Waiting => break,
                Slot::Running => guard = ready.wait(guard).unwrap_or_else(PoisonError::into_inner),
            }
        }
        *guard = Slot::Running;
        drop(guard);
        let result = self.run_stage(index).map(Arc::new);
        let mut guard = lock(slot);
        *guard = match &result {
            Ok(state) => Slot::Done(Arc::clone(state)),
            Err(_) => Slot::Failed,
        };
        drop(guard);
        ready.notify_all();
        match result {
            Ok(state) => Ok(state),
            // Who waited for something that failed is not told twice.
            Err(BuildError::Stopped) => Err(BuildError::Stopped),
            Err(error) => {
                lock(&self.failure).get_or_insert(error);
                Err(BuildError::Stopped)
            }
        }
    }

    /// Tells of a step and of its end.
    fn step<T>(
        &self,
        name: &str,
        work: impl FnOnce(StepId) -> Result<(T, StepEnd), BuildError>,
    ) -> Result<T, BuildError> {
        if self.is_stopped() {
            return Err(BuildError::Stopped);
        }
        let step = self.shared.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let progress = self.shared.progress;
        progress.event(&Event::Begin { step, name });
        let begin = Instant::now();
        let result = work(step);
        let end = match &result {
            Ok((_, end)) => *end,
            Err(BuildError::Stopped) => StepEnd::Stopped,
            Err(_) => StepEnd::Failed,
        };
        let took = begin.elapsed();
        progress.event(&Event::End { step, end, took });
        result.map(|(value, _)| value)
    }

    fn warn(&self, text: &str) {
        self.shared.progress.event(&Event::Warning(text));
    }

    fn find(&self, file: &Dockerfile, finding: Finding) {
        if is_skipped(file, finding.rule) {
            return;
        }
        self.shared.progress.event(&Event::Finding(&finding));
        lock(&self.findings).push(finding);
    }

    /// Values that nothing took: they may be misspelt.
    fn warn_unused(&self) {
        let consumed = lock(&self.consumed);
        let is_known = |name: &String| {
            consumed.contains(name)
                || self.graph.globals.contains_key(name)
                || scope::PROXIES.contains(&name.as_str())
                || name == "SOURCE_DATE_EPOCH"
                || is_switch(name)
        };
        let unused: Vec<_> = self
            .shared
            .options
            .args
            .keys()
            .filter(|name| !is_known(name))
            .map(String::as_str)
            .collect();
        if !unused.is_empty() {
            self.warn(&format!(
                "no ARG takes the build argument {}",
                unused.join(", ")
            ));
        }
    }

    fn uses_cache(&self, index: usize) -> bool {
        let stage = self.graph.stages.get(index);
        match &self.shared.options.no_cache {
            NoCache::Never => true,
            NoCache::Always => false,
            NoCache::Stages(names) => !names.iter().any(|name| {
                stage.is_some_and(|stage| {
                    stage.label().eq_ignore_ascii_case(name) || stage.index.to_string() == *name
                })
            }),
        }
    }

    /// A layer by its keys: the first is the one that it is recorded under for certain.
    fn cached(&self, keys: &[Digest], uses_cache: bool) -> Option<Layer> {
        for key in keys {
            if let Some(layer) = lock(&self.fresh).by_key.get(key) {
                return Some(layer.clone());
            }
            if !uses_cache {
                continue;
            }
            if let Some(record) = self.cache.get(key) {
                let layer = Layer {
                    diff_id: record.layer,
                    size: record.size,
                    held: None,
                };
                // From here on nobody prunes it; it may have been pruned just before.
                let held = self.shared.session.hold_layers(&[record.layer]);
                if held.is_ok()
                    && self
                        .shared
                        .engine
                        .store()
                        .built_root(&record.layer)
                        .is_some()
                {
                    lock(&self.used).insert(*key, record);
                    return Some(layer);
                }
            }
            if let Some(layer) = self.received(key) {
                return Some(layer);
            }
        }
        None
    }

    /// Keeps a layer that was just made.
    fn keep_layer(
        &self,
        built: BuiltLayer,
        keys: &[Digest],
        kind: &str,
        instruction: &Instruction,
        begin: Instant,
    ) -> Layer {
        let built = Arc::new(built);
        let layer = Layer {
            diff_id: built.diff_id(),
            size: built.size(),
            held: Some(Arc::clone(&built)),
        };
        let record = CacheRecord::new(
            layer.diff_id,
            layer.size,
            kind,
            &instruction.text,
            begin.elapsed(),
        );
        let mut fresh = lock(&self.fresh);
        fresh.layers.push(built);
        for key in keys {
            fresh.records.push((*key, record.clone()));
            lock(&self.used).insert(*key, record.clone());
            fresh.by_key.insert(*key, layer.clone());
        }
        layer
    }
}

fn host_tree(path: &Path, ignore: Ignore) -> Result<Tree, BuildError> {
    HostTree::open(path, ignore)
        .map(Tree::Host)
        .map_err(|source| BuildError::Context {
            what: format!("`{}` cannot be opened", path.display()),
            source: Some(Box::new(source)),
        })
}

fn read_ignore(dir: &Path) -> Result<Ignore, BuildError> {
    let path = dir.join(".dockerignore");
    match std::fs::read_to_string(&path) {
        Ok(text) => ignore_of(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ignore::default()),
        Err(source) => Err(BuildError::Read { path, source }),
    }
}

fn ignore_of(text: &str) -> Result<Ignore, BuildError> {
    Ignore::parse(text).map_err(|what| BuildError::Context {
        what: format!("its .dockerignore is wrong: {what}"),
        source: None,
    })
}

fn open_context(shared: &Shared<'_>) -> Result<(Option<Tree>, Option<Stamps>), BuildError> {
    let Some(path) = &shared.options.context else {
        return Ok((None, None));
    };
    let ignore = match &shared.options.ignore {
        Some(text) => ignore_of(text)?,
        None => read_ignore(path)?,
    };
    let stamps = Stamps::open(&shared.engine.layout().build().join("contexts"), path);
    Ok((Some(host_tree(path, ignore)?), Some(stamps)))
}
