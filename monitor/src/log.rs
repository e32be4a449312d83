//! The container's log: Docker's `json-file`, one object a line, a line of at most 16 KiB.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use runtime::LogPlan;

/// A longer line is cut into records without a line end, as Docker's log copier does.
const MAX_LINE: usize = 16 * 1024;

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Partial(Vec<u8>);

/// The log file, or none.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
}

impl Log {
    pub(crate) fn open(plan: &LogPlan) -> io::Result<Self> {
        let LogPlan::JsonFile { path, .. } = plan else {
            return Ok(Self { file: None });
        };
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)?;
        Ok(Self { file: Some(file) })
    }

    /// Takes what a stream gave and writes its whole lines.
    pub(crate) fn write(&mut self, stream: &str, partial: &mut Partial, mut bytes: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let mut records = Vec::with_capacity(bytes.len() + 128);
        while !bytes.is_empty() {
            let room = MAX_LINE - partial.0.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
            let end = window
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1);
            let (taken, rest) = bytes.split_at(end.unwrap_or(window.len()));
            partial.0.extend_from_slice(taken);
            bytes = rest;
            if end.is_some() || partial.0.len() == MAX_LINE {
                record(&mut records, stream, &partial.0);
                partial.0.clear();
            }
        }
        self.append(&records);
    }

    /// Writes what is left of a line at the end of a stream.
    pub(crate) fn finish(&mut self, stream: &str, partial: &mut Partial) {
        if self.file.is_some() && !partial.0.is_empty() {
            let mut records = Vec::new();
            record(&mut records, stream, &partial.0);
            partial.0.clear();
            self.append(&records);
        }
    }

    fn append(&mut self, records: &[u8]) {
        // A full disk must not stop the container: its output still reaches whoever is attached.
        if let Some(file) = &mut self.file {
            drop(file.write_all(records));
        }
    }
}

fn record(to: &mut Vec<u8>, stream: &str, line: &[u8]) {
    let text = serde_json::Value::from(String::from_utf8_lossy(line).into_owned());
    let now = state::clock::now();
    to.extend_from_slice(
        format!("{{\"log\":{text},\"stream\":\"{stream}\",\"time\":\"{now}\"}}\n").as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn lines_over_several_writes_are_joined_and_long_ones_cut() {
        let path = std::env::temp_dir().join(format!("ketch-log-{}", std::process::id()));
        let plan = LogPlan::JsonFile {
            path: CString::new(path.as_os_str().as_bytes()).unwrap(),
            max_bytes: 0,
            max_files: 1,
        };
        let mut log = Log::open(&plan).unwrap();
        let mut partial = Partial::default();
        log.write("stdout", &mut partial, b"one\ntw");
        log.write("stdout", &mut partial, b"o\n");
        log.write("stdout", &mut partial, &vec![b'x'; MAX_LINE + 1]);
        log.finish("stdout", &mut partial);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let logs: Vec<&str> = lines
            .iter()
            .map(|line| line["log"].as_str().unwrap())
            .collect();
        assert_eq!(logs[..2], ["one\n", "two\n"]);
        assert_eq!((logs[2].len(), logs[3].len()), (MAX_LINE, 1));
    }
}
