//! The packets in which trees of files travel: `fsutil/types/wire.proto` and `stat.proto`.

use std::collections::BTreeMap;

use prost::Message;

/// What a packet is.
pub(crate) mod kind {
    /// A file; without one, the end of the list.
    pub(crate) const STAT: i32 = 0;
    /// The receiver wants the content of a file.
    pub(crate) const REQUEST: i32 = 1;
    /// A piece of a file's content; an empty one is its end.
    pub(crate) const DATA: i32 = 2;
    /// The receiver has everything.
    pub(crate) const END: i32 = 3;
    /// One side has failed.
    pub(crate) const ERROR: i32 = 4;
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Packet {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) stat: Option<Stat>,
    /// A file, by its place in the list.
    #[prost(uint32, tag = "3")]
    pub(crate) id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: bytes::Bytes,
}

/// A file. Its mode has the bits of Go's `fs.FileMode`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stat {
    /// Bytes, for names of files need not be UTF-8; on the wire both are one.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) gid: u32,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub(crate) modified: i64,
    /// Where a symbolic link leads, or for others the file that this is a further name of.
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) link: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub(crate) device_major: i64,
    #[prost(int64, tag = "9")]
    pub(crate) device_minor: i64,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub(crate) attributes: BTreeMap<String, Vec<u8>>,
}

/// Bits of Go's `fs.FileMode`.
pub(crate) mod mode {
    pub(crate) const DIRECTORY: u32 = 1 << 31;
    pub(crate) const SYMLINK: u32 = 1 << 27;
    pub(crate) const DEVICE: u32 = 1 << 26;
    pub(crate) const PIPE: u32 = 1 << 25;
    pub(crate) const SOCKET: u32 = 1 << 24;
    pub(crate) const SET_UID: u32 = 1 << 23;
    pub(crate) const SET_GID: u32 = 1 << 22;
    pub(crate) const CHARACTER: u32 = 1 << 21;
    pub(crate) const STICKY: u32 = 1 << 20;
    pub(crate) const IRREGULAR: u32 = 1 << 19;
    /// All that make something else than a regular file.
    pub(crate) const KIND: u32 =
        DIRECTORY | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTER | IRREGULAR;
}
