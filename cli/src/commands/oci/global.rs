//! Options of all verbs, and the help.

use std::ffi::CString;
use std::path::PathBuf;

use anyhow::Context;
use runtime::LogTarget;
use runtime_native::oci::Root;

use crate::commands::Invocation;
use crate::render::{self, Usage};
use crate::settings::{RUN, Settings};

/// Every verb with what it does.
pub(super) const VERBS: [(&str, &str); 17] = [
    ("create", "Create a container"),
    ("start", "Start a created container"),
    ("run", "Create and start a container"),
    ("state", "Show the state of a container"),
    ("kill", "Send a signal to a container"),
    ("delete", "Remove a container"),
    ("exec", "Execute a program in a container"),
    ("list", "List containers"),
    ("ps", "List the processes of a container"),
    ("pause", "Suspend all processes of a container"),
    ("resume", "Resume all processes of a container"),
    ("update", "Change the limits of a container"),
    ("events", "Show what a container uses, and when it runs out"),
    ("spec", "Write a specification to begin with"),
    ("features", "Show what this runtime can do"),
    ("checkpoint", "Save a running container"),
    ("restore", "Restore a saved container"),
];

/// The global options.
pub(super) struct Global {
    /// The directory of all containers.
    pub(super) root: Root,
    /// The caller has named it.
    pub(super) is_root_named: bool,
    /// Where the small executables are.
    pub(super) run: PathBuf,
    /// systemd makes the control groups (`--systemd-cgroup`).
    pub(super) systemd_cgroup: bool,
    /// The program that saves and restores (`--criu`).
    pub(super) criu: Option<PathBuf>,
    /// Where errors go besides standard error.
    pub(super) log: LogTarget,
    /// The settings, for bundles that need the engine's directories: wasm modules are cached there.
    pub(super) context: Invocation,
}

impl Global {
    /// Takes the global options out of `args`, wherever they stand before the program's own
    /// arguments, and gives the rest.
    pub(super) fn parse<'a>(args: &[&'a str]) -> anyhow::Result<(Self, Vec<&'a str>)> {
        let mut root = None;
        let mut log = LogTarget::default();
        let mut systemd_cgroup = false;
        let mut criu = None;
        let mut rest = Vec::new();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let dashes = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
            let (name, inline) = match dashes.unwrap_or_default().split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (dashes.unwrap_or_default(), None),
            };
            // A verb's own options are left to it.
            let before_verb = rest.is_empty();
            let mut value = |name: &str| {
                let value = inline.or_else(|| args.next());
                value
                    .map(str::to_owned)
                    .with_context(|| format!("the flag `--{name}` needs a value"))
            };
            match name {
                "root" => root = Some(PathBuf::from(value(name)?)),
                "log" => log.path = Some(CString::new(value(name)?)?),
                "log-format" => log.json = json_format(&value(name)?)?,
                "rootless" => check_rootless(&value(name)?)?,
                "criu" => criu = Some(PathBuf::from(value(name)?)),
                "debug" => log.debug = inline != Some("false"),
                "systemd-cgroup" => systemd_cgroup = inline != Some("false"),
                "version" | "v" if before_verb => {
                    rest.push("--version");
                    break;
                }
                "help" | "h" if before_verb => break,
                _ if before_verb && dashes.is_some() => {
                    return Err(Usage(format!("unknown flag `{arg}`")).into());
                }
                _ => {
                    rest.push(arg);
                    // What follows a container's id may be the arguments of its program.
                    if rest.first() == Some(&"exec") || arg == "--" {
                        rest.extend(args);
                        break;
                    }
                }
            }
        }
        let settings = Settings::resolve(&std::collections::BTreeMap::new())?;
        let run = PathBuf::from(settings.get(&RUN));
        let global = Self {
            is_root_named: root.is_some(),
            root: Root::new(root.unwrap_or_else(|| run.join("oci"))),
            run,
            systemd_cgroup,
            criu,
            log,
            context: Invocation { settings },
        };
        Ok((global, rest))
    }
}

fn json_format(name: &str) -> anyhow::Result<bool> {
    match name {
        "json" => Ok(true),
        "text" | "" => Ok(false),
        other => Err(Usage(format!("the log format `{other}` is not `text` or `json`")).into()),
    }
}

/// Ordinary users need no switch here: what they cannot have is found by trying.
fn check_rootless(value: &str) -> anyhow::Result<()> {
    match value {
        "auto" | "true" | "false" | "0" | "1" => Ok(()),
        other => Err(Usage(format!(
            "`--rootless` takes auto, true or false, not `{other}`"
        ))
        .into()),
    }
}

/// Prints what there is.
pub(super) fn help() -> std::io::Result<()> {
    render::print(
        "Usage: ketch oci [--root DIR] [--log FILE] [--log-format text|json] VERB [ARG...]\n\nVerbs:",
    )?;
    for (name, about) in VERBS {
        render::print(&format!("  {name:<12}{about}"))?;
    }
    render::print("\n`ketch oci VERB --help` shows what a verb takes.")
}
