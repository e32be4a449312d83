//! `moby.buildkit.v1.Control`: builds, how they are, what they keep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use builder::PruneCache;
use engine::Engine;
use image::Platform;

use super::builds::Build;
use super::client::Client;
use super::grpc::{Answer, Call, Code, Replies, Status};
use super::solve::{Job, Solved, failed};
use super::wire::control::{
    self as wire, BuildHistoryRequest, BuildkitVersion, DiskUsageRequest, DiskUsageResponse,
    InfoResponse, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest,
    Timestamp, UpdateBuildHistoryRequest, UsageRecord, WorkerRecord,
};
use super::wire::gateway::Nothing;
use super::{session, tunnel};
use crate::daemon::Daemon;

/// The only worker.
const WORKER: &str = "ketch";

/// Labels of a worker that clients look at. That there is a snapshotter tells them that images of
/// several platforms, archives and pushes are made here.
const SNAPSHOTTER: &str = "org.mobyproject.buildkit.worker.snapshotter";
const EXECUTOR: &str = "org.mobyproject.buildkit.worker.executor";
const HOST_GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// Answers a call of the service.
pub(super) async fn answer(
    daemon: &Arc<Daemon>,
    method: &str,
    call: &mut Call,
    replies: &mut Replies,
) -> Result<Answer, Status> {
    match method {
        "Solve" => {
            let request = call.messages.only().await?;
            let solved = replies.unless_cancelled(solve(daemon, request)).await?;
            Ok(Answer::of(&solved))
        }
        "Status" => {
            let request: StatusRequest = call.messages.only().await?;
            let build = daemon.buildkit.builds.get(&request.reference).await?;
            replies.begin()?;
            let mut at = 0;
            while let Some(response) = build.board.next(&mut at).await {
                replies.send(&response).await?;
            }
            Ok(Answer::Streamed)
        }
        "Session" => tunnel::serve(daemon, call, replies).await,
        "ListWorkers" => {
            let mut record = blocking(daemon, |engine| Ok(worker(engine))).await?;
            record.buildkit_version = Some(version(daemon));
            Ok(Answer::of(&ListWorkersResponse {
                record: vec![record],
            }))
        }
        "Info" => Ok(Answer::of(&InfoResponse {
            buildkit_version: Some(version(daemon)),
        })),
        "DiskUsage" => {
            let request: DiskUsageRequest = call.messages.only().await?;
            no_filter(&request.filter)?;
            let record = blocking(daemon, usage).await?;
            Ok(Answer::of(&DiskUsageResponse { record }))
        }
        "Prune" => {
            let request = call.messages.only().await?;
            let pruned = blocking(daemon, move |engine| prune(engine, &request)).await?;
            for record in &pruned {
                replies.send(record).await?;
            }
            Ok(Answer::Streamed)
        }
        "ListenBuildHistory" => {
            let request: BuildHistoryRequest = call.messages.only().await?;
            history(daemon, &request, replies).await
        }
        "UpdateBuildHistory" => {
            let request: UpdateBuildHistoryRequest = call.messages.only().await?;
            if request.pinned {
                return Err(Status::unimplemented(
                    "builds cannot be pinned: their history is memory and ends with the daemon",
                ));
            }
            if request.delete {
                daemon.buildkit.builds.forget(&request.reference)?;
            }
            Ok(Answer::of(&Nothing {}))
        }
        other => Err(Status::unimplemented(format!(
            "unknown method {other} of BuildKit's control service"
        ))),
    }
}

/// Runs something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    work: impl FnOnce(&Engine) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    daemon
        // Nobody waits when the client is gone.
        .follow(move |engine| drop(sender.send(work(engine))))
        .map_err(|error| Status::new(Code::ResourceExhausted, error.message))?;
    receiver.await.unwrap_or_else(|_| {
        Err(Status::internal(
            "the operation has failed in a way that it should not have: see the daemon's log",
        ))
    })
}

/// Builds: by itself, or with what the client returns.
pub(super) async fn solve(
    daemon: &Arc<Daemon>,
    request: SolveRequest,
) -> Result<SolveResponse, Status> {
    check(&request)?;
    let running = daemon.buildkit.builds.begin(request)?;
    let result = finish(daemon, &running.build).await;
    running.finish(result.as_ref());
    Ok(SolveResponse {
        exporter_response: result?,
    })
}

async fn finish(
    daemon: &Arc<Daemon>,
    build: &Arc<Build>,
) -> Result<BTreeMap<String, String>, Status> {
    let request = &build.request;
    let solved = match request.frontend.as_str() {
        "" => {
            let returned = build.returned().await;
            match returned.map_err(|_| Status::internal("the build is gone"))?? {
                Some(name) => build.result(&name)?,
                None => Arc::default(),
            }
        }
        frontend => {
            let (frontend, attrs) = (frontend.to_owned(), request.frontend_attrs.clone());
            Arc::new(run(daemon, build, frontend, attrs).await?)
        }
    };
    if request.all_exporters().is_empty() && solved.metadata.is_empty() {
        return Ok(BTreeMap::new());
    }
    with_job(daemon, build, move |job| job.export(&solved)).await
}

/// Runs a frontend.
pub(super) async fn run(
    daemon: &Arc<Daemon>,
    build: &Arc<Build>,
    frontend: String,
    attrs: BTreeMap<String, String>,
) -> Result<Solved, Status> {
    with_job(daemon, build, move |job| job.run(&frontend, &attrs)).await
}

/// Does something with a build on a thread that blocks.
async fn with_job<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    build: &Arc<Build>,
    work: impl FnOnce(&Job<'_>) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let session = daemon.buildkit.sessions.get(&build.request.session).await?;
    let client = Client::new(session, &build.stop);
    let (inner, build) = (Arc::clone(daemon), Arc::clone(build));
    blocking(daemon, move |engine| {
        let other_client = |id: &str| {
            let session = client.wait(inner.buildkit.sessions.get(id))?;
            Ok(client.with(session))
        };
        let upload = || {
            let take = inner.buildkit.uploads.take(&build.request.reference);
            let archive = client.wait(take)?;
            Ok(Box::new(archive) as Box<dyn std::io::Read>)
        };
        let job = Job {
            engine,
            registry: &inner.options.registry,
            board: &build.board,
            stop: &build.stop,
            client: &client,
            other_client: &other_client,
            upload: &upload,
            request: &build.request,
        };
        work(&job)
    })
    .await
}

/// What no build here can do.
fn check(request: &SolveRequest) -> Result<(), Status> {
    let has_graph = |definition: &wire::Definition| !definition.def.is_empty();
    let what = if request.definition.as_ref().is_some_and(has_graph) {
        "a definition in LLB"
    } else if !request.frontend_inputs.is_empty() {
        "inputs in LLB"
    } else if request
        .source_policy
        .as_ref()
        .is_some_and(|policy| !policy.rules.is_empty())
        || !request.source_policy_session.is_empty()
    {
        "a source policy"
    } else if request.enable_session_exporter {
        "an exporter of the session"
    } else if request.proxy_network {
        "a network through a proxy"
    } else {
        return Ok(());
    };
    Err(Status::unimplemented(format!(
        "cannot build with {what}: ketch builds Dockerfiles"
    )))
}

fn version(daemon: &Daemon) -> BuildkitVersion {
    BuildkitVersion {
        package: "ketch".to_owned(),
        version: daemon.options.version.to_owned(),
        revision: String::new(),
    }
}

/// Who builds here, and for what.
pub(super) fn worker(engine: &Engine) -> WorkerRecord {
    let mut labels = BTreeMap::from([
        (SNAPSHOTTER.to_owned(), "overlayfs".to_owned()),
        (EXECUTOR.to_owned(), WORKER.to_owned()),
    ]);
    let network = engine.networks().find(network::DEFAULT_NETWORK).ok();
    let gateway = network.and_then(|network| network.ipv4?.gateway);
    if let Some(gateway) = gateway {
        labels.insert(HOST_GATEWAY.to_owned(), gateway.to_string());
    }
    let platforms = [Platform::host(), Platform::wasi()];
    WorkerRecord {
        id: WORKER.to_owned(),
        labels,
        platforms: platforms
            .iter()
            .map(|platform| wire::Platform {
                architecture: platform.architecture().to_owned(),
                os: platform.os().to_owned(),
                variant: platform.variant().unwrap_or_default().to_owned(),
            })
            .collect(),
        buildkit_version: None,
    }
}

fn no_filter(filter: &[String]) -> Result<(), Status> {
    match filter.first() {
        None => Ok(()),
        Some(filter) => Err(Status::unimplemented(format!(
            "cannot use the filter `{filter}`: records are not filtered here"
        ))),
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What builds keep.
fn usage(engine: &Engine) -> Result<Vec<UsageRecord>, Status> {
    let mut seen = std::collections::BTreeSet::new();
    let entries = builder::cache_entries(engine).map_err(|error| failed(&error))?;
    let mut records: Vec<UsageRecord> = Vec::new();
    for entry in &entries {
        // Several records can name one layer.
        let is_first = seen.insert(entry.record.layer);
        records.push(UsageRecord {
            shared: !is_first,
            size: if is_first { size(entry.disk_bytes) } else { 0 },
            ..of_entry(entry)
        });
    }
    let mounts = builder::cache_mount_entries(engine).map_err(|error| failed(&error))?;
    records.extend(mounts.iter().map(of_mount));
    Ok(records)
}

fn of_entry(entry: &builder::CacheEntry) -> UsageRecord {
    let used = Timestamp::of(entry.used);
    UsageRecord {
        id: entry.key.to_string(),
        size: size(entry.disk_bytes),
        created_at: Some(used),
        last_used_at: Some(used),
        usage_count: 1,
        description: entry.record.description.clone(),
        record_type: "regular".to_owned(),
        ..UsageRecord::default()
    }
}

fn of_mount(mount: &builder::CacheMountEntry) -> UsageRecord {
    let used = Timestamp::of(mount.used);
    UsageRecord {
        id: mount.id.clone(),
        mutable: true,
        size: size(mount.disk_bytes),
        created_at: Some(used),
        last_used_at: Some(used),
        usage_count: 1,
        description: format!("cached mount {}", mount.id),
        record_type: "exec.cachemount".to_owned(),
        ..UsageRecord::default()
    }
}

/// Takes away what nobody needs.
fn prune(engine: &Engine, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    no_filter(&request.filter)?;
    if request.min_free_space > 0 {
        return Err(Status::unimplemented(
            "cannot use min-free-space: it is not supported by ketch",
        ));
    }
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    let options = PruneCache {
        all: request.all,
        unused_for: positive(request.keep_duration).map(Duration::from_nanos),
        keep_bytes: positive(request.max_used_space).or(positive(request.reserved_space)),
    };
    let pruned = builder::prune_cache(engine, &options).map_err(|error| failed(&error))?;
    let records = pruned.records.iter().map(of_entry);
    Ok(records.chain(pruned.mounts.iter().map(of_mount)).collect())
}

async fn history(
    daemon: &Arc<Daemon>,
    request: &BuildHistoryRequest,
    replies: &mut Replies,
) -> Result<Answer, Status> {
    no_filter(&request.filter)?;
    replies.begin()?;
    let builds = &daemon.buildkit.builds;
    let mut changes = builds.changes();
    let mut seen = BTreeMap::new();
    let is_wanted = |name: &str| request.reference.is_empty() || name == request.reference;
    loop {
        changes.mark_unchanged();
        for event in builds.news(&mut seen, is_wanted, request.active_only) {
            replies.send(&event).await?;
        }
        // The daemon's end is that of the builds' list.
        if request.early_exit || changes.changed().await.is_err() {
            return Ok(Answer::Streamed);
        }
    }
}

/// Sessions and builds.
#[derive(Default)]
pub(crate) struct BuildKit {
    pub(crate) sessions: session::Sessions,
    pub(super) builds: super::builds::Builds,
    pub(super) uploads: super::classic::Uploads,
}

impl std::fmt::Debug for BuildKit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildKit").finish_non_exhaustive()
    }
}
