//! `POST /build` on ketch's builder: the context comes in while the progress goes out.

pub(crate) mod context;
mod options;
mod steps;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use builder::{
    Allowed, BuildError, BuildOptions, Builder, CacheEntry, Dockerfile, PruneCache, prune_cache,
};
use engine::Engine;
use image::{Platform, PlatformChoice, Reference, RegistryOptions};
use serde_json::{Value, json};

use crate::auth;
use crate::body::{self, BodyReader, BodyWriter};
use crate::call::{Call, Reply, ok, streamed};
use crate::error::{ApiError, chain};
use crate::filters::Filters;
use crate::routes::create::network_of_build;
use crate::wire::progress::ProgressLines;
use crate::wire::times;
use context::{Inputs, Means, Wanted};
use options::Asked;
use steps::Steps;

/// Credentials by host.
const REGISTRIES: &str = "x-registry-config";

/// How much of a commit or an image is shown.
const SHORT: usize = 12;

/// `POST /build`.
pub(crate) fn build(call: Call) -> Reply {
    let asked = Asked::read(&call.query)?;
    let network = network_of_build(&asked.network);
    let registry = auth::of_hosts(&call.daemon.options.registry, call.header(REGISTRIES));
    let (sender, stream) = body::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (gone, stops) = (sender.clone(), Arc::clone(&stop));
    // A client that hangs up wants no image any more.
    let watcher = tokio::spawn(async move {
        gone.closed().await;
        stops.store(true, Ordering::Relaxed);
    });
    let lines = Arc::new(ProgressLines::new(BodyWriter::new(sender), true));
    let reader = BodyReader::new(call.body);
    call.daemon.follow(move |engine| {
        let work = Work {
            engine,
            registry: &registry,
            lines: &lines,
            stop: &stop,
        };
        if let Err(error) = work.run(&asked, network, reader) {
            lines.error(&error.message);
        }
        watcher.abort();
    })?;
    streamed("application/json", stream)
}

/// What a build is done with.
struct Work<'a> {
    engine: &'a Engine,
    registry: &'a RegistryOptions,
    lines: &'a Arc<ProgressLines>,
    stop: &'a AtomicBool,
}

impl Work<'_> {
    fn run(
        &self,
        asked: &Asked,
        network: engine::Network,
        body: BodyReader,
    ) -> Result<(), ApiError> {
        if !asked.quiet {
            for warning in &asked.warnings {
                self.stream(&format!("[Warning] {warning}\n"));
            }
        }
        let means = Means {
            engine: self.engine,
            registry: self.registry,
            stop: self.stop,
            agent: None,
        };
        let dockerfile = Wanted::InContext(asked.dockerfile.as_deref());
        let inputs = match &asked.remote {
            Some(address) => Inputs::of_remote(address, dockerfile, means)?,
            None => Inputs::of_archive(body, dockerfile, means)?,
        };
        let file = Dockerfile::parse(&inputs.dockerfile_name, &inputs.dockerfile)
            .map_err(|error| refused(&error))?;
        let is_here = |name: &Reference| self.engine.store().resolve(&name.to_string(), None);
        // Who gives the host's network to every step gives it to one.
        let allowed = Allowed {
            network_host: network == engine::Network::Host,
            ..Allowed::default()
        };
        let options = BuildOptions {
            allowed,
            dockerfile_name: inputs.dockerfile_name.clone(),
            dockerfile: inputs.dockerfile.clone(),
            context: Some(inputs.directory.clone()),
            ignore: Some(inputs.ignore.clone()),
            network,
            http: self.registry.clone(),
            // What was built here is in the cache already.
            cache_from: asked.cache_from(|name| is_here(name).is_err()),
            ..asked.build_options()?
        };
        let steps = Steps::new(self.lines, file.instructions.len(), asked.quiet);
        let fetch = |name: &str, platform: &Platform| self.fetch(name, platform);
        let built = Builder::new(self.engine, &fetch, &steps, self.stop)
            .build(&options)
            .map_err(|error| failed(&error))?;
        // One platform was asked for.
        let first = built.images.first();
        let id = first.map_or_else(
            || built.top.digest.to_string(),
            |image| image.id.to_string(),
        );
        for tag in &options.tags {
            let name = tag.familiar();
            self.engine
                .record_event("image", "tag", &id, &[("name", &name)]);
        }
        self.lines.line(&json!({ "aux": { "ID": id } }));
        if asked.quiet {
            self.stream(&format!("{id}\n"));
            return Ok(());
        }
        let hex = id.split(':').next_back().unwrap_or(&id);
        let short = hex.get(..SHORT).unwrap_or(hex);
        self.stream(&format!("Successfully built {short}\n"));
        for tag in &options.tags {
            self.stream(&format!("Successfully tagged {}\n", tag.familiar()));
        }
        Ok(())
    }

    fn stream(&self, text: &str) {
        self.lines.line(&json!({ "stream": text }));
    }

    fn fetch(&self, name: &str, platform: &Platform) -> Result<(), BuildError> {
        let reference = Reference::parse(name)?;
        let choice = PlatformChoice::Only(platform.clone());
        let lines: &ProgressLines = self.lines;
        self.engine
            .store()
            .pull(&reference, &choice, self.registry, lines)?;
        Ok(())
    }
}

/// A build that was refused before anything was done.
fn refused(error: &BuildError) -> ApiError {
    ApiError::bad(chain(error))
}

/// Docker's words for a program that failed.
fn failed(error: &BuildError) -> ApiError {
    match error {
        BuildError::Run { place, code, .. } => {
            let command = place.text.trim();
            let command = command
                .split_once(' ')
                .map_or(command, |(_, command)| command.trim());
            ApiError::internal(format!(
                "The command '/bin/sh -c {command}' returned a non-zero code: {code}"
            ))
        }
        _ => ApiError::internal(chain(error)),
    }
}

const PRUNE_FILTERS: [&str; 2] = ["until", "unused-for"];

/// `POST /build/prune`.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &PRUNE_FILTERS)?;
    let age = filters
        .values("until")
        .iter()
        .chain(filters.values("unused-for"))
        .next_back();
    let unused_for = age
        .map(|text| {
            times::duration(text)
                .and_then(|age| std::time::Duration::try_from(age).ok())
                .ok_or_else(|| ApiError::bad(format!("invalid filter 'until={text}'")))
        })
        .transpose()?;
    let number = |name: &str| {
        let number = call.query.number(name);
        number
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
    };
    if number("min-free-space").is_some() {
        return Err(ApiError::bad(
            "cannot use min-free-space: it is not supported by ketch",
        ));
    }
    let options = PruneCache {
        all: call.query.is_set("all"),
        unused_for,
        keep_bytes: number("max-used-space")
            .or(number("reserved-space"))
            .or(number("keep-storage")),
    };
    let pruned = call.daemon.run(move |engine| {
        let pruned = prune_cache(engine, &options).map_err(|error| failed(&error))?;
        let records = pruned.records.iter().map(|entry| entry.key.to_string());
        let mounts = pruned.mounts.iter().map(|mount| mount.id.clone());
        Ok(json!({
            "CachesDeleted": records.chain(mounts).collect::<Vec<_>>(),
            "SpaceReclaimed": pruned.freed,
        }))
    });
    ok(&pruned.await?)
}

/// What builds keep, for `system df`.
pub(crate) fn usage(engine: &Engine) -> Result<Vec<Value>, ApiError> {
    let mut seen = BTreeSet::new();
    let entries = builder::cache_entries(engine).map_err(|error| failed(&error))?;
    let record = |entry: &CacheEntry| {
        // Several records can name one layer.
        let is_first = seen.insert(entry.record.layer);
        let used = times::of_system(entry.used);
        json!({
            "ID": entry.key.to_string(),
            "Type": "regular",
            "Description": entry.record.description,
            "InUse": false,
            "Shared": !is_first,
            "Size": if is_first { entry.disk_bytes } else { 0 },
            "CreatedAt": used,
            "LastUsedAt": used,
            "UsageCount": 1,
        })
    };
    Ok(entries.iter().map(record).collect())
}
