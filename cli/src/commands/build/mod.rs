//! `ketch build`.

mod attest;
mod context;
mod display;
mod output;
mod values;

use std::collections::BTreeMap;
use std::io::PipeReader;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use builder::{BuildError, BuildOptions, Builder, CacheTarget, NoCache, Record, Surroundings};
use clap::Args;
use engine::{Network, NetworkOptions};
use image::{Compression, Platform, PlatformChoice, Reference};
use rustix::event::{PollFd, PollFlags, poll};

use super::Invocation;
use super::isolation_options::isolation_of_steps;
use super::options::platform;
use super::registry_options::registry_options;
use crate::render::{self, Usage};
use crate::settings;
use display::{BuildDisplay, Style};
use output::{Kind, Output};

/// Options of `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Name of the image (can be repeated)
    #[arg(short, long)]
    tag: Vec<String>,
    /// The Dockerfile; - for standard input (default: Dockerfile in the context)
    #[arg(short, long)]
    file: Option<String>,
    /// Value of an ARG: NAME=VALUE, or NAME for the environment's (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// Further context: NAME=DIRECTORY, `NAME=docker-image://IMAGE`, `NAME=oci-layout://DIRECTORY[:TAG|@DIGEST]`, a repository or the URL of an archive (can be repeated)
    #[arg(long, value_name = "NAME=PLACE")]
    build_context: Vec<String>,
    /// Stage to build, by name or number (default: the last one)
    #[arg(long)]
    target: Option<String>,
    /// What to build for: os/arch[/variant], several with commas (can be repeated)
    #[arg(long)]
    platform: Vec<String>,
    /// Label of the image: NAME=VALUE (can be repeated)
    #[arg(long)]
    label: Vec<String>,
    /// Annotation of the manifest: NAME=VALUE (can be repeated)
    #[arg(long)]
    annotation: Vec<String>,
    /// Do not use the cache
    #[arg(long)]
    no_cache: bool,
    /// Do not use the cache for a stage, several with commas (can be repeated)
    #[arg(long, value_name = "STAGE")]
    no_cache_filter: Vec<String>,
    /// Ask the registry for base images that are here
    #[arg(long)]
    pull: bool,
    /// Network of RUN: default, none, host or a network's name
    #[arg(long)]
    network: Option<String>,
    /// Let the Dockerfile ask for more: network.host, security.insecure, device or device=NAME (can be repeated)
    #[arg(long, value_name = "WHAT")]
    allow: Vec<String>,
    /// Line of /etc/hosts in RUN: NAME:ADDRESS (can be repeated)
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Secret for RUN: id=NAME,src=FILE or id=NAME,env=VARIABLE (can be repeated)
    #[arg(long)]
    secret: Vec<String>,
    /// SSH agent for RUN: default, or NAME=SOCKET (can be repeated)
    #[arg(long, value_name = "NAME=SOCKET")]
    ssh: Vec<String>,
    /// Where the result goes: DIRECTORY, or type=image|registry|local|tar|oci|docker|wasm-artifact|cacheonly,dest=PATH
    #[arg(short, long)]
    output: Vec<String>,
    /// Push the image to its registry
    #[arg(long)]
    push: bool,
    /// Keep the image in the store (which is the default)
    #[arg(long)]
    load: bool,
    /// Compress the image's own layers at once, with gzip
    #[arg(long)]
    compress: bool,
    /// Cache of another build: type=local,src=DIRECTORY or type=registry,ref=NAME (can be repeated)
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Write the cache of this build: type=local,dest=DIRECTORY, type=registry,ref=NAME or type=inline, and mode=min|max (can be repeated)
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Tell where the image came from: true, mode=min or mode=max
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// List the packages in the image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    /// Statement about the image: type=provenance[,mode=max] or type=sbom (can be repeated)
    #[arg(long, value_name = "STATEMENT")]
    attest: Vec<String>,
    /// Fill new caches of mounts from a directory
    #[arg(long, value_name = "DIRECTORY")]
    cache_mount_import: Option<PathBuf>,
    /// Write the caches of the build's mounts to a directory
    #[arg(long, value_name = "DIRECTORY")]
    cache_mount_export: Option<PathBuf>,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write digests and ids to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// How progress is shown: auto, tty, plain, rawjson or quiet
    #[arg(long, default_value = "auto")]
    progress: Style,
    /// Print nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    check: bool,
    /// The same as --check: --call=check
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    /// Remove containers of RUN, which is always done
    #[arg(long, hide = true)]
    rm: bool,
    /// Remove them when they fail, too
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Memory limit of RUN
    #[arg(short, long)]
    memory: Option<String>,
    /// Size of /dev/shm in RUN, in bytes or with a unit: b, k, m, g (default: 64m)
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Resource limit of each process of RUN: `NAME=SOFT[:HARD]`, -1 for none (can be repeated)
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Control group that those of RUN lie in
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Context: a directory, an archive, a git repository (URL#reference:directory), a URL, or - for standard input
    context: String,
}

/// Builds an image.
pub(crate) fn build(context: &Invocation, args: &BuildArgs) -> anyhow::Result<u8> {
    let is_check = match args.call.as_deref() {
        None => args.check,
        Some("check") => true,
        Some("build") => false,
        Some(other) => {
            return Err(Usage(format!(
                "cannot use --call={other}: there are build and check"
            ))
            .into());
        }
    };
    let outputs = outputs(args)?;
    let wanted = attest::Wanted::of(args)?;
    if !wanted.is_nothing() && !outputs.iter().any(|output| output.kind.takes_statements()) {
        return Err(Usage(
            "cannot keep statements about the image: they go to a registry (--push) or a directory (--output type=local)"
                .to_owned(),
        )
        .into());
    }
    let engine = context.engine()?;
    let registry = registry_options(&context.settings)?;
    let agents = values::agents(&args.ssh)?;
    let tmp = engine.layout().tmp();
    let keeps = |text: &String| text.as_str() == "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
    let means = context::Means {
        tmp: &tmp,
        registry: &registry,
        agent: agents.get("default").map(PathBuf::as_path),
        keep_git_dir: args.build_arg.iter().any(keeps),
    };
    let inputs = context::Inputs::read(&args.context, args.file.as_deref(), &means)?;
    if is_check {
        return check(&engine, &inputs);
    }
    let contexts = values::contexts(&args.build_context, &means)?;
    let mut options = options(context, args, &inputs, &outputs, &contexts)?;
    let display = BuildDisplay::new(if args.quiet {
        Style::Quiet
    } else {
        args.progress
    });
    let stop = AtomicBool::new(false);
    let signals = sys::signals::signal_fd(&[INTERRUPT, TERMINATE])?;
    let fetch = |name: &str, platform: &Platform| fetch(&engine, name, platform, &registry);
    let builder = Builder::new(&engine, &fetch, &display, &stop);
    let (end, ended) = std::io::pipe()?;
    let built = std::thread::scope(|scope| {
        scope.spawn(|| watch(&signals, &stop, &end));
        let built = builder.build(&options);
        // The watcher sees it at once.
        drop(ended);
        built
    });
    display.finish();
    let built = match built {
        Ok(built) => built,
        Err(BuildError::Stopped) => {
            render::line("ketch: the build was stopped; what was completed stays in the cache");
            return Ok(STOPPED);
        }
        Err(error) => return Err(failed(error)),
    };
    options.epoch = Some(built.epoch);
    let attestations = attest::Attestations {
        wanted,
        options: &options,
        source: inputs.source.as_ref(),
    };
    let means = output::Means {
        engine: &engine,
        args,
        registry: &registry,
        attestations: &attestations,
    };
    output::write(&means, &built, &outputs)?;
    Ok(0)
}

const INTERRUPT: i32 = 2;
const TERMINATE: i32 = 15;
/// The exit code of a build that was stopped: 128 + SIGINT.
const STOPPED: u8 = 130;

/// Tells the build when the user wants it to end, until nobody has the other side of `end` any more.
fn watch(signals: &OwnedFd, stop: &AtomicBool, end: &PipeReader) {
    loop {
        let mut waiting = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(end, PollFlags::IN),
        ];
        // Whatever it gives, the loop looks at both.
        let _ready = poll(&mut waiting, None);
        if !waiting[1].revents().is_empty() {
            return;
        }
        if let Ok(Some(_)) = sys::signals::next_signal(signals.as_fd()) {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Shows the line that an error is about, and gives the error without its place in it.
fn failed(error: BuildError) -> anyhow::Error {
    if let BuildError::Run { output, .. } = &error
        && !output.is_empty()
    {
        render::line("the last lines of its output:");
        for line in output.lines() {
            render::line(&format!("  | {}", render::clean(line)));
        }
    }
    if let Some(place) = error.place() {
        display::show_place(place);
    }
    error.into()
}

/// Prints what lint rules find.
fn check(engine: &engine::Engine, inputs: &context::Inputs) -> anyhow::Result<u8> {
    // Images that are not here are not fetched for a check.
    let env_of = |image: &str| {
        let found = engine.store().resolve(image, None).ok()?;
        Some(found.config.config.env)
    };
    let ignore = inputs.ignore()?;
    let around = Surroundings {
        env_of: Some(&env_of),
        ignore: ignore.as_deref(),
    };
    let findings =
        builder::check(&inputs.dockerfile_name, &inputs.dockerfile, &around).map_err(failed)?;
    for finding in &findings {
        render::print(&render::clean(&finding.to_string()))?;
        display::print_place(&finding.place)?;
    }
    if findings.is_empty() {
        render::print("Check complete, no warnings found.")?;
        return Ok(0);
    }
    render::print(&format!(
        "Check complete, {} warnings found.",
        findings.len()
    ))?;
    Ok(1)
}

fn fetch(
    engine: &engine::Engine,
    name: &str,
    platform: &Platform,
    registry: &image::RegistryOptions,
) -> Result<(), BuildError> {
    if name == "hello" {
        return super::image::load_hello(engine).map_err(|error| BuildError::Context {
            what: "`hello` cannot be loaded".to_owned(),
            source: Some(error.into()),
        });
    }
    let reference = Reference::parse(name)?;
    let choice = PlatformChoice::Only(platform.clone());
    engine.store().pull(&reference, &choice, registry, &())?;
    Ok(())
}

fn outputs(args: &BuildArgs) -> anyhow::Result<Vec<Output>> {
    let mut outputs = args
        .output
        .iter()
        .map(|text| Output::parse(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if outputs.is_empty() || args.load {
        outputs.push(Output::of(Kind::Image));
    }
    if args.push {
        outputs.push(Output::of(Kind::Registry));
    }
    Ok(outputs)
}

fn options(
    context: &Invocation,
    args: &BuildArgs,
    inputs: &context::Inputs,
    outputs: &[Output],
    contexts: &values::Contexts,
) -> anyhow::Result<BuildOptions> {
    let mut tags = Vec::new();
    for text in args
        .tag
        .iter()
        .chain(outputs.iter().filter_map(|output| output.name.as_ref()))
    {
        tags.push(Reference::parse(text)?);
    }
    let pushes = outputs.iter().any(|output| output.kind == Kind::Registry);
    if pushes && tags.is_empty() {
        return Err(Usage("cannot push the image: give it a name with --tag".to_owned()).into());
    }
    let keeps = outputs.iter().any(|output| output.kind.needs_image());
    let mut platforms = Vec::new();
    for text in args.platform.iter().flat_map(|list| list.split(',')) {
        platforms.push(platform(text)?);
    }
    let mut build_args = BTreeMap::new();
    for text in &args.build_arg {
        match text.split_once('=') {
            Some((name, value)) => {
                build_args.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Some(value) = settings::variable(text)? {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    let no_cache = match (args.no_cache, args.no_cache_filter.is_empty()) {
        (true, _) => NoCache::Always,
        (false, true) => NoCache::Never,
        (false, false) => {
            let names = args.no_cache_filter.iter().flat_map(|list| list.split(','));
            NoCache::Stages(names.map(str::to_owned).collect())
        }
    };
    let epoch = values::epoch(build_args.get("SOURCE_DATE_EPOCH"))?;
    let network = values::network(args.network.as_deref(), &context.settings)?;
    let mut allowed = values::allowed(&args.allow)?;
    // Who gives it to every step gives it to one.
    allowed.network_host |= network == Network::Host;
    Ok(BuildOptions {
        dockerfile_name: inputs.dockerfile_name.clone(),
        dockerfile: inputs.dockerfile.clone(),
        context: inputs.directory.clone(),
        ignore: inputs.ignore.clone(),
        contexts: contexts.by_name.clone(),
        args: build_args,
        target: args.target.clone(),
        platforms,
        tags,
        labels: values::pairs("--label", &args.label)?,
        annotations: values::pairs("--annotation", &args.annotation)?,
        no_cache,
        network,
        network_options: NetworkOptions {
            extra_hosts: args
                .add_host
                .iter()
                .map(|text| super::network_options::extra_host(text))
                .collect::<anyhow::Result<_>>()?,
            ..NetworkOptions::default()
        },
        secrets: values::secrets(&args.secret)?,
        ssh: values::agents(&args.ssh)?,
        ask: None,
        epoch,
        compression: outputs
            .iter()
            .find_map(|output| output.compression)
            .or_else(|| (args.compress || pushes).then_some(Compression::Gzip)),
        pull: args.pull,
        record: if keeps { Record::Yes } else { Record::No },
        cache_from: args
            .cache_from
            .iter()
            .map(|text| values::cache_source(text))
            .collect::<anyhow::Result<_>>()?,
        cache_to: cache_targets(args)?,
        cache_mounts_from: args.cache_mount_import.clone(),
        cache_mounts_to: args.cache_mount_export.clone(),
        http: registry_options(&context.settings)?,
        memory_bytes: memory(args.memory.as_deref())?,
        isolation: isolation_of_steps(
            &context.settings,
            args.shm_size.as_deref(),
            &args.ulimit,
            args.cgroup_parent.as_deref(),
        )?,
        allowed,
    })
}

/// Where the cache goes; `BUILDKIT_INLINE_CACHE=1` is another way to ask for it in the image.
fn cache_targets(args: &BuildArgs) -> anyhow::Result<Vec<CacheTarget>> {
    let mut targets = args
        .cache_to
        .iter()
        .map(|text| values::cache_target(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if args
        .build_arg
        .iter()
        .any(|text| text == "BUILDKIT_INLINE_CACHE=1")
    {
        targets.push(values::cache_target("type=inline")?);
    }
    Ok(targets)
}

/// The default of RUN, for settings that name none.
fn default_network() -> Network {
    Network::Default
}

/// Reads a file of the user.
fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

pub(crate) use values::memory;
