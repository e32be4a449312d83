//! The subcommands, one a file. Only the chosen one's parser is built: a full tree of parsers costs
//! more than a container's mounts.

mod image;
mod info;
mod lifecycle;
mod logs;
mod options;
mod ps;
mod pull;
mod run;
mod wasm;
mod wasm_artifact;
mod wasm_options;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;

use ::image::{Store, UnpackMode};
use anyhow::Context;
use clap::Args;
use engine::{Engine, UserNamespace};
use state::Layout;

use crate::embedded::EXECUTABLES;
use crate::render::{self, Usage};
use crate::settings::Settings;

/// Every subcommand with what it does, in the order of the help.
const COMMANDS: [(&str, &str); 21] = [
    ("run", "Create and start a container"),
    ("create", "Create a container without starting it"),
    ("start", "Start stopped containers"),
    ("ps", "List containers"),
    ("logs", "Show the output of a container"),
    ("stop", "Stop running containers"),
    ("kill", "Send a signal to running containers"),
    (
        "wait",
        "Wait until containers end and print their exit codes",
    ),
    ("rm", "Remove containers"),
    ("inspect", "Show everything about containers"),
    ("images", "List images"),
    ("load", "Load images from an archive"),
    ("import", "Make an image from a root file system archive"),
    ("pull", "Get an image from a registry"),
    ("save", "Write images to an archive"),
    ("tag", "Give an image another name"),
    ("rmi", "Remove images"),
    ("history", "Show how an image came to be"),
    (
        "wasm",
        "Look at modules, compile them, make images of them",
    ),
    ("info", "Show the settings and what this host can do"),
    ("version", "Show the version"),
];

/// What every subcommand has.
pub(crate) struct Invocation {
    pub(crate) settings: Settings,
}

impl Invocation {
    /// The engine on the directories of the settings.
    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        let root = PathBuf::from(self.settings.get(&crate::settings::ROOT));
        let run = PathBuf::from(self.settings.get(&crate::settings::RUN));
        let layout = Layout::open(root, run)?;
        let ketch = std::env::current_exe().context("cannot find my own program")?;
        if rustix::process::geteuid().is_root() {
            let store = Store::open(&layout, UnpackMode::default())?;
            return Ok(Engine::new(layout, store, EXECUTABLES, ketch));
        }
        let namespace = UserNamespace::enter(&layout, &EXECUTABLES)?;
        let mode = UnpackMode {
            userns: true,
            flat_owner: namespace.is_single(),
        };
        let store = Store::open(&layout, mode)?;
        Ok(Engine::new(layout, store, EXECUTABLES, ketch).in_user_namespace(namespace))
    }
}

/// Runs the subcommand that the arguments name.
pub(crate) fn dispatch(args: &[String]) -> anyhow::Result<u8> {
    let mut flags = BTreeMap::new();
    let mut rest = args.iter().skip(1);
    let command = loop {
        let Some(arg) = rest.next() else {
            help()?;
            return Ok(0);
        };
        match arg.as_str() {
            "-h" | "--help" | "help" => {
                help()?;
                return Ok(0);
            }
            "-v" | "--version" => break "version",
            text if text.starts_with("--") => {
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (text, rest.next().cloned()),
                };
                let key = key.trim_start_matches('-').to_owned();
                if !["root", "run"].contains(&key.as_str()) {
                    return Err(
                        Usage(format!("unknown flag `--{key}` (see `ketch --help`)")).into(),
                    );
                }
                let value = value.with_context(|| format!("the flag `--{key}` needs a value"))?;
                flags.insert(key, value);
            }
            text => break text,
        }
    };
    let rest: Vec<&str> = rest.map(String::as_str).collect();
    let context = Invocation {
        settings: Settings::resolve(&flags)?,
    };
    match command {
        runtime_wasm::worker::SUBCOMMAND => compile_worker(&rest),
        "run" => run::run(&context, &parse(command, &rest)?),
        "create" => run::create(&context, &parse(command, &rest)?),
        "start" => lifecycle::start(&context, &parse(command, &rest)?),
        "stop" => lifecycle::stop(&context, &parse(command, &rest)?),
        "kill" => lifecycle::kill(&context, &parse(command, &rest)?),
        "wait" => lifecycle::wait(&context, &parse(command, &rest)?),
        "rm" => lifecycle::rm(&context, &parse(command, &rest)?),
        "inspect" => ps::inspect(&context, &parse(command, &rest)?),
        "ps" => ps::ps(&context, &parse(command, &rest)?),
        "logs" => logs::logs(&context, &parse(command, &rest)?),
        "images" => image::images(&context, &parse(command, &rest)?),
        "load" => image::load(&context, &parse(command, &rest)?),
        "save" => image::save(&context, &parse(command, &rest)?),
        "import" => image::import(&context, &parse(command, &rest)?),
        "history" => image::history(&context, &parse(command, &rest)?),
        "pull" => pull::pull(&context, &parse(command, &rest)?),
        "tag" => image::tag(&context, &parse(command, &rest)?),
        "rmi" => image::rmi(&context, &parse(command, &rest)?),
        "wasm" => wasm::wasm(&context, &parse(command, &rest)?),
        "info" => info::info(&context),
        "version" => info::version(),
        other => Err(Usage(format!("`{other}` is not a command (see `ketch --help`)")).into()),
    }
}

/// Compiles one module and ends: what front ends start this program again for.
fn compile_worker(args: &[&str]) -> anyhow::Result<u8> {
    let module = std::io::stdin().as_fd().try_clone_to_owned()?;
    let args = args.iter().map(std::ffi::OsString::from);
    runtime_wasm::worker::main(args, module.into(), std::io::stdout())?;
    Ok(0)
}

/// Parses the arguments of one subcommand.
fn parse<T: Args>(command: &str, args: &[&str]) -> anyhow::Result<T> {
    let about = COMMANDS
        .iter()
        .find(|(name, _)| *name == command)
        .map_or("", |(_, text)| *text);
    let parser = clap::Command::new("ketch")
        .bin_name(format!("ketch {command}"))
        .no_binary_name(true)
        .about(about)
        .disable_help_flag(true)
        .arg(
            clap::Arg::new("help")
                .long("help")
                .action(clap::ArgAction::Help)
                .help("Print this help"),
        );
    let matches = T::augment_args(parser).try_get_matches_from(args)?;
    Ok(T::from_arg_matches(&matches)?)
}

fn help() -> std::io::Result<()> {
    render::print("Usage: ketch [--root DIR] [--run DIR] COMMAND [ARG...]\n\nCommands:")?;
    for (name, about) in COMMANDS {
        render::print(&format!("  {name:<10}{about}"))?;
    }
    render::print("\n`ketch COMMAND --help` shows what a command takes.")
}
