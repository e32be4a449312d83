//! `ketch socket`: sockets of the daemon that allow a part of Docker's API.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use daemon::{Mode, Policies, Policy, Verb};

use super::{Invocation, parse_named};
use crate::render::{self, Usage};

const COMMANDS: [(&str, &str); 3] = [
    ("create", "Make a socket that allows a part of the API"),
    ("ls", "List sockets with what they allow"),
    ("rm", "Remove sockets"),
];

/// How long a daemon may take to open a socket, or to close it.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Runs the subcommand that the arguments name.
pub(crate) fn socket(context: &Invocation, args: &[&str]) -> anyhow::Result<u8> {
    let Some((command, rest)) = args.split_first() else {
        return super::group_help("socket", &COMMANDS);
    };
    let own = COMMANDS.iter().find(|(name, _)| name == command);
    let about = own.map_or("", |(_, about)| about);
    let name = format!("socket {command}");
    match *command {
        "create" => create(context, &parse_named(&name, about, rest)?),
        "ls" | "list" => ls(context, &parse_named(&name, about, rest)?),
        "rm" | "remove" => rm(context, &parse_named(&name, about, rest)?),
        "--help" | "-h" | "help" => super::group_help("socket", &COMMANDS),
        other => {
            let text = format!("`socket {other}` is not a command (see `ketch socket --help`)");
            Err(Usage(text).into())
        }
    }
}

/// Options of `socket create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Allow nothing that changes something
    #[arg(long)]
    read_only: bool,
    /// Show only containers, networks and volumes with this label, and give it to new ones: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Allow these verbs only, separated by commas: info, events, inspect, logs, wait, attach, exec, create, start, stop, restart, update, rm, copy, images, save, pull, push, login, build, commit, load, tag, rmi, networks, volumes, and host, to hand parts of the host to containers (default: all but host, and with --label all but host, commit, load, tag, rmi and login; can be repeated)
    #[arg(long, value_name = "VERBS", value_delimiter = ',')]
    allow: Vec<Verb>,
    /// Name, for a socket in the run directory, or absolute path
    name: String,
}

/// Options of `socket ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// Print names only
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How they are printed: table or json
    #[arg(long, default_value = "table")]
    format: String,
}

/// Arguments of `socket rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// Names or paths
    #[arg(required = true)]
    sockets: Vec<String>,
}

fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, Usage> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Usage(format!(
            "cannot use --label `{text}`: it is not KEY=VALUE"
        ))),
    };
    texts.iter().map(pair).collect()
}

fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    let (layout, _) = context.places()?;
    let mode = match args.read_only {
        true => Mode::ReadOnly,
        false => Mode::ReadWrite,
    };
    let allow: BTreeSet<Verb> = args.allow.iter().copied().collect();
    let allow = (!allow.is_empty()).then_some(allow);
    let policy = Policy::new(&layout, &args.name, mode, labels(&args.label)?, allow)?;
    let policies = Policies::open(&layout)?;
    policies.add(&policy)?;
    if Policies::are_served(&layout).context("cannot look for a daemon")? {
        if !until(|| UnixStream::connect(&policy.path).is_ok()) {
            policies.remove(&policy.name)?;
            anyhow::bail!(
                "cannot open `{}`: the daemon does not listen there; its log says why",
                policy.path.display()
            );
        }
    } else {
        render::line("ketch: no daemon runs; the next one serves the socket");
    }
    render::print(&policy.path.display().to_string())?;
    Ok(0)
}

/// Waits for a daemon.
fn until(is_so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > DAEMON_TIMEOUT {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
    true
}

fn ls(context: &Invocation, args: &LsArgs) -> anyhow::Result<u8> {
    let (layout, _) = context.places()?;
    let all = Policies::open(&layout)?.list()?;
    if args.quiet {
        for policy in all {
            render::print(&policy.name)?;
        }
        return Ok(0);
    }
    match args.format.as_str() {
        "json" => {
            for policy in &all {
                render::print(&serde_json::to_string(policy)?)?;
            }
        }
        "table" => {
            let rows: Vec<Vec<String>> = all.iter().map(row).collect();
            render::table(&["NAME", "MODE", "LABELS", "ALLOWED", "PATH"], &rows)?;
        }
        other => {
            return Err(Usage(format!("cannot print as `{other}`: table or json")).into());
        }
    }
    Ok(0)
}

fn row(policy: &Policy) -> Vec<String> {
    let labels = policy.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let allowed = policy.allow.as_ref().map(|verbs| {
        let names: Vec<String> = verbs.iter().map(ToString::to_string).collect();
        names.join(",")
    });
    vec![
        policy.name.clone(),
        match policy.mode {
            Mode::ReadOnly => "read-only".to_owned(),
            Mode::ReadWrite => "read-write".to_owned(),
        },
        labels.join(","),
        allowed.unwrap_or_else(|| "default".to_owned()),
        policy.path.display().to_string(),
    ]
}

fn rm(context: &Invocation, args: &RmArgs) -> anyhow::Result<u8> {
    let (layout, _) = context.places()?;
    let policies = Policies::open(&layout)?;
    let mut code = 0;
    for name in &args.sockets {
        let removed = policies.remove(name).map_err(anyhow::Error::from);
        match removed.and_then(|policy| closed(&layout, &policy.path)) {
            Ok(()) => render::print(name)?,
            Err(error) => {
                render::report(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// A daemon that runs closes the socket itself; otherwise what it left is removed.
fn closed(layout: &state::Layout, path: &Path) -> anyhow::Result<()> {
    if Policies::are_served(layout).context("cannot look for a daemon")? {
        if until(|| UnixStream::connect(path).is_err()) {
            return Ok(());
        }
        anyhow::bail!("the daemon does not close `{}`", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}
