//! What happens is written down by whoever does it, and read back by who asks.

use std::io;
use std::time::Duration;

use runtime::EventPlan;
use state::{ContainerConfig, EventLog, EventRecord};

use crate::mounts::ContainerMount;
use crate::network::ContainerNetwork;
use crate::segment_reader::SegmentReader;
use crate::{Engine, EngineError};

/// What every event of a container says about it.
pub(crate) fn event_attributes(config: &ContainerConfig) -> Vec<(String, String)> {
    let labels = config.labels.iter();
    labels
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain([
            ("image".to_owned(), config.image.clone()),
            ("name".to_owned(), config.name.clone()),
        ])
        .collect()
}

/// What happens to networks and volumes when a container starts, and when it has ended.
pub(crate) fn run_events(
    config: &ContainerConfig,
    network: &ContainerNetwork,
    mounts: &[ContainerMount],
) -> [Vec<EventPlan>; 2] {
    let plan = |kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]| EventPlan {
        kind: kind.to_owned(),
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let container = ("container", config.id.as_str());
    let (mut start, mut end) = (Vec::new(), Vec::new());
    for endpoint in &network.endpoints {
        let own = [container, ("name", endpoint.name.as_str())];
        start.push(plan("network", "connect", &endpoint.network, &own));
        end.push(plan("network", "disconnect", &endpoint.network, &own));
    }
    for (mount, volume) in mounts
        .iter()
        .filter_map(|mount| Some((mount, mount.volume.as_ref()?)))
    {
        let target = mount.target.to_string_lossy();
        let is_writable = if mount.readonly { "false" } else { "true" };
        let own = [
            container,
            ("destination", &*target),
            ("read/write", is_writable),
        ];
        start.push(plan("volume", "mount", volume, &own));
        end.push(plan("volume", "unmount", volume, &[container]));
    }
    [start, end]
}

impl Engine {
    /// Writes down that something has happened. An event that cannot be written is reported, and
    /// does not undo what has happened.
    pub fn record_event(&self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let log = EventLog::new(&self.layout().events());
        if let Err(error) = log.record(kind, action, id, attributes) {
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
