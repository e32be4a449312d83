//! Images: list, inspect, history, tag, remove, prune, search, commit.

use engine::{CommitRequest, Engine};
use http::StatusCode;
use image::{Force, ImageSummary, Platform, PruneOptions, Reference};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::call::{Call, Reply, json as json_reply, ok, status};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::wire::image as wire;
use crate::wire::times;

const LIST_FILTERS: [&str; 7] = [
    "dangling",
    "label",
    "label!",
    "before",
    "since",
    "reference",
    "until",
];
const PRUNE_FILTERS: [&str; 4] = ["dangling", "label", "label!", "until"];

/// A platform: `os/arch[/variant]`, or an object of the image specification.
pub(crate) fn platform(text: &str) -> Result<Platform, ApiError> {
    let bad = || ApiError::bad(format!("invalid platform: {text}"));
    if text.starts_with('{') {
        let value: Value = serde_json::from_str(text).map_err(|_| bad())?;
        let field = |key: &str| value.get(key).and_then(Value::as_str);
        let os = field("os").ok_or_else(bad)?;
        let architecture = field("architecture").ok_or_else(bad)?;
        let variant = field("variant").filter(|variant| !variant.is_empty());
        return Ok(Platform::new(os, architecture, variant));
    }
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(arch), variant, None) if !os.is_empty() && !arch.is_empty() => {
            Ok(Platform::new(os, arch, variant))
        }
        (Some("linux"), None, None, None) => Ok(Platform::host()),
        _ => Err(bad()),
    }
}

fn wanted_platform(call: &Call) -> Result<Option<Platform>, ApiError> {
    call.query.get("platform").map(platform).transpose()
}

/// `GET /images/json`.
pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &LIST_FILTERS)?;
    let found = call.daemon.run(move |engine| listed(engine, &filters));
    ok(&found.await?)
}

fn listed(engine: &Engine, filters: &Filters) -> Result<Vec<Value>, ApiError> {
    let all = engine.store().list()?;
    let dangling = filters.flag("dangling")?;
    let bound = |key: &str| {
        let named = filters.values(key).first();
        named
            .map(|name| {
                let id = engine.store().resolve(name, None)?.id;
                let found = all.iter().find(|image| image.id == id);
                Ok(found
                    .and_then(|image| image.created.clone())
                    .unwrap_or_default())
            })
            .transpose()
            .map_err(|error: image::ImageError| ApiError::from(error))
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let until = filters.values("until").first();
    let until = until.map(|text| bound_time(text)).transpose()?;
    let containers = engine.containers()?;
    let mut found = Vec::new();
    for image in &all {
        let created = image.created.clone().unwrap_or_default();
        let is_wanted = dangling.is_none_or(|wanted| image.names.is_empty() == wanted)
            && before.as_ref().is_none_or(|bound| created < *bound)
            && since.as_ref().is_none_or(|bound| created > *bound)
            && until.is_none_or(|until| times::seconds(&created) < until.unix_timestamp())
            && filters.any("reference", |pattern| has_name(image, pattern));
        if !is_wanted {
            continue;
        }
        let whole = engine.store().resolve(&image.id.to_string(), None).ok();
        let labels = whole.as_ref().map(|image| &image.config.config.labels);
        if !filters.labels(labels.unwrap_or(&Default::default())) {
            continue;
        }
        let id = image.id.to_string();
        let users = containers
            .iter()
            .filter(|c| c.config.image_id == id)
            .count();
        let users = i64::try_from(users).unwrap_or(i64::MAX);
        // As with Docker, names that were not asked for are left out.
        let mut shown = image.clone();
        shown
            .names
            .retain(|name| filters.any("reference", |pattern| is_named(name, pattern)));
        found.push(wire::summary(&shown, whole.as_ref(), users));
    }
    Ok(found)
}

/// Whether an image has a name that fits a pattern (path.Match of Go).
fn has_name(image: &ImageSummary, pattern: &str) -> bool {
    image.names.iter().any(|name| is_named(name, pattern))
}

fn is_named(name: &Reference, pattern: &str) -> bool {
    glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_name())
}

/// `*` stands for anything but a slash, `?` for one character.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern.get(1..).unwrap_or_default();
            let end = text.find('/').unwrap_or(text.len());
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.take_while(|at| *at <= end)
                .any(|at| glob(rest, text.get(at..).unwrap_or_default()))
        }
        Some(wanted) => {
            let mut chars = text.chars();
            let fits = chars
                .next()
                .is_some_and(|own| own == wanted || (wanted == '?' && own != '/'));
            fits && glob(
                pattern.get(wanted.len_utf8()..).unwrap_or_default(),
                chars.as_str(),
            )
        }
    }
}

/// The images with their sizes, for `system df`.
pub(crate) fn usage(engine: &Engine) -> Result<Vec<Value>, ApiError> {
    let usage = engine.store().usage()?;
    let mut all = listed(engine, &Filters::default())?;
    for item in &mut all {
        let own = usage
            .images
            .iter()
            .find(|own| item["Id"] == own.id.to_string());
        if let Some(own) = own {
            item["Size"] = json!(own.size);
            item["SharedSize"] = json!(own.shared);
        }
    }
    Ok(all)
}

/// `GET /images/{name}/json`.
pub(crate) async fn inspect(call: Call, name: &str) -> Reply {
    let (name, version, platform) = (name.to_owned(), call.version, wanted_platform(&call)?);
    let record = call.daemon.run(move |engine| {
        let image = engine.store().resolve(&name, platform.as_ref())?;
        let names = engine.store().names_of(&image)?;
        let all = engine.store().list()?;
        let summary = all.iter().find(|summary| summary.id == image.id);
        wire::inspect(&image, &names, summary, version)
    });
    ok(&record.await?)
}

/// `GET /images/{name}/history`.
pub(crate) async fn history(call: Call, name: &str) -> Reply {
    let (name, platform) = (name.to_owned(), wanted_platform(&call)?);
    let steps = call.daemon.run(move |engine| {
        let image = engine.store().resolve(&name, platform.as_ref())?;
        let names = engine.store().names_of(&image)?;
        let steps = engine.store().history(&image)?;
        let top = |at: usize| (at == 0).then_some((&image, names.as_slice()));
        let records = steps.iter().enumerate();
        let records = records.map(|(at, step)| wire::step(step, top(at)));
        Ok(records.collect::<Vec<_>>())
    });
    ok(&steps.await?)
}

/// A name of a repository, with a tag beside it.
pub(crate) fn reference(repository: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let text = match tag {
        Some(tag) if tag.contains(':') => format!("{repository}@{tag}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    Reference::parse(&text).map_err(|_| ApiError::bad("invalid reference format"))
}

/// `POST /images/{name}/tag`.
pub(crate) async fn tag(call: Call, name: &str) -> Reply {
    let repository = call.query.get("repo").unwrap_or_default();
    let target = reference(repository, call.query.get("tag"))?;
    let name = name.to_owned();
    let tagged = call.daemon.run(move |engine| {
        engine.store().tag(&name, &target)?;
        let id = engine.store().resolve(&name, None)?.id.to_string();
        engine.record_event("image", "tag", &id, &[("name", &target.familiar())]);
        Ok(())
    });
    tagged.await?;
    status(StatusCode::CREATED)
}

/// `DELETE /images/{name}`.
pub(crate) async fn remove(call: Call, name: &str) -> Reply {
    let force = match call.query.is_set("force") {
        true => Force::Yes,
        false => Force::No,
    };
    let name = name.to_owned();
    let removed = call.daemon.run(move |engine| {
        let removed = engine.remove_image(&name, force)?;
        for one in &removed {
            match one {
                image::Removed::Untagged(name) => {
                    engine.record_event("image", "untag", &name.familiar(), &[]);
                }
                image::Removed::Deleted(id) => {
                    engine.record_event("image", "delete", &id.to_string(), &[]);
                }
            }
        }
        engine.store().empty_trash()?;
        Ok(wire::removed(&removed))
    });
    ok(&removed.await?)
}

/// A time: seconds since 1970, RFC 3339, or an age such as `24h`.
pub(crate) fn bound_time(text: &str) -> Result<OffsetDateTime, ApiError> {
    let bad = || ApiError::bad(format!("invalid time: {text}"));
    if let Some(at) = times::nanoseconds(text) {
        return OffsetDateTime::from_unix_timestamp_nanos(at.into()).map_err(|_| bad());
    }
    let age = times::duration(text).ok_or_else(bad)?;
    Ok(OffsetDateTime::now_utc() - age)
}

/// `POST /images/prune`.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &PRUNE_FILTERS)?;
    let label = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.clone(), None),
    };
    let until = filters.values("until").first();
    let options = PruneOptions {
        all: filters.flag("dangling")? == Some(false),
        until: until.map(|text| bound_time(text)).transpose()?,
        labels: filters.values("label").iter().map(label).collect(),
        not_labels: filters.values("label!").iter().map(label).collect(),
    };
    let pruned = call.daemon.run(move |engine| {
        let pruned = engine.prune_images(&options)?;
        engine.store().empty_trash()?;
        engine.record_event(
            "image",
            "prune",
            "",
            &[("reclaimed", &pruned.freed.to_string())],
        );
        Ok(json!({
            "ImagesDeleted": wire::removed(&pruned.removed),
            "SpaceReclaimed": pruned.freed,
        }))
    });
    ok(&pruned.await?)
}

/// `GET /images/search`.
pub(crate) async fn search(call: Call) -> Reply {
    let term = call.query.get("term").unwrap_or_default().to_owned();
    let limit = call
        .query
        .number("limit")
        .and_then(|limit| usize::try_from(limit).ok());
    let options = call.daemon.options.registry.clone();
    let found = call.daemon.run(move |_| {
        let found = image::search("docker.io", &term, limit.unwrap_or(25), &options)?;
        let record = |result: &image::SearchResult| {
            json!({
                "name": result.name, "description": result.description,
                "star_count": result.stars, "is_official": result.official,
                "is_automated": false,
            })
        };
        Ok(found.iter().map(record).collect::<Vec<_>>())
    });
    ok(&found.await?)
}

/// `POST /commit`.
pub(crate) async fn commit(call: Call) -> Reply {
    let query = &call.query;
    let container = query.get("container").unwrap_or_default().to_owned();
    let name = query
        .get("repo")
        .map(|repository| reference(repository, query.get("tag")));
    let changes = query.all("changes").flat_map(str::lines);
    let request = CommitRequest {
        name: name.transpose()?,
        author: query.get("author").map(str::to_owned),
        message: query.get("comment").map(str::to_owned),
        changes: changes
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect(),
        running: !query.is_set_or_absent("pause"),
        time: None,
    };
    let daemon = call.daemon.clone();
    // Docker's clients send a container's configuration here, which its own instructions replace.
    drop(call.value().await?);
    let id = daemon.run(move |engine| {
        let container = engine.container(&container)?;
        let (id, _) = engine.commit(&container, &request)?;
        let id = id.to_string();
        engine.record_container_event(&container.config, "commit", &[("imageID", &id)]);
        Ok(id)
    });
    json_reply(StatusCode::CREATED, &json!({ "Id": id.await? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_is_read_in_both_forms() {
        let object = r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
        assert_eq!(
            platform(object).unwrap(),
            platform("linux/arm64/v8").unwrap()
        );
        assert!(platform("a/b/c/d").is_err() && platform("{}").is_err());
    }

    #[test]
    fn pattern_stays_between_slashes() {
        assert!(glob("al*:*", "alpine:3") && glob("*/b:?", "a/b:1") && glob("x", "x"));
        assert!(!glob("*", "a/b") && !glob("al", "alpine") && !glob("?", ""));
    }
}
