//! What the monitor does is written to the log of events.

use state::{EventLog, EventRecord};

use crate::monitor::{Monitor, path};

impl Monitor {
    /// Writes down that something has happened to the container. What cannot be written is lost: the
    /// container is more important than its chronicle.
    pub(crate) fn record_event(&self, action: &str, more: &[(&str, &str)]) {
        let monitor = &self.plan.monitor;
        let own = monitor.event_attributes.iter().cloned();
        let more = more
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let attributes = own.chain(more).collect();
        let event = EventRecord::now("container", action, &monitor.id, attributes);
        drop(EventLog::new(&path(&monitor.events_dir)).append(&event));
    }
}
