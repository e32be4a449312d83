//! The subcommands, one a file. Only the chosen one's parser is built: a full tree of parsers costs
//! more than a container's mounts.

mod artifacts;
mod attach;
mod bench;
mod build;
mod builder;
mod change;
mod check;
mod cid_file;
mod container_record;
mod context;
mod cp;
mod daemon;
mod df;
mod dial;
mod diff;
mod disk;
mod events;
mod exec;
mod foreground;
mod groups;
mod health_options;
mod history;
mod image;
mod image_tools;
mod images;
mod info;
mod inspect;
mod isolation_options;
mod lifecycle;
mod limit_options;
mod login;
mod logs;
mod manifest;
mod mount_options;
mod mount_records;
mod network;
mod network_options;
mod network_settings;
mod oci;
mod options;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod registry_lists;
mod registry_options;
mod restart;
mod run;
mod search;
mod socket;
mod stats;
mod system;
mod top;
mod volume;
mod wasm;
mod wasm_options;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;

use ::image::{LayerForm, Store, UnpackMode};
use anyhow::Context;
use clap::Args;
use engine::{Engine, EngineError, Executables, UserNamespace, UserNamespaceError};
use state::Layout;

use crate::embedded::EXECUTABLES;
use crate::remote::{self, Chosen};
use crate::render::{self, Usage};
use crate::settings::{FLAGS, Settings};

pub(crate) use cp::{Place, place};
pub(crate) use exec::split_name;
pub(crate) use foreground::{ForegroundArgs, detach_keys};
pub(crate) use image::size;
pub(crate) use options::{bytes_of, environment, nano_cpus, restart_policy};
pub(crate) use registry_options::credential_path;

/// Every subcommand with what it does, in the order of the help.
const COMMANDS: &[(&str, &str)] = &[
    ("run", "Create and start a container"),
    ("create", "Create a container without starting it"),
    ("start", "Start stopped containers"),
    ("exec", "Run a further program in a running container"),
    ("attach", "Join the streams of a running container"),
    ("ps", "List containers"),
    ("logs", "Show the output of a container"),
    ("events", "Show what happens"),
    ("stop", "Stop running containers"),
    ("restart", "Stop containers and start them again"),
    ("kill", "Send a signal to running containers"),
    (
        "wait",
        "Wait until containers end and print their exit codes",
    ),
    ("pause", "Stop all processes of containers where they are"),
    ("unpause", "Let the processes of paused containers go on"),
    ("update", "Change limits and restart policies of containers"),
    ("rm", "Remove containers"),
    ("rename", "Give a container another name"),
    (
        "inspect",
        "Show everything about containers, images, networks or volumes",
    ),
    ("port", "Show published ports"),
    ("top", "Show the processes of a container"),
    ("stats", "Show what containers use"),
    ("cp", "Copy files between a container and the host"),
    ("diff", "Show what a container has changed of its image"),
    ("export", "Write the files of a container to an archive"),
    ("commit", "Make an image of a container"),
    (
        "container",
        "More about containers: prune, and all of these",
    ),
    ("network", "Create, list and remove networks"),
    ("volume", "Create, list and remove volumes"),
    ("build", "Make an image from a Dockerfile"),
    ("builder", "What builds keep: prune, du, inspect"),
    ("images", "List images"),
    ("load", "Load images from an archive"),
    ("import", "Make an image from a root file system archive"),
    ("pull", "Get an image from a registry"),
    ("push", "Send an image to a registry"),
    ("login", "Prove to a registry who you are"),
    ("logout", "Forget who you are for a registry"),
    ("search", "Look for images in a registry"),
    (
        "manifest",
        "Make indexes: create, annotate, inspect, push, rm",
    ),
    (
        "image",
        "More about images: prune, convert, diff, mount, unmount, wrap, ls --tree, tags, referrers",
    ),
    (
        "system",
        "About the whole: df, prune, info, check, events, start, install-units, dial-stdio",
    ),
    ("save", "Write images to an archive"),
    ("tag", "Give an image another name"),
    ("rmi", "Remove images"),
    ("history", "Show how an image came to be"),
    ("wasm", "Look at modules, compile them, make images of them"),
    (
        "bench",
        "Measure what isolation costs, beside the peers that are installed; compare",
    ),
    ("daemon", "Serve Docker's API"),
    (
        "context",
        "Daemons with a name: create, use, ls, rm, inspect, export, import",
    ),
    (
        "socket",
        "Sockets that allow a part of Docker's API: create, ls, rm",
    ),
    ("info", "Show the settings and what this host can do"),
    ("version", "Show the version"),
    (
        "oci",
        "Act as an OCI runtime for Docker, podman and containerd",
    ),
];

/// What every subcommand has.
pub(crate) struct Invocation {
    pub(crate) settings: Settings,
}

impl Invocation {
    /// The engine on the directories of the settings.
    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        if !rustix::process::geteuid().is_root() {
            self.rescue_orphans()?;
        }
        self.engine_with(UserNamespace::enter)
    }

    /// The engine beside the program of a container whose monitor was killed, for another one.
    pub(crate) fn engine_for_rescue(&self, pid: Option<i32>) -> anyhow::Result<Engine> {
        match pid {
            Some(pid) if !rustix::process::geteuid().is_root() => {
                self.engine_with(|layout, _| UserNamespace::join(layout, pid))
            }
            _ => self.engine_with(UserNamespace::enter),
        }
    }

    /// An ordinary user's containers whose monitors were killed get others from processes that enter
    /// their user namespaces: from one of its own this process could not.
    fn rescue_orphans(&self) -> anyhow::Result<()> {
        let (layout, ketch) = self.places()?;
        for orphan in engine::orphans(&layout)? {
            let status = std::process::Command::new(&ketch)
                .arg("--root")
                .arg(layout.root())
                .arg("--run")
                .arg(layout.run())
                .arg(system::RESCUE)
                .arg(&orphan.id)
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .status();
            // What it could not do it has said.
            status.context("cannot start the process that takes a container over")?;
        }
        Ok(())
    }

    /// The engine for work inside a running container: an ordinary user's process enters the
    /// container's user namespace instead of a new one.
    pub(crate) fn engine_of(&self, container: &str) -> anyhow::Result<Engine> {
        if rustix::process::geteuid().is_root() {
            return self.engine();
        }
        self.rescue_orphans()?;
        let (layout, ketch) = self.places()?;
        let store = Store::open(&layout, UnpackMode::default())?;
        let outside = Engine::new(layout, store, EXECUTABLES, ketch)?;
        let pid = outside.container(container)?.state.pid;
        match pid {
            Some(pid) => self.engine_with(|layout, _| UserNamespace::join(layout, pid)),
            // It does not run: then its files are all there is of it.
            None => {
                drop(outside);
                self.engine()
            }
        }
    }

    /// The engine for a container beside another one: an ordinary user's process enters the other's
    /// user namespace when it runs, or a new one.
    pub(crate) fn engine_beside(&self, container: &str) -> anyhow::Result<Engine> {
        let other = self.engine_of(container)?;
        // In the other's user namespace this process is root.
        if rustix::process::geteuid().is_root() {
            return Ok(other);
        }
        self.engine()
    }

    fn engine_with(
        &self,
        enter: impl FnOnce(&Layout, &Executables) -> Result<UserNamespace, UserNamespaceError>,
    ) -> anyhow::Result<Engine> {
        let (layout, ketch) = self.places()?;
        if rustix::process::geteuid().is_root() {
            let store = Store::open(&layout, UnpackMode::default())?;
            let store = store.with_layer_form(self.layer_form(&layout)?);
            return Ok(Engine::new(layout, store, EXECUTABLES, ketch)?);
        }
        let namespace = enter(&layout, &EXECUTABLES).map_err(EngineError::from)?;
        let mode = UnpackMode {
            userns: true,
            flat_owner: namespace.is_single(),
        };
        let store = Store::open(&layout, mode)?;
        Ok(Engine::new(layout, store, EXECUTABLES, ketch)?.in_user_namespace(namespace))
    }

    pub(crate) fn layer_form(&self, layout: &Layout) -> Result<LayerForm, Usage> {
        match self.settings.get(&crate::settings::LAYERS) {
            "auto" => Ok(LayerForm::best(layout)),
            "directory" => Ok(LayerForm::Directory),
            "erofs" => Ok(LayerForm::Erofs),
            other => Err(Usage(format!(
                "`{other}` is not a form of layers: there are auto, directory and erofs"
            ))),
        }
    }

    pub(crate) fn places(&self) -> anyhow::Result<(Layout, PathBuf)> {
        let root = PathBuf::from(self.settings.get(&crate::settings::ROOT));
        let run = PathBuf::from(self.settings.get(&crate::settings::RUN));
        let layout = Layout::open(root, run).map_err(EngineError::from)?;
        let ketch = std::env::current_exe().context("cannot find my own program")?;
        Ok((layout, ketch))
    }
}

/// Runs the subcommand that the arguments name.
pub(crate) fn dispatch(args: &[String]) -> anyhow::Result<u8> {
    if let Some((program, rest)) = args.split_first()
        && oci::is_runtime(program)
    {
        return oci::dispatch(&rest.iter().map(String::as_str).collect::<Vec<_>>());
    }
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
            "-H" | "-c" => {
                let key = if arg == "-H" { "host" } else { "context" };
                let value = rest.next().cloned();
                let value = value.with_context(|| format!("the flag `{arg}` needs a value"))?;
                flags.insert(key.to_owned(), value);
            }
            text if text.starts_with("--") => {
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (text, rest.next().cloned()),
                };
                let key = key.trim_start_matches('-').to_owned();
                if !FLAGS.contains(&key.as_str()) {
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
    if command == "oci" {
        return oci::dispatch(&rest);
    }
    let context = Invocation {
        settings: Settings::resolve(&flags)?,
    };
    if let Some(result) = groups::help(command, &rest) {
        return result;
    }
    if !is_here(command, &rest)
        && let Some(chosen) = Chosen::of(&context.settings)?
    {
        return remote::at_daemon(chosen, command, &rest);
    }
    if let Some(result) = artifacts::dispatch(&context, command, &rest) {
        return result;
    }
    let (command, rest) = ungroup(command, rest)?;
    match command {
        runtime_wasm::worker::SUBCOMMAND => compile_worker(&rest),
        runtime::COMPRESS => compress_log(&rest),
        system::RESCUE => system::rescue(&context, &rest),
        "run" => run::run(&context, &parse(command, &rest)?),
        "create" => run::create(&context, &parse(command, &rest)?),
        "start" => lifecycle::start(&context, &parse(command, &rest)?),
        "events" => events::events(&context, &parse(command, &rest)?),
        "exec" => exec::exec(&context, &parse(command, &rest)?),
        "attach" => attach::attach(&context, &parse(command, &rest)?),
        "stop" => lifecycle::stop(&context, &parse(command, &rest)?),
        "kill" => lifecycle::kill(&context, &parse(command, &rest)?),
        "pause" => change::pause(&context, &parse(command, &rest)?),
        "unpause" => change::unpause(&context, &parse(command, &rest)?),
        "update" => change::update(&context, &parse(command, &rest)?),
        "wait" => lifecycle::wait(&context, &parse(command, &rest)?),
        "rm" => lifecycle::rm(&context, &parse(command, &rest)?),
        "inspect" => inspect::inspect(&context, &parse(command, &rest)?),
        "container inspect" => inspect::container(&context, &parse(command, &rest)?),
        "container prune" => prune::container(&context, &parse(command, &rest)?),
        "system check" => check::check(&context, &parse(command, &rest)?),
        "system prune" => prune::system(&context, &parse(command, &rest)?),
        "restart" => restart::restart(&context, &parse(command, &rest)?),
        "rename" => restart::rename(&context, &parse(command, &rest)?),
        "top" => top::top(&context, &parse(command, &rest)?),
        "stats" => stats::stats(&context, &parse(command, &rest)?),
        "cp" => cp::cp(&context, &parse(command, &rest)?),
        "diff" => diff::diff(&context, &parse(command, &rest)?),
        "export" => diff::export(&context, &parse(command, &rest)?),
        "commit" => diff::commit(&context, &parse(command, &rest)?),
        "image inspect" => inspect::image(&context, &parse(command, &rest)?),
        "daemon" => daemon::daemon(&context, &parse(command, &rest)?),
        "system start" => system::start(&context, &parse(command, &rest)?),
        "context" => context::context(&context, &rest),
        "system dial-stdio" => dial::dial(&context, &parse(command, &rest)?),
        "system install-units" => system::install_units(&context, &parse(command, &rest)?),
        "build" => build::build(&context, &parse(command, &rest)?),
        "builder" => builder::builder(&context, &rest),
        "ps" => ps::ps(&context, &parse(command, &rest)?),
        "network" => network::network(&context, &rest),
        "socket" => socket::socket(&context, &rest),
        "volume" => volume::volume(&context, &rest),
        "port" => port::port(&context, &parse(command, &rest)?),
        "logs" => logs::logs(&context, &parse(command, &rest)?),
        "images" => images::images(&context, &parse(command, &rest)?),
        "load" => image::load(&context, &parse(command, &rest)?),
        "save" => image::save(&context, &parse(command, &rest)?),
        "import" => image::import(&context, &parse(command, &rest)?),
        "history" => history::history(&context, &parse(command, &rest)?),
        "pull" => pull::pull(&context, &parse(command, &rest)?),
        "tag" => image::tag(&context, &parse(command, &rest)?),
        "rmi" => image::rmi(&context, &parse(command, &rest)?),
        "bench" => bench::bench(&context, &rest),
        "wasm" => wasm::wasm(&context, &parse(command, &rest)?),
        "info" => info::info(&context, &parse(command, &rest)?),
        "version" => info::version(&parse(command, &rest)?),
        other => Err(Usage(format!("`{other}` is not a command (see `ketch --help`)")).into()),
    }
}

/// Whether a command is about this host whatever the settings say: daemons and how they are reached,
/// and what this program starts itself again for.
fn is_here(command: &str, rest: &[&str]) -> bool {
    const HERE: [&str; 6] = [
        "context",
        "daemon",
        "socket",
        runtime_wasm::worker::SUBCOMMAND,
        runtime::COMPRESS,
        disk::EMPTY_TRASH,
    ];
    const OF_SYSTEM: [&str; 3] = ["dial-stdio", "install-units", "start"];
    let is_of_system = rest.first().is_some_and(|verb| OF_SYSTEM.contains(verb));
    HERE.contains(&command) || (command == "system" && is_of_system)
}

/// The other spelling of commands: by the kind of object that they work on.
const GROUPED: [(&str, &str, &str); 47] = [
    ("image", "build", "build"),
    ("image", "ls", "images"),
    ("image", "list", "images"),
    ("image", "rm", "rmi"),
    ("image", "remove", "rmi"),
    ("image", "inspect", "image inspect"),
    ("image", "history", "history"),
    ("image", "import", "import"),
    ("image", "load", "load"),
    ("image", "pull", "pull"),
    ("image", "save", "save"),
    ("image", "tag", "tag"),
    ("container", "ls", "ps"),
    ("container", "list", "ps"),
    ("container", "ps", "ps"),
    ("container", "attach", "attach"),
    ("container", "create", "create"),
    ("container", "exec", "exec"),
    ("container", "commit", "commit"),
    ("container", "cp", "cp"),
    ("container", "diff", "diff"),
    ("container", "export", "export"),
    ("container", "inspect", "container inspect"),
    ("container", "port", "port"),
    ("container", "prune", "container prune"),
    ("container", "rename", "rename"),
    ("container", "restart", "restart"),
    ("container", "stats", "stats"),
    ("container", "top", "top"),
    ("container", "kill", "kill"),
    ("container", "logs", "logs"),
    ("container", "remove", "rm"),
    ("container", "rm", "rm"),
    ("container", "run", "run"),
    ("container", "start", "start"),
    ("container", "pause", "pause"),
    ("container", "stop", "stop"),
    ("container", "unpause", "unpause"),
    ("container", "update", "update"),
    ("container", "wait", "wait"),
    ("system", "check", "system check"),
    ("system", "dial-stdio", "system dial-stdio"),
    ("system", "events", "events"),
    ("system", "info", "info"),
    ("system", "install-units", "system install-units"),
    ("system", "prune", "system prune"),
    ("system", "start", "system start"),
];

/// The plain spelling of `image ls` and its like.
fn ungroup<'a>(command: &'a str, mut rest: Vec<&'a str>) -> Result<(&'a str, Vec<&'a str>), Usage> {
    if !["image", "container", "system"].contains(&command) {
        return Ok((command, rest));
    }
    let Some(verb) = rest.first().copied() else {
        let text = format!("`{command}` needs a command, such as `{command} ls`");
        return Err(Usage(text));
    };
    let plain = GROUPED
        .iter()
        .find(|(group, name, _)| *group == command && *name == verb)
        .ok_or_else(|| {
            Usage(format!(
                "`{command} {verb}` is not a command (see `ketch --help`)"
            ))
        })?;
    rest.remove(0);
    Ok((plain.2, rest))
}

/// The exit code of a failure that has none of its own. Where a program's own code is what comes
/// back, the engine's is another one than all but a few programs have.
pub(crate) fn failure_code(args: &[String]) -> u8 {
    const RUNNING: [&str; 5] = ["run", "create", "start", "exec", "attach"];
    let command = args.iter().skip(1).find(|arg| {
        let arg = arg.as_str();
        COMMANDS.iter().any(|(name, _)| *name == arg)
    });
    match command {
        Some(command) if RUNNING.contains(&command.as_str()) => runtime::code::ENGINE,
        _ => 1,
    }
}

/// Compiles one module and ends: what front ends start this program again for.
fn compile_worker(args: &[&str]) -> anyhow::Result<u8> {
    let module = std::io::stdin().as_fd().try_clone_to_owned()?;
    let args = args.iter().map(std::ffi::OsString::from);
    runtime_wasm::worker::main(args, module.into(), std::io::stdout())?;
    Ok(0)
}

/// Compresses one file of a log: what monitors start this program for.
fn compress_log(args: &[&str]) -> anyhow::Result<u8> {
    let [file] = args else {
        return Err(Usage("one file of a log is needed".to_owned()).into());
    };
    engine::compress_log(std::path::Path::new(file))
        .with_context(|| format!("cannot compress `{file}`"))?;
    Ok(0)
}

/// Parses the arguments of one subcommand.
fn parse<T: Args>(command: &str, args: &[&str]) -> anyhow::Result<T> {
    let about = COMMANDS
        .iter()
        .find(|(name, _)| *name == command)
        .map_or("", |(_, text)| *text);
    parse_named(command, about, args)
}

/// The same for a command of a group.
pub(crate) fn parse_named<T: Args>(
    command: &str,
    about: &'static str,
    args: &[&str],
) -> anyhow::Result<T> {
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

/// The help of a group of commands.
fn group_help(group: &str, commands: &[(&str, &str)]) -> anyhow::Result<u8> {
    render::print(&format!(
        "Usage: ketch {group} COMMAND [ARG...]\n\nCommands:"
    ))?;
    for (name, about) in commands {
        render::print(&format!("  {name:<12}{about}"))?;
    }
    Ok(0)
}

fn help() -> std::io::Result<()> {
    render::print(
        "Usage: ketch [--root DIR] [--run DIR] [-H HOST | -c CONTEXT] [--tls-path DIR] COMMAND [ARG...]\n\nCommands:",
    )?;
    for (name, about) in COMMANDS {
        render::print(&format!("  {name:<10}{about}"))?;
    }
    render::print("\n`ketch COMMAND --help` shows what a command takes.")
}
