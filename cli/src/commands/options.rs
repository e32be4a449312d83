//! The options of `run` and `create`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use engine::{ContainerOptions, LogOptions};
use runtime::detect::RuntimeOverride;
use runtime::{NoRestartPolicy, RestartPolicy};

use super::health_options::HealthArgs;
use super::isolation_options::IsolationArgs;
use super::mount_options::MountArgs;
use super::network_options::NetworkArgs;
use super::wasm_options::WasmArgs;
use crate::render::Usage;
use crate::settings::Settings;
use crate::values::setting_lines;
pub(crate) use crate::values::{bytes, bytes_of, environment, module_file, platform};

/// Options of `run` and `create`, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Start it again when it ends: `no`, `on-failure[:N]`, `always` or `unless-stopped`
    #[arg(long, default_value = "no", value_name = "POLICY")]
    restart: String,
    /// How output is recorded: json-file, local, none, syslog, fluentd or journald
    #[arg(long, default_value = "json-file", value_name = "DRIVER")]
    log_driver: String,
    /// Option of the log driver, such as max-size=10m (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    #[command(flatten)]
    health: HealthArgs,
    /// Name of the container (default: made up)
    #[arg(long)]
    name: Option<String>,
    /// Set a variable, or take it over from this environment (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    #[command(flatten)]
    mounts: MountArgs,
    /// Run this in place of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Host name (default: the short id)
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Label: KEY[=VALUE] (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Annotation of the OCI specification (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Signal that asks the container to end (default: the image's, or TERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds before a container that was asked to end is killed (default 10)
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Say nothing about fetching the image
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Memory limit, in bytes or with a unit: b, k, m, g
    #[arg(short, long)]
    memory: Option<String>,
    /// How many processors, such as 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// How many processes
    #[arg(long)]
    pids_limit: Option<i64>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    isolation: IsolationArgs,
    /// Runtime: native or wasm (default: what the image holds)
    #[arg(long)]
    runtime: Option<String>,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    wasm: WasmArgs,
    /// Get the image first: always, missing or never
    #[arg(long, default_value = "missing", value_name = "WHEN")]
    pull: String,
    /// Image or WebAssembly file, then the command and its arguments, which are not this program's.
    /// What begins with / ./ or ../ is a file, and so is an existing FILE.wasm
    #[arg(
        value_names = ["IMAGE", "COMMAND"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    image_and_command: Vec<String>,
}

/// When an image is fetched before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// Even when it is here.
    Always,
    /// When it is not here.
    Missing,
    /// Not at all.
    Never,
}

impl CreateArgs {
    /// `--pull`.
    pub(crate) fn pull(&self) -> anyhow::Result<Pull> {
        match self.pull.as_str() {
            "always" => Ok(Pull::Always),
            "missing" => Ok(Pull::Missing),
            "never" => Ok(Pull::Never),
            other => {
                let text = format!("cannot use --pull `{other}`: it is always, missing or never");
                Err(Usage(text).into())
            }
        }
    }

    /// The engine's options.
    pub(crate) fn resolve(&self, settings: &Settings) -> anyhow::Result<ContainerOptions> {
        let (image, command) = self
            .image_and_command
            .split_first()
            .context("no image was given")?;
        if image.starts_with('-') {
            return Err(Usage(format!("unknown flag `{image}` (see --help)")).into());
        }
        Ok(ContainerOptions {
            image: image.clone(),
            module: module_file(image)?,
            name: self.name.clone(),
            platform: self.platform.as_deref().map(platform).transpose()?,
            runtime: match self.runtime.as_deref() {
                None => RuntimeOverride::Auto,
                Some("native") => RuntimeOverride::Native,
                Some("wasm") => RuntimeOverride::Wasm,
                Some(other) => {
                    let text = format!("cannot use runtime `{other}`: it is native or wasm");
                    return Err(Usage(text).into());
                }
            },
            command: command.to_vec(),
            entrypoint: self.entrypoint.as_ref().map(|text| {
                if text.is_empty() {
                    Vec::new()
                } else {
                    vec![text.clone()]
                }
            }),
            env: environment(&self.env_file, &self.env)?,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            mounts: self.mounts.mounts()?,
            volumes_from: self.mounts.volumes_from()?,
            network: self.network.network(settings)?,
            network_options: self.network.options(settings)?,
            memory_bytes: self.memory.as_deref().map(bytes).transpose()?,
            nano_cpus: self.cpus.map(nano_cpus).transpose()?,
            // As with Docker, none of these is a limit.
            pids_limit: self.pids_limit.filter(|limit| *limit > 0),
            read_only: self.read_only,
            no_new_privileges: self.isolation.no_new_privileges()?,
            isolation: self.isolation.resolve(settings)?,
            console: self.tty.then(crate::attach::console),
            interactive: self.interactive,
            auto_remove: self.rm,
            labels: labels(&self.label_file, &self.label)?,
            annotations: annotations(&self.annotation)?,
            stop_signal: self.stop_signal.as_deref().map(signal_text).transpose()?,
            stop_timeout: self.stop_timeout,
            cid_file: self
                .cidfile
                .as_deref()
                .map(std::path::absolute)
                .transpose()?,
            trace: None,
            restart: restart_policy(&self.restart)?,
            health: self.health.resolve()?,
            log: log_options(&self.log_driver, &self.log_opt)?,
            wasm: self.wasm.resolve()?,
        })
    }
}

/// `--restart`.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, Usage> {
    text.parse()
        .map_err(|error: NoRestartPolicy| Usage(format!("cannot use --restart: {error}")))
}

/// `--log-driver` and `--log-opt`.
fn log_options(driver: &str, options: &[String]) -> Result<LogOptions, Usage> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Usage(format!(
            "cannot use --log-opt `{text}`: it is KEY=VALUE"
        ))),
    };
    Ok(LogOptions {
        driver: driver.to_owned(),
        options: options.iter().map(pair).collect::<Result<_, _>>()?,
    })
}

fn signal_text(text: &str) -> anyhow::Result<String> {
    match runtime_native::real_signal(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(Usage(format!(
            "cannot use --stop-signal `{text}`: it is no signal"
        ))
        .into()),
    }
}

/// Files first, then flags, which are stronger. A key alone has an empty value.
fn labels(files: &[PathBuf], flags: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut given = setting_lines("label", files)?;
    given.extend(
        flags
            .iter()
            .map(|flag| (flag.clone(), "--label".to_owned())),
    );
    let mut labels = BTreeMap::new();
    for (text, place) in given {
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        if key.is_empty() || key.contains(char::is_whitespace) {
            let text = format!("cannot use `{text}` in {place}: it is KEY[=VALUE]");
            return Err(Usage(text).into());
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn annotations(flags: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Usage(format!("cannot use --annotation `{text}`: it is KEY=VALUE")).into()),
    };
    flags.iter().map(pair).collect()
}

/// `--cpus`.
pub(crate) fn nano_cpus(cpus: f64) -> anyhow::Result<i64> {
    const LEAST: f64 = 0.01;
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let most = u32::try_from(available).map_or(1.0, f64::from);
    if !(LEAST..=most).contains(&cpus) {
        let text = format!("cannot use --cpus `{cpus}`: this host gives {LEAST} to {most}");
        return Err(Usage(text).into());
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    Ok((cpus * 1e9) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_flags_are_stronger_than_those_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("labels");
        sys::durable::replace_file(&file, b"# no\n\na=1\nb\n", sys::durable::Durability::Atomic)
            .unwrap();
        let labels = labels(&[file], &["a=2".to_owned()]).unwrap();
        assert_eq!(labels["a"], "2");
        assert_eq!(labels["b"], "");
        assert!(super::labels(&[], &["=x".to_owned()]).is_err());
        assert!(annotations(&["x".to_owned()]).is_err());
    }
}
