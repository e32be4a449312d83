//! `GET /events`: what has happened and what happens, one object a line.

use std::io::Write;
use std::time::Duration;

use engine::Engine;
use http::header::ACCEPT;
use serde_json::Value;
use state::{EventRecord, nanoseconds_now};

use crate::body::{self, BodyWriter};
use crate::call::{Call, Reply, streamed};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::version::{ApiVersion, NO_LEGACY};
use crate::wire::times;

/// How long to wait for an event before looking whether anybody still reads.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const FILTERS: [&str; 16] = [
    "container",
    "image",
    "network",
    "volume",
    "event",
    "type",
    "label",
    "scope",
    "daemon",
    "plugin",
    "service",
    "node",
    "secret",
    "config",
    "builder",
    "label!",
];

/// How events stand in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines(&'static str),
    /// RFC 7464.
    Sequence,
}

impl Form {
    /// What the client takes, in the order of ours.
    fn of(accept: Option<&str>, version: ApiVersion) -> Self {
        let default = match version >= NO_LEGACY {
            true => "application/jsonl",
            false => "application/json",
        };
        let wanted = accept.unwrap_or_default();
        match wanted.split([',', ';']).next().map(str::trim) {
            Some("application/json-seq") => Self::Sequence,
            Some("application/x-ndjson") => Self::Lines("application/x-ndjson"),
            Some("application/jsonl") => Self::Lines("application/jsonl"),
            Some("application/json") => Self::Lines("application/json"),
            _ => Self::Lines(default),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Lines(kind) => kind,
            Self::Sequence => "application/json-seq",
        }
    }
}

/// The stream.
pub(crate) fn events(call: &Call) -> Reply {
    let filters = Filters::read(&call.query, &FILTERS)?;
    let time = |name: &str| {
        let text = call.query.get(name);
        text.map(|text| {
            times::nanoseconds(text)
                .ok_or_else(|| ApiError::bad(format!("invalid value for \"{name}\": {text}")))
        })
        .transpose()
    };
    let (since, until) = (time("since")?, time("until")?);
    let accept = call
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let form = Form::of(accept, call.version);
    let wanted = Wanted {
        since: since.unwrap_or_else(nanoseconds_now),
        until,
        filters,
        version: call.version,
        form,
    };
    let (sender, stream) = body::channel();
    let daemon = call.daemon.clone();
    call.daemon.follow(move |engine| {
        let mut writer = BodyWriter::new(sender);
        let is_over = || daemon.hub.is_ended();
        if let Err(error) = wanted.write(engine, &mut writer, &is_over) {
            tracing::debug!(%error, "a stream of events has ended");
        }
    })?;
    streamed(form.kind(), stream)
}

struct Wanted {
    since: i64,
    until: Option<i64>,
    filters: Filters,
    version: ApiVersion,
    form: Form,
}

impl Wanted {
    fn write(
        &self,
        engine: &Engine,
        to: &mut BodyWriter,
        is_over: &dyn Fn() -> bool,
    ) -> std::io::Result<()> {
        let mut reader = engine.events(self.since).map_err(std::io::Error::other)?;
        loop {
            // Asked before reading: what happens before the end is read after the question.
            let now = nanoseconds_now();
            let ends = self.until.is_some_and(|until| now >= until);
            while let Some(event) = reader.next_event()? {
                if self.until.is_some_and(|until| event.time_nano > until) {
                    return to.flush();
                }
                if fits(&self.filters, &event) {
                    self.line(&event, to)?;
                }
            }
            to.flush()?;
            if ends || to.is_closed() || is_over() {
                return Ok(());
            }
            let left = self
                .until
                .map(|until| u64::try_from(until - now).unwrap_or(0));
            let left = left.map_or(LOOK_AGAIN, Duration::from_nanos);
            reader.wait(left.min(LOOK_AGAIN))?;
        }
    }

    fn line(&self, event: &EventRecord, to: &mut BodyWriter) -> std::io::Result<()> {
        let record = record(event, self.version)?;
        if self.form == Form::Sequence {
            to.write_all(b"\x1e")?;
        }
        writeln!(to, "{record}")
    }
}

/// The record, with the fields of earlier versions of the API for those.
fn record(event: &EventRecord, version: ApiVersion) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(event)?;
    if version < NO_LEGACY && ["container", "image"].contains(&event.kind.as_str()) {
        value["status"] = event.action.clone().into();
        value["id"] = event.actor.id.clone().into();
        if let Some(image) = event.actor.attributes.get("image") {
            value["from"] = image.clone().into();
        }
    }
    Ok(value)
}

/// Values of one key are alternatives, but for labels.
fn fits(filters: &Filters, event: &EventRecord) -> bool {
    let actor = &event.actor;
    let object = |kind: &str, wanted: &str| {
        let is_id = wanted.len() >= 4 && actor.id.starts_with(wanted);
        let attribute = |key: &str| actor.attributes.get(key).map(String::as_str);
        let is_own = event.kind == kind
            && (actor.id == wanted || is_id || attribute("name") == Some(wanted));
        is_own || attribute(kind) == Some(wanted)
    };
    let kinds = ["container", "image", "network", "volume"];
    filters.any("type", |kind| event.kind == kind)
        && filters.any("scope", |scope| event.scope == scope)
        // `health_status` means `health_status: healthy` too.
        && filters.any("event", |wanted| {
            let rest = event.action.strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
        && filters.labels(&actor.attributes)
        && kinds.iter().all(|kind| filters.any(kind, |wanted| object(kind, wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use std::collections::BTreeMap;

    #[test]
    fn filters_restrict_and_old_versions_get_old_fields() {
        let pairs = [("name", "web"), ("image", "alpine"), ("tier", "1")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let event = EventRecord::now("container", "die", "0123456789ab", BTreeMap::from(pairs));
        let fits = |text: &str| {
            let query = Query::parse(&format!("filters={text}"));
            fits(&Filters::read(&query, &FILTERS).unwrap(), &event)
        };
        assert!(fits(r#"{"container":["web"],"event":["die","start"]}"#));
        assert!(fits(r#"{"label":["tier=1"],"image":["alpine"]}"#));
        assert!(!fits(r#"{"container":["db"]}"#) && !fits(r#"{"type":["image"]}"#));
        let old = record(&event, ApiVersion::parse("1.44").unwrap()).unwrap();
        assert_eq!(
            (&old["status"], &old["from"]),
            (&"die".into(), &"alpine".into())
        );
        let new = record(&event, NO_LEGACY).unwrap();
        assert!(new["status"].is_null() && new["Action"] == "die");
    }
}
