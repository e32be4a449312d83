//! `moby.buildkit.v1.Control`: `api/services/control/control.proto`, `api/types/worker.proto`, and what
//! they use of `solver/pb/ops.proto`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message;

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        Self::of(SystemTime::now())
    }

    pub(crate) fn of(at: SystemTime) -> Self {
        let since = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PruneRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) filter: Vec<String>,
    #[prost(bool, tag = "2")]
    pub(crate) all: bool,
    /// Nanoseconds.
    #[prost(int64, tag = "3")]
    pub(crate) keep_duration: i64,
    #[prost(int64, tag = "4")]
    pub(crate) reserved_space: i64,
    #[prost(int64, tag = "5")]
    pub(crate) max_used_space: i64,
    #[prost(int64, tag = "6")]
    pub(crate) min_free_space: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DiskUsageRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) filter: Vec<String>,
    #[prost(int64, tag = "2")]
    pub(crate) age_limit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DiskUsageResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) record: Vec<UsageRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UsageRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) mutable: bool,
    #[prost(bool, tag = "3")]
    pub(crate) in_use: bool,
    #[prost(int64, tag = "4")]
    pub(crate) size: i64,
    #[prost(message, optional, tag = "6")]
    pub(crate) created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) last_used_at: Option<Timestamp>,
    #[prost(int64, tag = "8")]
    pub(crate) usage_count: i64,
    #[prost(string, tag = "9")]
    pub(crate) description: String,
    #[prost(string, tag = "10")]
    pub(crate) record_type: String,
    #[prost(bool, tag = "11")]
    pub(crate) shared: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) definition: Option<Definition>,
    /// Before there could be several exporters.
    #[prost(string, tag = "3")]
    pub(crate) exporter_deprecated: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) exporter_attrs_deprecated: BTreeMap<String, String>,
    #[prost(string, tag = "5")]
    pub(crate) session: String,
    #[prost(string, tag = "6")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) frontend_attrs: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) cache: Option<CacheOptions>,
    #[prost(string, repeated, tag = "9")]
    pub(crate) entitlements: Vec<String>,
    #[prost(btree_map = "string, message", tag = "10")]
    pub(crate) frontend_inputs: BTreeMap<String, Definition>,
    /// A build that history does not record.
    #[prost(bool, tag = "11")]
    pub(crate) internal: bool,
    #[prost(message, optional, tag = "12")]
    pub(crate) source_policy: Option<Policy>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) exporters: Vec<Exporter>,
    #[prost(bool, tag = "14")]
    pub(crate) enable_session_exporter: bool,
    #[prost(string, tag = "15")]
    pub(crate) source_policy_session: String,
    #[prost(bool, tag = "17")]
    pub(crate) proxy_network: bool,
}

impl SolveRequest {
    /// Where the result goes, in the old or the new form.
    pub(crate) fn all_exporters(&self) -> Vec<Exporter> {
        if self.exporters.is_empty() && !self.exporter_deprecated.is_empty() {
            return vec![Exporter {
                kind: self.exporter_deprecated.clone(),
                attrs: self.exporter_attrs_deprecated.clone(),
            }];
        }
        self.exporters.clone()
    }
}

/// A build as a graph of operations. Of these only that there are some matters here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Definition {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) def: Vec<bytes::Bytes>,
}

/// `moby.buildkit.v1.sourcepolicy.Policy`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Policy {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) rules: Vec<bytes::Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exporter {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) attrs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CacheOptions {
    #[prost(string, tag = "1")]
    pub(crate) export_ref_deprecated: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) import_refs_deprecated: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) exports: Vec<CacheOptionsEntry>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) imports: Vec<CacheOptionsEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CacheOptionsEntry {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) attrs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveResponse {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) exporter_response: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) vertexes: Vec<Vertex>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) statuses: Vec<VertexStatus>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) logs: Vec<VertexLog>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) warnings: Vec<VertexWarning>,
}

/// A step of a build.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Vertex {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(bool, tag = "4")]
    pub(crate) cached: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) started: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    pub(crate) completed: Option<Timestamp>,
    #[prost(string, tag = "7")]
    pub(crate) error: String,
}

/// How far a part of a step is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct VertexStatus {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) vertex: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(int64, tag = "4")]
    pub(crate) current: i64,
    #[prost(int64, tag = "5")]
    pub(crate) total: i64,
    #[prost(message, optional, tag = "6")]
    pub(crate) timestamp: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) started: Option<Timestamp>,
    #[prost(message, optional, tag = "8")]
    pub(crate) completed: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VertexLog {
    #[prost(string, tag = "1")]
    pub(crate) vertex: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) timestamp: Option<Timestamp>,
    /// 1 is standard output, 2 standard error.
    #[prost(int64, tag = "3")]
    pub(crate) stream: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) msg: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VertexWarning {
    #[prost(string, tag = "1")]
    pub(crate) vertex: String,
    #[prost(int64, tag = "2")]
    pub(crate) level: i64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) short: bytes::Bytes,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) detail: Vec<bytes::Bytes>,
    #[prost(string, tag = "5")]
    pub(crate) url: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) info: Option<SourceInfo>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) ranges: Vec<Range>,
}

/// A file that something is about.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SourceInfo {
    #[prost(string, tag = "1")]
    pub(crate) filename: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: bytes::Bytes,
    #[prost(string, tag = "4")]
    pub(crate) language: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Range {
    #[prost(message, optional, tag = "1")]
    pub(crate) start: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub(crate) end: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Position {
    #[prost(int32, tag = "1")]
    pub(crate) line: i32,
    #[prost(int32, tag = "2")]
    pub(crate) character: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListWorkersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) record: Vec<WorkerRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WorkerRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) platforms: Vec<Platform>,
    #[prost(message, optional, tag = "5")]
    pub(crate) buildkit_version: Option<BuildkitVersion>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Platform {
    #[prost(string, tag = "1")]
    pub(crate) architecture: String,
    #[prost(string, tag = "2")]
    pub(crate) os: String,
    #[prost(string, tag = "3")]
    pub(crate) variant: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BuildkitVersion {
    #[prost(string, tag = "1")]
    pub(crate) package: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(string, tag = "3")]
    pub(crate) revision: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) buildkit_version: Option<BuildkitVersion>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BuildHistoryRequest {
    #[prost(bool, tag = "1")]
    pub(crate) active_only: bool,
    #[prost(string, tag = "2")]
    pub(crate) reference: String,
    #[prost(bool, tag = "3")]
    pub(crate) early_exit: bool,
    #[prost(string, repeated, tag = "4")]
    pub(crate) filter: Vec<String>,
    #[prost(int32, tag = "5")]
    pub(crate) limit: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BuildHistoryEvent {
    /// 0 started, 1 complete, 2 deleted.
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) record: Option<BuildHistoryRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BuildHistoryRecord {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) frontend_attrs: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) exporters: Vec<Exporter>,
    #[prost(message, optional, tag = "5")]
    pub(crate) error: Option<RpcStatus>,
    #[prost(message, optional, tag = "6")]
    pub(crate) created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) completed_at: Option<Timestamp>,
    #[prost(btree_map = "string, string", tag = "9")]
    pub(crate) exporter_response: BTreeMap<String, String>,
    #[prost(bool, tag = "14")]
    pub(crate) pinned: bool,
    #[prost(int32, tag = "15")]
    pub(crate) num_cached_steps: i32,
    #[prost(int32, tag = "16")]
    pub(crate) num_total_steps: i32,
    #[prost(int32, tag = "17")]
    pub(crate) num_completed_steps: i32,
    #[prost(int32, tag = "19")]
    pub(crate) num_warnings: i32,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UpdateBuildHistoryRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(bool, tag = "2")]
    pub(crate) pinned: bool,
    #[prost(bool, tag = "3")]
    pub(crate) delete: bool,
    #[prost(bool, tag = "4")]
    pub(crate) finalize: bool,
}
