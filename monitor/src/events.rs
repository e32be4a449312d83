//! What the monitor does is written to the log of events.

use runtime::EventPlan;
use state::{ContainerConfig, EventLog};

use crate::monitor::{Monitor, path};

impl Monitor {
    /// Writes down that something has happened to the container. What cannot be written is lost: the
    /// container is more important than its chronicle.
    pub(crate) fn record_event(&self, action: &str, more: &[(&str, &str)]) {
        let monitor = &self.plan.monitor;
        let attributes: Vec<(&str, &str)> = pairs(&monitor.event_attributes)
            .chain(more.iter().copied())
            .collect();
        drop(
            self.events()
                .record("container", action, &monitor.id, &attributes),
        );
    }

    /// The same about what the container uses, at its start.
    pub(crate) fn record_start(&self) {
        self.record_others(&self.plan.monitor.start_events);
        self.record_event("start", &[]);
    }

    /// The same at its end.
    pub(crate) fn record_others(&self, events: &[EventPlan]) {
        for event in events {
            let attributes: Vec<(&str, &str)> = pairs(&event.attributes).collect();
            let log = self.events();
            drop(log.record(&event.kind, &event.action, &event.id, &attributes));
        }
    }

    /// A container may have been given another name since it was started.
    pub(crate) fn refresh_name(&mut self) {
        let Ok(config) = ContainerConfig::read(&self.state_dir) else {
            return;
        };
        let attributes = &mut self.plan.monitor.event_attributes;
        if let Some((_, name)) = attributes.iter_mut().rfind(|(key, _)| key == "name") {
            *name = config.name;
        }
    }

    fn events(&self) -> EventLog {
        EventLog::new(&path(&self.plan.monitor.events_dir))
    }
}

fn pairs(attributes: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
}
