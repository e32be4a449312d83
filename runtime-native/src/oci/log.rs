//! The log of the command line (`--log`): callers read why a verb failed from its last line.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::LogTarget;
use serde::Serialize;

/// An open log, or none.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

impl Log {
    /// Opens the log. One that cannot be opened is none: the verb is more important.
    #[must_use]
    pub fn open(target: &LogTarget) -> Self {
        let file = target.path.as_ref().and_then(|path| {
            let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
            File::options().append(true).create(true).open(path).ok()
        });
        Self {
            file,
            json: target.json,
            debug: target.debug,
        }
    }

    /// Writes one line at `error`.
    pub fn error(&self, message: &str) {
        self.write("error", message);
    }

    /// Writes one line at `warning`, which without a log goes to standard error.
    pub fn warning(&self, message: &str) {
        match self.file {
            Some(_) => self.write("warning", message),
            // Nobody is told when even that is closed.
            None => {
                let message = sys::reason::without_numbers(message);
                drop(writeln!(io::stderr(), "warning: {message}"));
            }
        }
    }

    /// Writes one line at `debug`, when it is wanted; without a log to standard error.
    pub fn debug(&self, message: &str) {
        match (self.debug, &self.file) {
            (false, _) => {}
            (true, Some(_)) => self.write("debug", message),
            (true, None) => {
                // Nobody is told when even that is closed.
                drop(writeln!(io::stderr(), "level=debug msg={message:?}"));
            }
        }
    }

    fn write(&self, level: &str, message: &str) {
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let time = state::clock::now();
        let message = sys::reason::without_numbers(message);
        let line = Line {
            level,
            msg: &message,
            time: &time,
        };
        let text = match self.json {
            true => serde_json::to_string(&line).unwrap_or_default(),
            false => format!("time={time:?} level={level} msg={message:?}"),
        };
        // Nobody can be told that the log is full.
        drop(writeln!(file, "{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn line_is_one_json_object() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let log = Log::open(&LogTarget {
            path: Some(CString::new(path.to_str().unwrap()).unwrap()),
            json: true,
            debug: false,
        });
        log.debug("not asked for");
        log.error("no `x`\nat all");
        log.warning("careful");
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["msg"], "no `x`\nat all");
        assert_eq!(lines[0]["level"], "error");
        assert_eq!(lines[1]["level"], "warning");
    }
}
