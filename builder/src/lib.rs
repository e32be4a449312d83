//! Dockerfile in, image out, nothing done twice.
//!
//! A [`Dockerfile`] is parsed, its stages become a graph of which only the needed part is carried out,
//! each stage on a thread of its own. Every step is looked up in the cache first, by the content of what
//! it is made from. The engine runs what RUN says on an overlay of the layers so far; the upper directory
//! is the new layer. COPY and ADD put layers together without a mount.
#![forbid(unsafe_code)]

mod attest;
mod cache;
mod copy;
mod dockerfile;
mod error;
mod exchange;
mod execute;
mod export;
mod git;
mod ignore;
mod lint;
mod options;
mod outgoing;
mod pattern;
mod progress;
mod prune;
mod scope;
mod stages;
mod stamps;
mod switches;
mod tree;
mod urls;

pub use attest::{
    Attestation, Detail, PREDICATE_TYPE, Package, Provenance, STATEMENT, packages, sbom,
};
pub use cache::{CacheEntry, CacheRecord};
pub use dockerfile::{
    Arg, CheckDirective, CommandLine, Copy, Device, Dockerfile, From, Health, Heredoc, Instruction,
    Kind, MountKind, OnBuild, Run, RunMount, Security, Sharing, Source,
};
pub use error::{BuildError, Place};
pub use execute::BuiltImage;
pub use export::{export_directory, export_tar};
pub use git::{CHECKOUT, CheckOutError, Repository};
pub use lint::{EnvOf, Finding, Surroundings, is_secret_name, lint, lint_with};
pub use options::{
    Allowed, AllowedDevices, Ask, AskAgent, AskSecret, BuildOptions, CacheMode, CachePlace,
    CacheSource, CacheTarget, Fetch, NamedContext, NoCache, Record, SecretSource,
};
pub use outgoing::pack_context;
pub use progress::{Event, Progress, StepEnd, StepId};
pub use prune::{
    CacheMountEntry, PruneCache, PrunedCache, cache_entries, cache_mount_entries, prune_cache,
};
pub use tree::read_beneath;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::Engine;
use image::{BuildSession, Descriptor, Platform};

use execute::{Execution, Exports, Shared};
use switches::Switches;

/// What a build gave. As long as it is held, nothing of it is removed.
#[derive(Debug)]
pub struct Built {
    /// The images, one a platform.
    pub images: Vec<BuiltImage>,
    /// What the names lead to: the manifest, or an index of several.
    pub top: Descriptor,
    /// What lint rules found.
    pub findings: Vec<Finding>,
    /// What nothing is newer than, seconds.
    pub epoch: i64,
    _session: BuildSession,
}

/// The builder: an engine, and who is told.
pub struct Builder<'a> {
    engine: &'a Engine,
    fetch: &'a Fetch<'a>,
    progress: &'a dyn Progress,
    stop: &'a AtomicBool,
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("engine", self.engine)
            .finish_non_exhaustive()
    }
}

impl<'a> Builder<'a> {
    /// A builder on an engine. `fetch` gets images from registries; `stop` ends a build that runs, as
    /// soon as it is true.
    #[must_use]
    pub fn new(
        engine: &'a Engine,
        fetch: &'a Fetch<'a>,
        progress: &'a dyn Progress,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            engine,
            fetch,
            progress,
            stop,
        }
    }

    /// Builds.
    ///
    /// # Errors
    /// With the place in the Dockerfile, where it has one. Nothing is named then; what was completed
    /// stays in the cache.
    pub fn build(&self, options: &BuildOptions) -> Result<Built, BuildError> {
        let mut file = Dockerfile::parse(&options.dockerfile_name, &options.dockerfile)?;
        let switches = Switches::read(&options.args, &mut file)?;
        check_syntax(&file)?;
        let mut findings = lint(&file);
        for finding in &findings {
            self.progress.event(&Event::Finding(finding));
        }
        for name in execute::secret_arguments(options.args.keys()) {
            let text = format!(
                "the build argument `{name}` looks like a secret: whoever has the image may see it; use --secret"
            );
            self.progress.event(&Event::Warning(&text));
        }
        let epoch = match options.epoch {
            Some(epoch) => epoch,
            None => stages::default_epoch(&file)?.unwrap_or(0),
        };
        let session = self.engine.store().begin_build()?;
        let steps = AtomicUsize::new(0);
        let shared = Shared {
            engine: self.engine,
            fetch: self.fetch,
            progress: self.progress,
            stop: self.stop,
            session: &session,
            options,
            file: &file,
            steps: &steps,
            epoch,
            switches: &switches,
        };
        let platforms = match options.platforms.as_slice() {
            [] => vec![Platform::host()],
            given => given.to_vec(),
        };
        let mut images = Vec::new();
        let mut exports = Exports::default();
        for platform in platforms {
            let execution = Execution::new(shared, platform)?;
            let state = execution.run()?;
            execution.collect(&state, &mut exports);
            findings.extend(execution.findings());
            images.push(execution.compose(&state)?);
        }
        if file.check.error && !findings.is_empty() {
            return Err(BuildError::Check(findings.len()));
        }
        let top = match images.as_slice() {
            [one] if !switches.multi_platform => one.manifest.clone(),
            several => {
                let parts: Vec<_> = several
                    .iter()
                    .map(|image| (image.manifest.clone(), image.platform.clone()))
                    .collect();
                session.compose_index(&parts)?
            }
        };
        if self.stop.load(Ordering::Relaxed) {
            return Err(BuildError::Stopped);
        }
        exports.write(self.engine, options)?;
        if options.record == Record::Yes {
            session.record(&top, &options.tags)?;
        }
        Ok(Built {
            images,
            top,
            findings,
            epoch,
            _session: session,
        })
    }
}

/// Runs the lint rules that need no build.
///
/// # Errors
/// When the file cannot be parsed.
pub fn check(
    name: &str,
    text: &str,
    around: &Surroundings<'_>,
) -> Result<Vec<Finding>, BuildError> {
    let file = Dockerfile::parse(name, text)?;
    check_syntax(&file)?;
    Ok(lint_with(&file, around))
}

/// The language is built in; a program from elsewhere that reads the file is not run.
fn check_syntax(file: &Dockerfile) -> Result<(), BuildError> {
    let Some(syntax) = &file.syntax else {
        return Ok(());
    };
    if is_known_syntax(syntax) {
        return Ok(());
    }
    let place = file.place_of(1, file.lines.len().min(10), syntax);
    Err(BuildError::at(
        place,
        format!("the syntax `{syntax}` is not known: docker/dockerfile:1 is built in"),
    )
    .with_hint("take the line away if the file uses nothing of its own"))
}

/// Whether the image of a language, as `# syntax=` names it, is the one that is built in.
#[must_use]
pub fn is_known_syntax(syntax: &str) -> bool {
    let name = syntax.split('@').next().unwrap_or(syntax);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let (repository, tag) = name.split_once(':').unwrap_or((name, "1"));
    let is_ours = matches!(
        repository,
        "docker/dockerfile" | "docker/dockerfile-upstream"
    );
    is_ours
        && (tag == "1"
            || tag == "latest"
            || tag == "labs"
            || tag.starts_with("1.")
            || tag.starts_with("1-")
            || tag == "master")
}
