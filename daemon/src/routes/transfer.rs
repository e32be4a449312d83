//! Images that come and go: pull, import, load, save, push.

use engine::Engine;
use image::{ImportOptions, PlatformChoice, Reference, SaveOptions};
use serde_json::json;

use crate::auth;
use crate::body::{self, BodyReader, BodyWriter};
use crate::call::{Call, Reply, streamed};
use crate::error::ApiError;
use crate::routes::images::{platform, reference};
use crate::wire::progress::ProgressLines;

/// Where the credentials of a request are.
const AUTH: &str = "x-registry-auth";

/// The archive of `fromSrc` that is the request's body.
const FROM_BODY: &str = "-";

/// `POST /images/create`: pull, or import.
pub(crate) async fn create(call: Call) -> Reply {
    match (call.query.get("fromImage"), call.query.get("fromSrc")) {
        (Some(image), _) => {
            let image = image.to_owned();
            pull(&call, &image)
        }
        (None, Some(source)) => {
            let source = source.to_owned();
            import(call, &source)
        }
        (None, None) => Err(ApiError::bad("fromImage or fromSrc is needed")),
    }
}

fn pull(call: &Call, name: &str) -> Reply {
    let reference = reference(name, call.query.get("tag"))?;
    let options = auth::options(&call.daemon.options.registry, call.header(AUTH), &reference);
    let choice = match call.query.get("platform") {
        Some(text) => PlatformChoice::Only(platform(text)?),
        None => PlatformChoice::Default,
    };
    let tag = call.query.get("tag").is_none() && reference.tag() == Some("latest");
    long(call, move |engine, lines| {
        if tag {
            lines.status("Using default tag: latest");
        }
        let repository = reference.repository();
        lines.line(&json!({
            "status": format!("Pulling from {repository}"),
            "id": reference.tag().unwrap_or("latest"),
        }));
        let before = engine.store().resolve(&reference.to_string(), None);
        let before = before.ok().map(|image| image.id);
        let pulled = engine.store().pull(&reference, &choice, &options, lines)?;
        let after = engine.store().resolve(&reference.to_string(), None);
        let is_new = after.ok().map(|image| image.id) != before || before.is_none();
        let name = reference.familiar();
        engine.record_event(
            "image",
            "pull",
            &name,
            &[("name", &reference.familiar_name())],
        );
        lines.status(&format!("Digest: {}", pulled.top.digest));
        lines.status(&match is_new {
            true => format!("Status: Downloaded newer image for {name}"),
            false => format!("Status: Image is up to date for {name}"),
        });
        Ok(())
    })
}

fn import(call: Call, source: &str) -> Reply {
    if source != FROM_BODY {
        return Err(ApiError::unimplemented(
            "importing from an address is not supported by ketch: send the archive",
        ));
    }
    let query = &call.query;
    let name = query
        .get("repo")
        .map(|repository| reference(repository, query.get("tag")));
    let options = ImportOptions {
        name: name.transpose()?,
        changes: query.all("changes").map(str::to_owned).collect(),
        message: query.get("message").map(str::to_owned),
        platform: query.get("platform").map(platform).transpose()?,
        created: None,
    };
    with_body(call, move |engine, reader, lines| {
        let id = engine.store().import(reader, &options)?.to_string();
        engine.record_event("image", "import", &id, &[]);
        lines.status(&id);
        Ok(())
    })
}

/// `POST /images/load`.
pub(crate) async fn load(call: Call) -> Reply {
    let platform = call.query.get("platform").map(platform).transpose()?;
    with_body(call, move |engine, reader, lines| {
        let loaded = engine.store().load(reader, platform.as_ref(), lines)?;
        for image in loaded {
            for name in &image.names {
                let name = name.familiar();
                engine.record_event("image", "load", &name, &[("name", &name)]);
                lines.line(&json!({ "stream": format!("Loaded image: {name}\n") }));
            }
            if image.names.is_empty() {
                for id in &image.ids {
                    lines.line(&json!({ "stream": format!("Loaded image ID: {id}\n") }));
                }
            }
        }
        Ok(())
    })
}

/// `GET /images/get` and `GET /images/{name}/get`.
pub(crate) async fn save(call: Call, mut names: Vec<String>) -> Reply {
    for text in call.query.all("names") {
        names.extend(
            text.split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        );
    }
    if names.is_empty() {
        return Err(ApiError::bad("no images were named"));
    }
    let platforms = call.query.all("platform").filter(|text| !text.is_empty());
    let options = SaveOptions {
        platforms: platforms.map(platform).collect::<Result<_, _>>()?,
        ..SaveOptions::default()
    };
    let checked = names.clone();
    let check = call.daemon.run(move |engine| {
        for name in &checked {
            engine.store().resolve(name, None)?;
        }
        Ok(())
    });
    check.await?;
    let (sender, stream) = body::channel();
    call.daemon.follow(move |engine| {
        let mut writer = BodyWriter::new(sender);
        let saved = engine.store().save(&names, &options, &mut writer);
        let flushed = std::io::Write::flush(&mut writer);
        if let Err(error) = saved {
            tracing::warn!(error = crate::error::chain(&error), "cannot save images");
        } else if flushed.is_ok() {
            for name in &names {
                engine.record_event("image", "save", name, &[("name", name)]);
            }
        }
    })?;
    streamed("application/x-tar", stream)
}

/// `POST /images/{name}/push`.
pub(crate) async fn push(call: Call, name: &str) -> Reply {
    let reference: Reference = reference(name, call.query.get("tag"))?;
    let options = auth::options(&call.daemon.options.registry, call.header(AUTH), &reference);
    let platform = call.query.get("platform").map(platform).transpose()?;
    let source = reference.to_string();
    let exists = source.clone();
    let check = call.daemon.run(move |engine| {
        let resolved = engine.store().resolve(&exists, None);
        resolved.map(drop).map_err(|_| {
            ApiError::not_found(format!(
                "An image does not exist locally with the tag: {exists}"
            ))
        })
    });
    check.await?;
    long(&call, move |engine, lines| {
        let name = reference.name();
        lines.status(&format!("The push refers to repository [{name}]"));
        let pushed =
            engine
                .store()
                .push(&source, &reference, platform.as_ref(), &options, lines)?;
        let (digest, size) = (pushed.top.digest.to_string(), pushed.top.size);
        let tag = reference.tag().unwrap_or("latest");
        engine.record_event("image", "push", &reference.familiar(), &[("name", &name)]);
        lines.status(&format!("{tag}: digest: {digest} size: {size}"));
        lines.line(&json!({
            "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest, "Size": size },
        }));
        Ok(())
    })
}

/// An operation whose progress is the response.
fn long(
    call: &Call,
    operation: impl FnOnce(&Engine, &ProgressLines) -> Result<(), ApiError> + Send + 'static,
) -> Reply {
    let (sender, stream) = body::channel();
    let lines = ProgressLines::new(BodyWriter::new(sender), true);
    call.daemon
        .follow(move |engine| report(&lines, operation(engine, &lines)))?;
    streamed("application/json", stream)
}

/// The same for one that reads the request's body.
fn with_body(
    call: Call,
    operation: impl FnOnce(&Engine, BodyReader, &ProgressLines) -> Result<(), ApiError> + Send + 'static,
) -> Reply {
    let (sender, stream) = body::channel();
    let shows = !call.query.is_set("quiet") && call.query.get("fromSrc").is_none();
    let lines = ProgressLines::new(BodyWriter::new(sender), shows);
    let reader = BodyReader::new(call.body);
    call.daemon
        .follow(move |engine| report(&lines, operation(engine, reader, &lines)))?;
    streamed("application/json", stream)
}

fn report(lines: &ProgressLines, result: Result<(), ApiError>) {
    if let Err(error) = result {
        lines.error(&error.message);
    }
}
