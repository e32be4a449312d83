//! Where a container's output is recorded.

use std::collections::BTreeMap;
use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::plan::{PlanError, decode};

/// Where output is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Files in the container's directory, which `logs` reads.
    pub file: Option<LogFilePlan>,
    /// Somebody else who is sent every line.
    pub receiver: Option<LogReceiver>,
    /// Lines wait in a ring of so many bytes for a writer that is slower than the container, and are
    /// dropped when it is full; without one the container waits.
    pub ring_bytes: Option<u64>,
}

/// Who is sent lines, and what stands beside each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReceiver {
    /// Where and in which form.
    pub destination: LogDestination,
    /// What lines are marked with.
    pub tag: String,
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image's name.
    pub image: String,
    /// Labels and variables that were asked for.
    pub attributes: BTreeMap<String, String>,
}

/// A receiver of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDestination {
    /// A syslog server.
    Syslog {
        /// Where it listens.
        address: LogAddress,
        /// Which part of the system lines come from: 0 to 23.
        facility: u8,
        /// The form of messages.
        format: SyslogFormat,
        /// This host's name.
        hostname: String,
    },
    /// A Fluentd server that speaks its forward protocol.
    Fluentd {
        /// Where it listens.
        address: LogAddress,
        /// Times have nanoseconds.
        sub_second: bool,
    },
    /// The journal of systemd, by its native protocol.
    Journald,
}

/// Where a receiver listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogAddress {
    /// A socket in the file system that takes a stream.
    UnixStream(CString),
    /// A socket in the file system that takes messages.
    UnixDatagram(CString),
    /// Host and port.
    Tcp(String),
    /// Host and port.
    Udp(String),
}

/// The form of a syslog message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogFormat {
    /// As local programs write it: local time, tag and pid.
    Local,
    /// RFC 3164: the host's name too.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// What the process is told that writes for a monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogWriterPlan {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Files in this directory.
    pub file: Option<(LogFilePlan, CString)>,
    /// Who else is sent every line.
    pub receiver: Option<LogReceiver>,
}

impl LogWriterPlan {
    /// Encodes the plan for the memfd.
    ///
    /// # Errors
    /// As [`crate::Plan::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        postcard::to_stdvec(self).map_err(PlanError::Encode)
    }

    /// Decodes what [`LogWriterPlan::encode`] wrote.
    ///
    /// # Errors
    /// As [`crate::Plan::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        decode(bytes)
    }
}

/// The form of a log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Docker's `json-file`: one object a line.
    JsonFile,
    /// Compact and binary.
    Local,
}

/// A log in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilePlan {
    /// Their form.
    pub format: LogFormat,
    /// Another file is begun before one passes this many bytes; 0 never.
    pub max_bytes: u64,
    /// How many files are kept, the one that is written to included.
    pub max_files: u32,
    /// The program that compresses a file that is complete, called with [`COMPRESS`] and the file;
    /// files are not compressed without it.
    pub compressor: Option<CString>,
    /// What stands beside each line.
    pub attributes: BTreeMap<String, String>,
}

/// What the command line calls itself by to compress a file of a log.
pub const COMPRESS: &str = "internal-compress-log";

/// The name of a container's log in its directory: a link to the newest of its files.
pub const LOG_NAME: &str = "container.log";
