//! The command line where the system is not Linux: images, and guests in the sandbox alone. The guest
//! runs in this process; there is no monitor, no record of it and no layer store, so nothing of it is
//! left when it has ended.
//!
//! `cli/tests/portable.rs` is this module as a program on Linux: everything in it is tried there.

mod images;
mod pull;
#[path = "../commands/registry_options.rs"]
mod registry_options;
mod run;
mod subject;
mod wasm;

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use ::image::{Store, UnpackMode};
use anyhow::Context as _;
use clap::Args;
use state::Layout;
use sys::lock::{FileLock, Mode};

use crate::render::{self, Usage};
use crate::settings::{self, Settings};

/// How long the lock of `tmp/` is waited for: whoever has it alone deletes what was left there.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What there is, in the order of the help.
const COMMANDS: [(&str, &str); 8] = [
    (
        "run",
        "Run a wasm image or file in the sandbox: --isolation wasm-only",
    ),
    ("images", "List images"),
    ("pull", "Get an image from a registry"),
    ("inspect", "Show everything about images"),
    ("tag", "Give an image another name"),
    ("rmi", "Remove images"),
    ("wasm", "Look at modules, compile them, make images of them"),
    ("version", "Show the version"),
];

/// What there is on Linux besides.
const LINUX: [&str; 43] = [
    "attach",
    "bench",
    "build",
    "builder",
    "commit",
    "container",
    "cp",
    "create",
    "daemon",
    "diff",
    "events",
    "exec",
    "export",
    "history",
    "image",
    "import",
    "info",
    "kill",
    "load",
    "login",
    "logout",
    "logs",
    "manifest",
    "network",
    "oci",
    "pause",
    "port",
    "ps",
    "push",
    "rename",
    "restart",
    "rm",
    "save",
    "search",
    "start",
    "stats",
    "stop",
    "system",
    "top",
    "unpause",
    "update",
    "volume",
    "wait",
];

/// Something that is done with containers, which are Linux's.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: it needs Linux")]
pub(crate) struct NeedsLinux {
    pub(crate) what: String,
    pub(crate) hint: Option<&'static str>,
}

/// Something that cannot be run, with the exit code that a container would have.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// What every subcommand has.
pub(crate) struct Invocation {
    pub(crate) settings: Settings,
}

/// The store, and what belongs to it.
pub(crate) struct Places {
    pub(crate) layout: Layout,
    pub(crate) store: Store,
    /// What is below `tmp/` may be ours while this is held.
    _tmp: FileLock,
}

impl Invocation {
    /// Opens the store, and clears away what processes left that are gone.
    pub(crate) fn places(&self) -> anyhow::Result<Places> {
        let root = PathBuf::from(self.settings.get(&settings::ROOT));
        let run = PathBuf::from(self.settings.get(&settings::RUN));
        let layout = Layout::open(root, run)?;
        let store = Store::open(&layout, UnpackMode::default())?;
        Ok(Places {
            _tmp: share_tmp(&layout).context("cannot lock the directory `tmp` of the store")?,
            layout,
            store,
        })
    }
}

fn share_tmp(layout: &Layout) -> std::io::Result<FileLock> {
    let path = layout.locks().join("tmp.lock");
    if let Some(alone) = FileLock::try_acquire(&path, Mode::Exclusive)? {
        for dir in [layout.tmp(), layout.trash()] {
            sys::durable::empty_trash(&dir)?;
        }
        drop(alone);
    }
    FileLock::acquire(&path, Mode::Shared, LOCK_TIMEOUT)
}

/// Runs the subcommand that the arguments name.
pub(crate) fn dispatch(args: &[String]) -> anyhow::Result<u8> {
    let mut flags = BTreeMap::new();
    let mut rest = args.iter().skip(1).map(String::as_str);
    let command = loop {
        match rest.next() {
            None | Some("-h" | "--help" | "help") => return help(),
            Some("-v" | "--version") => break "version",
            Some(flag) if flag.starts_with("--") => {
                let (key, value) = match flag.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (flag, rest.next()),
                };
                let key = key.trim_start_matches('-');
                if !["root", "run"].contains(&key) {
                    let text = format!("unknown flag `--{key}` (see `ketch --help`)");
                    return Err(Usage(text).into());
                }
                let value = value.with_context(|| format!("the flag `--{key}` needs a value"))?;
                flags.insert(key.to_owned(), value.to_owned());
            }
            Some(command) => break command,
        }
    };
    let mut rest: Vec<&str> = rest.collect();
    if command == runtime_wasm::worker::SUBCOMMAND {
        return compile_worker(&rest);
    }
    let context = Invocation {
        settings: Settings::resolve(&flags)?,
    };
    match plain(command, &mut rest)? {
        "run" => run::run(&context, &parse("run", &rest)?),
        "images" => images::images(&context, &parse("images", &rest)?),
        "pull" => pull::pull(&context, &parse("pull", &rest)?),
        "inspect" => images::inspect(&context, &parse("inspect", &rest)?),
        "tag" => images::tag(&context, &parse("tag", &rest)?),
        "rmi" => images::rmi(&context, &parse("rmi", &rest)?),
        "wasm" => wasm::wasm(&context, &parse("wasm", &rest)?),
        "version" => version(),
        other if LINUX.contains(&other) => Err(NeedsLinux {
            what: format!("run `ketch {other}`"),
            hint: None,
        }
        .into()),
        other => Err(Usage(format!("`{other}` is not a command (see `ketch --help`)")).into()),
    }
}

/// The plain spelling of `image ls` and its like.
fn plain<'a>(command: &'a str, rest: &mut Vec<&'a str>) -> Result<&'a str, NeedsLinux> {
    if command != "image" {
        return Ok(command);
    }
    let verb = rest.first().copied().unwrap_or_default();
    let plain = match verb {
        "ls" | "list" => "images",
        "rm" | "remove" => "rmi",
        "inspect" | "pull" | "tag" => verb,
        other => {
            return Err(NeedsLinux {
                what: format!("run `ketch image {other}`"),
                hint: None,
            });
        }
    };
    rest.remove(0);
    Ok(plain)
}

/// The exit code of a failure that has none of its own.
pub(crate) fn failure_code(args: &[String]) -> u8 {
    let is_run = args.iter().skip(1).any(|arg| arg == "run");
    if is_run { runtime::code::ENGINE } else { 1 }
}

fn parse<T: Args>(command: &str, args: &[&str]) -> anyhow::Result<T> {
    let about = COMMANDS.iter().find(|(name, _)| *name == command);
    let parser = clap::Command::new("ketch")
        .bin_name(format!("ketch {command}"))
        .no_binary_name(true)
        .about(about.map_or("", |(_, text)| *text));
    let matches = T::augment_args(parser).try_get_matches_from(args)?;
    Ok(T::from_arg_matches(&matches)?)
}

fn help() -> anyhow::Result<u8> {
    render::print("Usage: ketch [--root DIR] [--run DIR] COMMAND [ARG...]\n\nCommands:")?;
    for (name, about) in COMMANDS {
        render::print(&format!("  {name:<10}{about}"))?;
    }
    render::print("\n`ketch COMMAND --help` shows what a command takes.")?;
    render::print("Containers, and all other commands of ketch, need Linux.")?;
    Ok(0)
}

fn version() -> anyhow::Result<u8> {
    let system = std::env::consts::OS;
    render::print(&format!(
        "ketch {} ({system}: wasm only)",
        env!("CARGO_PKG_VERSION")
    ))?;
    Ok(0)
}

/// Compiles one module and ends: what this program is started again for. The worker wants a file
/// whose size it sees before it reads it.
fn compile_worker(args: &[&str]) -> anyhow::Result<u8> {
    let mut bytes = Vec::new();
    let limit = runtime_wasm::compile::MAX_MODULE_BYTES + 1;
    std::io::stdin().take(limit).read_to_end(&mut bytes)?;
    let mut module = tempfile::tempfile()?;
    module.write_all(&bytes)?;
    module.rewind()?;
    drop(bytes);
    let args = args.iter().map(std::ffi::OsString::from);
    runtime_wasm::worker::main(args, module, std::io::stdout())?;
    Ok(0)
}
