//! What happens is written down by whoever does it, and read back by who asks.

use std::io;
use std::time::Duration;

use state::{ContainerConfig, EventLog, EventRecord};

use crate::segment_reader::SegmentReader;
use crate::{Engine, EngineError};

/// What every event of a container says about it.
pub(crate) fn event_attributes(config: &ContainerConfig) -> Vec<(String, String)> {
    vec![
        ("image".to_owned(), config.image.clone()),
        ("name".to_owned(), config.name.clone()),
    ]
}

impl Engine {
    /// Writes down that something has happened. An event that cannot be written is reported, and
    /// does not undo what has happened.
    pub fn record_event(&self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let event = EventRecord::now(kind, action, id, attributes.collect());
        if let Err(error) = EventLog::new(&self.layout().events()).append(&event) {
            tracing::warn!(action, id, %error, "cannot write an event");
        }
    }

    /// The same about a container.
    pub fn record_container_event(
        &self,
        config: &ContainerConfig,
        action: &str,
        more: &[(&str, &str)],
    ) {
        let own = event_attributes(config);
        let own = own
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let attributes: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
        self.record_event("container", action, &config.id, &attributes);
    }

    /// What has happened since a time in nanoseconds since 1970, as far as it is kept, and what
    /// happens from now on.
    ///
    /// # Errors
    /// When the log of events cannot be read.
    pub fn events(&self, since: i64) -> Result<EventReader, EngineError> {
        let failed = EngineError::io("read the log of events");
        let log = EventLog::new(&self.layout().events());
        // A directory that is not there cannot be watched.
        sys::durable::make_private_dir(log.dir()).map_err(&failed)?;
        let mut files = SegmentReader::over(log.segments().clone(), log.dir());
        files.wait(Duration::ZERO).map_err(&failed)?;
        files.skip_before(since).map_err(failed)?;
        Ok(EventReader { files, since })
    }
}

/// Reads events in their order.
#[derive(Debug)]
pub struct EventReader {
    files: SegmentReader,
    since: i64,
}

impl EventReader {
    /// The next event; `None` when there is none for now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_event(&mut self) -> io::Result<Option<EventRecord>> {
        while let Some(event) = self.files.next(decode)? {
            if event.time_nano >= self.since {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Waits until something is written to the log, at most `timeout`.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.files.wait(timeout)
    }
}

fn decode(bytes: &[u8]) -> Option<(Option<EventRecord>, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let event = serde_json::from_slice(bytes.get(..end)?);
    Some((event.ok(), end + 1))
}
