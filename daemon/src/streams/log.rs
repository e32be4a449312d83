//! What a container has written.

use std::io::{self, Write};
use std::time::Duration;

use engine::{Container, Engine};
use state::{LogRecord, clock};

use super::frame::{Framing, STDERR, STDOUT, frame};
use crate::body::BodyWriter;
use crate::error::ApiError;
use crate::query::Query;
use crate::wire::messages;
use crate::wire::times;

/// How long to wait for something to be written before looking whether anybody still reads.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a client wants of a log.
#[derive(Debug, Clone)]
pub(crate) struct LogQuery {
    pub(crate) follow: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) since: Option<i64>,
    pub(crate) until: Option<i64>,
    pub(crate) timestamps: bool,
    pub(crate) details: bool,
    pub(crate) tail: Option<usize>,
}

impl LogQuery {
    pub(crate) fn read(query: &Query) -> Result<Self, ApiError> {
        let time = |name: &str| match query.get(name) {
            None | Some("0") => Ok(None),
            Some(text) => times::nanoseconds(text)
                .map(Some)
                .ok_or_else(|| ApiError::bad(format!("invalid value for \"{name}\": {text}"))),
        };
        let wanted = Self {
            follow: query.is_set("follow"),
            stdout: query.is_set("stdout"),
            stderr: query.is_set("stderr"),
            since: time("since")?,
            until: time("until")?,
            timestamps: query.is_set("timestamps"),
            details: query.is_set("details"),
            // As with Docker, what is no number means everything.
            tail: query.get("tail").and_then(|text| text.parse().ok()),
        };
        if !wanted.stdout && !wanted.stderr {
            return Err(ApiError::bad(messages::NO_STREAM));
        }
        Ok(wanted)
    }
}

/// Writes a log until its end, or until nobody reads any more.
pub(crate) fn write_log(
    engine: &Engine,
    container: &Container,
    query: &LogQuery,
    framing: Framing,
    to: &mut BodyWriter,
) -> io::Result<()> {
    let mut reader = engine.log(container).map_err(io::Error::other)?;
    match (query.tail, query.since) {
        (Some(lines), _) => reader.tail(lines)?,
        (None, Some(since)) => reader.skip_before(since)?,
        (None, None) => {}
    }
    if query.follow {
        // Before the first look, so that nothing comes between.
        reader.wait(Duration::ZERO)?;
    }
    let mut printer = Printer::new(query, framing);
    loop {
        // Asked before reading: what is written before the end is read after the question.
        let running = query.follow
            && engine
                .container(&container.config.id)
                .is_ok_and(|container| container.is_running());
        while let Some(record) = reader.next_record()? {
            if query.until.is_some_and(|until| record.time > until) {
                return to.flush();
            }
            printer.write(&record, to)?;
        }
        to.flush()?;
        if !running || to.is_closed() {
            return Ok(());
        }
        reader.wait(LOOK_AGAIN)?;
    }
}

/// Writes records. A line that fills several has its time and details once.
struct Printer<'a> {
    query: &'a LogQuery,
    framing: Framing,
    /// For each stream: its last record was a part of a line, and whether that line is shown.
    inside: [Option<bool>; 2],
}

impl<'a> Printer<'a> {
    fn new(query: &'a LogQuery, framing: Framing) -> Self {
        Self {
            query,
            framing,
            inside: [None; 2],
        }
    }

    fn write(&mut self, record: &LogRecord, to: &mut BodyWriter) -> io::Result<()> {
        let query = self.query;
        let [out, err] = &mut self.inside;
        let (inside, wanted, stream) = match record.is_stderr {
            true => (err, query.stderr, STDERR),
            false => (out, query.stdout, STDOUT),
        };
        let is_first = inside.is_none();
        let shown = inside.unwrap_or_else(|| query.since.is_none_or(|since| record.time >= since));
        *inside = (!record.bytes.ends_with(b"\n")).then_some(shown);
        if !shown || !wanted {
            return Ok(());
        }
        let mut line = Vec::new();
        if is_first && query.timestamps {
            line.extend_from_slice(clock::from_nanoseconds(record.time).as_bytes());
            line.push(b' ');
        }
        if is_first && query.details {
            let pairs = record.attributes.iter();
            let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
            line.extend_from_slice(pairs.join(",").as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(&record.bytes);
        to.write_all(&frame(self.framing, stream, &line))
    }
}
