//! `moby.buildkit.v1.frontend.LLBBridge`: `frontend/gateway/pb/gateway.proto`.

use std::collections::BTreeMap;

use prost::Message;

use super::control::{Definition, RpcStatus, WorkerRecord};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) frontend_api_caps: Vec<ApiCap>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) llb_caps: Vec<ApiCap>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) workers: Vec<WorkerRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ApiCap {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) definition: Option<Definition>,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) frontend_opt: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) cache_imports: Vec<super::control::CacheOptionsEntry>,
    #[prost(btree_map = "string, message", tag = "13")]
    pub(crate) frontend_inputs: BTreeMap<String, Definition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveResponse {
    #[prost(message, optional, tag = "3")]
    pub(crate) result: Option<SolveResult>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveResult {
    #[prost(message, optional, tag = "3")]
    pub(crate) reference: Option<Ref>,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ref {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<SolveResult>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<RpcStatus>,
}

/// `InputsRequest`, `ReturnResponse`, and all others that say nothing.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Nothing {}
