//! gRPC over HTTP/2 without encryption, as BuildKit's clients speak it over connections that were
//! HTTP/1 before: a call is a stream, a message is a byte of flags, a length and a protobuf message,
//! and the status comes in the trailers
//! (`github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md`).

mod client;
mod message;
mod server;
mod status;

pub(crate) use client::{Exchange, Peer};
pub(crate) use message::decode;
pub(crate) use server::{Answer, Call, Replies, serve};
pub(crate) use status::{Code, Status};

/// The largest message, as in BuildKit.
const MAX_MESSAGE: usize = 16 << 20;

/// How many bytes of one stream may be on their way.
const STREAM_WINDOW: u32 = 1 << 20;

/// How many bytes of all streams of a connection may be on their way.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What small frames that wait may cost. A list of files is one frame a file: the window bounds how many
/// there are, and `h2` would take them for an attack before it is full.
const SMALL_FRAMES: usize = 32 << 20;

/// The largest list of headers: patterns of what is left out go in one.
const MAX_HEADERS: u32 = 1 << 20;

/// How many calls one connection may make at once.
const MAX_CALLS: u32 = 100;

const CONTENT_TYPE: &str = "application/grpc";
