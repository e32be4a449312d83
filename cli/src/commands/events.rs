//! `ketch events`.

use std::time::Duration;

use clap::Args;
use state::{EventRecord, clock, nanoseconds_now};

use super::Invocation;
use crate::render::{self, Usage};
use crate::template::{Template, TemplateError};
use crate::times;

/// How long to wait for an event at most before the time is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Options of `events`, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Show what has happened since then: a time, or an age such as 10m (default: from now on)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End then: a time, or an age such as 10m (default: go on)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what fits: container, image, network, volume, event, type or label=VALUE (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Action}}, or json
    #[arg(long)]
    format: Option<String>,
}

/// Shows what happens.
pub(crate) fn events(context: &Invocation, args: &EventsArgs) -> anyhow::Result<u8> {
    let filters = args
        .filter
        .iter()
        .map(|text| Filter::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    let form = Form::parse(args.format.as_deref())?;
    let since = args.since.as_deref().map(times::nanoseconds).transpose()?;
    let until = args.until.as_deref().map(times::nanoseconds).transpose()?;
    let engine = context.engine()?;
    let mut reader = engine.events(since.unwrap_or_else(nanoseconds_now))?;
    loop {
        // Asked before reading: what happens before the end is read after the question.
        let is_over = until.is_some_and(|until| nanoseconds_now() >= until);
        while let Some(event) = reader.next_event()? {
            if until.is_some_and(|until| event.time_nano > until) {
                return Ok(0);
            }
            if matches(&filters, &event) {
                render::print(&form.text(&event)?)?;
            }
        }
        if is_over {
            return Ok(0);
        }
        let left = until.map(|until| until.saturating_sub(nanoseconds_now()));
        let left = left.map(|left| Duration::from_nanos(u64::try_from(left).unwrap_or(0)));
        reader.wait(left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN))?;
    }
}

/// How an event is printed.
enum Form {
    Line,
    Json,
    Template(Template),
}

impl Form {
    fn parse(text: Option<&str>) -> Result<Self, TemplateError> {
        match text {
            None => Ok(Self::Line),
            Some("json" | "{{json .}}") => Ok(Self::Json),
            Some(text) => Template::parse(text).map(Self::Template),
        }
    }

    fn text(&self, event: &EventRecord) -> anyhow::Result<String> {
        match self {
            Self::Line => Ok(line(event)),
            Self::Json => Ok(serde_json::to_string(&record(event)?)?),
            Self::Template(template) => Ok(template.render(&record(event)?)?),
        }
    }
}

/// As Docker prints it.
fn line(event: &EventRecord) -> String {
    let actor = &event.actor;
    let pairs: Vec<String> = actor
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let text = format!(
        "{} {} {} {} ({})",
        clock::from_nanoseconds(event.time_nano),
        event.kind,
        event.action,
        actor.id,
        pairs.join(", ")
    );
    render::clean(&text)
}

/// The record with the fields of earlier versions of Docker's API.
fn record(event: &EventRecord) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(event)?;
    if event.kind == "container" || event.kind == "image" {
        value["status"] = event.action.clone().into();
        value["id"] = event.actor.id.clone().into();
        if let Some(image) = event.actor.attributes.get("image") {
            value["from"] = image.clone().into();
        }
    }
    Ok(value)
}

/// One `--filter`.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    key: String,
    value: String,
}

const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

impl Filter {
    fn parse(text: &str) -> Result<Self, Usage> {
        let known = |key: &str| KINDS.contains(&key) || ["event", "type", "label"].contains(&key);
        match text.split_once('=') {
            Some((key, value)) if known(key) => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(Usage(format!(
                "`{text}` is not a filter of events: there are container, image, network, volume, event, type and label, each with =VALUE"
            ))),
        }
    }

    fn fits(&self, event: &EventRecord) -> bool {
        let (actor, value) = (&event.actor, self.value.as_str());
        let attribute = |key: &str| actor.attributes.get(key).map(String::as_str);
        match self.key.as_str() {
            "type" => event.kind == value,
            // `health_status` means `health_status: healthy` too.
            "event" => {
                let rest = event.action.strip_prefix(value);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            }
            "label" => match value.split_once('=') {
                Some((key, value)) => attribute(key) == Some(value),
                None => attribute(value).is_some(),
            },
            "image" if event.kind == "container" => attribute("image") == Some(value),
            kind => {
                let is_id = value.len() >= 4 && actor.id.starts_with(value);
                let own = event.kind == kind
                    && (actor.id == value || is_id || attribute("name") == Some(value));
                own || (event.kind != kind && attribute(kind) == Some(value))
            }
        }
    }
}

/// Filters with the same key are alternatives, but for labels.
fn matches(filters: &[Filter], event: &EventRecord) -> bool {
    filters.iter().all(|filter| {
        filter.fits(event)
            || (filter.key != "label"
                && filters
                    .iter()
                    .any(|other| other.key == filter.key && other.fits(event)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn event() -> EventRecord {
        let attributes = BTreeMap::from([
            ("image".to_owned(), "alpine".to_owned()),
            ("name".to_owned(), "web".to_owned()),
        ]);
        EventRecord::now(
            "container",
            "health_status: healthy",
            "0123456789",
            attributes,
        )
    }

    fn fits(filters: &[&str]) -> bool {
        let filters: Vec<Filter> = filters
            .iter()
            .map(|text| Filter::parse(text).unwrap())
            .collect();
        matches(&filters, &event())
    }

    #[test]
    fn filters_of_one_key_are_alternatives_and_of_several_all_hold() {
        assert!(fits(&[]));
        assert!(fits(&["container=web"]) && fits(&["container=012345"]));
        assert!(fits(&["container=x", "container=web", "type=container"]));
        assert!(!fits(&["container=web", "type=image"]));
        assert!(fits(&["event=health_status"]) && !fits(&["event=health"]));
        assert!(fits(&["image=alpine"]) && !fits(&["image=alp"]));
        assert!(fits(&["label=name=web"]) && !fits(&["label=name=web", "label=x"]));
        assert!(Filter::parse("colour=blue").is_err());
    }
}
