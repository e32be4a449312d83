//! `ketch run --isolation wasm-only`: the guest in this process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::image::{ImageError, Reference};
use anyhow::Context as _;
use clap::Args;
use runtime::code;
use runtime_wasm::cache::ModuleDigest;
use runtime_wasm::engine::Serving;
use runtime_wasm::host::LoadError;
use runtime_wasm::worker::{self, CompileRequest, CompiledFile, WorkerError};
use runtime_wasm::{
    Entry, GuestRoot, HttpOptions, Interfaces, KeyValue, Metering, NetworkGrant, Stdin, WasmSpec,
};

use super::subject::{Subject, Wanted};
use super::{Invocation, NeedsLinux, Places, Refused, pull};
use crate::guest_options::GuestArgs;
use crate::progress::ProgressStyle;
use crate::render::{self, Usage};
use crate::values::{bytes, environment, module_file, platform};

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What stands around the guest: wasm-only; a container needs Linux
    #[arg(long, default_value = "container", value_name = "WALLS")]
    isolation: String,
    /// Nothing of a guest stays in any case
    #[arg(long)]
    rm: bool,
    /// Give the guest this standard input
    #[arg(short, long)]
    interactive: bool,
    /// Set a variable, or take it over from this environment (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// Run this in place of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Most linear memory, in bytes or with a unit: b, k, m, g
    #[arg(short, long)]
    memory: Option<String>,
    /// What the guest may reach: none, or host for the network of this machine
    #[arg(long, default_value = "none")]
    network: String,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Get the image first: always, missing or never
    #[arg(long, default_value = "missing", value_name = "WHEN")]
    pull: String,
    /// Say nothing about fetching the image
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    guest: GuestArgs,
    /// Image or WebAssembly file, then the command and its arguments
    #[arg(
        value_names = ["IMAGE", "COMMAND"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    image_and_command: Vec<String>,
}

/// Runs a guest to its end.
pub(crate) fn run(context: &Invocation, args: &RunArgs) -> anyhow::Result<u8> {
    match args.isolation.as_str() {
        "wasm-only" => {}
        "container" => {
            return Err(NeedsLinux {
                what: "run a container".to_owned(),
                hint: Some("a wasm image runs without one: add --isolation wasm-only"),
            }
            .into());
        }
        other => {
            let text = format!("cannot use --isolation `{other}`: it is container or wasm-only");
            return Err(Usage(text).into());
        }
    }
    let places = context.places()?;
    let subject = find(context, &places, args)?;
    let compiled = compile(
        &places,
        &subject.module,
        args.guest.invoke.as_deref().or(subject.export.as_deref()),
        metering(&args.guest),
    )?;
    let spec = spec(args, &subject, &compiled)?;
    let artifact = File::open(&compiled.path).context("cannot open the compiled module")?;
    let limit = match spec.entry {
        // A server ends requests, not itself.
        Entry::Http(_) => None,
        _ => spec.timeout_ms,
    };
    let files = subject.root.path().to_path_buf();
    let started = || limit.map_or(Ok(()), |limit| end_after(limit, files));
    let outcome = runtime_wasm::host::run(&spec, artifact, started, |outcome| outcome);
    let outcome = outcome.map_err(|error: LoadError| Refused {
        code: code::ENGINE,
        message: format!("{:#}", anyhow::Error::from(error)),
    })?;
    for line in outcome.message().lines() {
        render::line(line);
    }
    Ok(outcome.code)
}

/// The subject; an image that is wanted from elsewhere is fetched first.
fn find(context: &Invocation, places: &Places, args: &RunArgs) -> anyhow::Result<Subject> {
    let (name, command) = args
        .image_and_command
        .split_first()
        .context("no image was given")?;
    if name.starts_with('-') {
        return Err(Usage(format!("unknown flag `{name}` (see --help)")).into());
    }
    if let Some(path) = module_file(name)? {
        return Subject::of_file(places, name, &path, command);
    }
    let wanted = args.platform.as_deref();
    let fetch = || {
        let style = if args.quiet {
            ProgressStyle::None
        } else {
            ProgressStyle::Auto
        };
        let reference = Reference::parse(name)?;
        pull::fetch(&places.store, &context.settings, &reference, wanted, style).map(drop)
    };
    let platform = wanted.map(platform).transpose()?;
    let subject = Wanted {
        name,
        platform: platform.as_ref(),
        entrypoint: args.entrypoint.as_deref(),
        command,
    };
    let image = || Subject::of_image(places, &subject);
    match args.pull.as_str() {
        "never" => return image(),
        "always" => fetch()?,
        "missing" => {
            let found = places.store.resolve(name, platform.as_ref());
            if let Err(ImageError::NotFound(_) | ImageError::NoPlatform { .. }) = found {
                fetch()?;
            }
        }
        other => {
            let text = format!("cannot use --pull `{other}`: it is always, missing or never");
            return Err(Usage(text).into());
        }
    }
    image()
}

fn metering(guest: &GuestArgs) -> Metering {
    Metering {
        fuel: guest.wasm_fuel,
        deterministic: guest.wasm_deterministic,
    }
}

/// The compiled module, from the cache or by this program started again as the worker.
pub(super) fn compile(
    places: &Places,
    module: &Path,
    invoke: Option<&str>,
    metering: Metering,
) -> anyhow::Result<CompiledFile> {
    let bytes = crate::module_file::read(module)?;
    let digest = ModuleDigest::of(&bytes);
    let ketch = std::env::current_exe().context("cannot find my own program")?;
    let request = CompileRequest {
        ketch: &ketch,
        module,
        digest: digest.hex(),
        variant: metering.into(),
        invoke,
    };
    worker::ensure_compiled(&places.layout, request).map_err(|error| match error {
        WorkerError::Refused(message) => Refused {
            code: code::NOT_EXECUTABLE,
            message,
        }
        .into(),
        other => other.into(),
    })
}

fn spec(args: &RunArgs, subject: &Subject, compiled: &CompiledFile) -> anyhow::Result<WasmSpec> {
    let guest = &args.guest;
    let config = guest.config()?;
    let interfaces = Interfaces {
        config: (!config.is_empty()).then_some(config),
        keyvalue: guest.wasm_keyvalue.then_some(KeyValue::Memory),
        logging: guest.wasm_logging,
    };
    let refused = |message| Refused {
        code: code::NOT_EXECUTABLE,
        message,
    };
    compiled
        .info
        .check_interfaces(&interfaces)
        .map_err(|error| refused(error.to_string()))?;
    let mut spec = WasmSpec::new(compiled.info.kind, subject.args.clone());
    spec.interfaces = interfaces;
    spec.metering = metering(guest);
    spec.timeout_ms = guest.timeout_ms()?;
    spec.entry = entry(args, subject, compiled)?;
    spec.env = subject
        .env
        .iter()
        .cloned()
        .chain(environment(&args.env_file, &args.env)?)
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    let cwd = args.workdir.as_ref().unwrap_or(&subject.working_dir);
    if !cwd.is_empty() {
        spec.cwd.clone_from(cwd);
    }
    spec.network = match args.network.as_str() {
        "none" => NetworkGrant::None,
        "host" => NetworkGrant::Inherit,
        other => {
            return Err(NeedsLinux {
                what: format!("use --network `{other}`"),
                hint: Some("there are `none` and `host`"),
            }
            .into());
        }
    };
    spec.guest_root = match guest.wasm_no_files {
        true => GuestRoot::None,
        false => GuestRoot::Path(subject.root.path().display().to_string()),
    };
    if let Some(text) = &args.memory {
        spec.limits.memory_bytes = u64::try_from(bytes(text)?).ok();
    }
    spec.stdin = match args.interactive {
        true => Stdin::Inherit,
        false => Stdin::Empty,
    };
    Ok(spec)
}

fn entry(args: &RunArgs, subject: &Subject, compiled: &CompiledFile) -> anyhow::Result<Entry> {
    let guest = &args.guest;
    if let Some(export) = guest.invoke.as_ref().or(subject.export.as_ref()) {
        return Ok(Entry::Export(export.clone()));
    }
    if compiled.serving == Serving::Command {
        return Ok(Entry::Command);
    }
    let mut http = HttpOptions::default();
    let port = guest.wasm_http_port.or(subject.port);
    // Whoever is to reach it from elsewhere puts something in front of it.
    http.address = ([127, 0, 0, 1], port.unwrap_or(HttpOptions::PORT)).into();
    if let Some(reuse) = guest.http_reuse()? {
        http.requests_per_instance = reuse;
    }
    if let Some(concurrency) = guest.http_concurrency()? {
        http.concurrent_requests = concurrency;
    }
    Ok(Entry::Http(http))
}

/// Ends the process when the guest has had its time.
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the command line ends the process, and the guest is in it"
)]
fn end_after(limit_ms: u64, files: PathBuf) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("timeout".to_owned())
        .spawn(move || {
            std::thread::sleep(Duration::from_millis(limit_ms));
            // What cannot be removed now is by the next process.
            drop(sys::durable::remove_tree(&files));
            render::line(&format!(
                "ketch: the guest ran longer than {limit_ms} ms (--wasm-timeout)"
            ));
            std::process::exit(i32::from(code::KILLED))
        })
        .map(drop)
}
