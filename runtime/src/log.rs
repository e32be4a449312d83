//! Where a container's output is recorded.

use std::collections::BTreeMap;
use std::ffi::CString;

use serde::{Deserialize, Serialize};

/// Where output is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Files in the container's directory, which `logs` reads.
    pub file: Option<LogFilePlan>,
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
