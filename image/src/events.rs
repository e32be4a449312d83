//! What happens to images is written to the log of events, by the store itself: every front end goes
//! through it.

use state::EventLog;

use crate::digest::Digest;
use crate::reference::Reference;
use crate::remove::Removed;
use crate::store::Store;

impl Store {
    /// Writes down that something has happened to the image with this id, or to this name. What
    /// cannot be written is reported, and undoes nothing.
    pub(crate) fn record_event(&self, action: &str, id: &str, name: Option<&str>) {
        let attributes: Vec<(&str, &str)> = name.map(|name| ("name", name)).into_iter().collect();
        let log = EventLog::new(&self.layout.events());
        if let Err(error) = log.record("image", action, id, &attributes) {
            tracing::warn!(action, id, %error, "cannot write an event");
        }
    }

    /// The same for a name that leads to images.
    pub(crate) fn record_named(&self, action: &str, ids: &[Digest], name: &Reference) {
        for id in ids {
            self.record_event(action, &id.to_string(), Some(&name.familiar()));
        }
    }

    /// The same for what a removal did.
    pub(crate) fn record_removed(&self, removed: &[Removed], of: &str) {
        for one in removed {
            match one {
                Removed::Untagged(name) => self.record_event("untag", of, Some(&name.familiar())),
                Removed::Deleted(id) => self.record_event("delete", &id.to_string(), None),
            }
        }
    }
}
