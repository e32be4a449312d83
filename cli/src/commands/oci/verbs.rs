//! From a verb's options to the library's function.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use runtime::{Extent, OciPlan};
use runtime_native::oci::{
    self, Bundle, CgroupDriver, CreateOptions, ExecOptions, Log, OciError, Reach,
};

use super::args::{
    CreateArgs, DeleteArgs, ExecArgs, IdArgs, KillArgs, ListArgs, RunArgs, SpecArgs,
};
use super::global::{self, Global, VERBS};
use super::{checkpoint, update, wasm, watch};
use crate::embedded::EXECUTABLES;
use crate::render::{self, Usage};

/// Runs a verb.
pub(super) fn run(global: &Global, log: &Log, verb: &str, args: &[&str]) -> anyhow::Result<u8> {
    log.debug(&format!("{verb} {}", args.join(" ")));
    match verb {
        "create" => create(global, log, parse(verb, args)?),
        "run" => run_container(global, log, parse(verb, args)?),
        "exec" => exec(global, log, parse(verb, args)?),
        "start" => {
            let args: IdArgs = parse(verb, args)?;
            oci::start(&global.root.open(&args.id)?, log)?;
            Ok(0)
        }
        "state" => {
            let args: IdArgs = parse(verb, args)?;
            print_json(&oci::state(&global.root.open(&args.id)?)?)
        }
        "kill" => kill(global, &parse(verb, args)?),
        "delete" => {
            let args: DeleteArgs = parse(verb, args)?;
            oci::delete(&global.root, &args.id, args.force, log)?;
            Ok(0)
        }
        "pause" => {
            let args: IdArgs = parse(verb, args)?;
            oci::pause(&global.root.open(&args.id)?)?;
            Ok(0)
        }
        "resume" => {
            let args: IdArgs = parse(verb, args)?;
            oci::resume(&global.root.open(&args.id)?)?;
            Ok(0)
        }
        "ps" => watch::ps(global, &parse(verb, args)?),
        "events" => watch::events(global, &parse(verb, args)?),
        "update" => update::update(global, &parse(verb, args)?),
        "list" => list(global, &parse(verb, args)?),
        "spec" => spec(&parse(verb, args)?),
        "features" => print_json(&oci::features()),
        "checkpoint" => checkpoint::save(global, parse(verb, args)?),
        "restore" => checkpoint::restore(global, log, parse(verb, args)?),
        "--version" => {
            render::print(&format!("ketch-oci version {}", env!("CARGO_PKG_VERSION")))?;
            render::print(&format!("spec: {}", runtime_native::OCI_VERSION))?;
            Ok(0)
        }
        "help" | "--help" | "-h" => {
            global::help()?;
            Ok(0)
        }
        other => Err(Usage(format!("`{other}` is not a verb (see `ketch oci --help`)")).into()),
    }
}

fn parse<T: clap::Args>(verb: &str, args: &[&str]) -> anyhow::Result<T> {
    let about = VERBS.iter().find(|(name, _)| *name == verb);
    let parser = clap::Command::new("ketch")
        .bin_name(format!("ketch oci {verb}"))
        .no_binary_name(true)
        .about(about.map_or("", |(_, text)| *text));
    let matches = T::augment_args(parser).try_get_matches_from(args)?;
    Ok(T::from_arg_matches(&matches)?)
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<u8> {
    render::print(&serde_json::to_string_pretty(value)?)?;
    Ok(0)
}

fn absolute(path: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    path.map(|path| std::path::absolute(&path).context("cannot find the working directory"))
        .transpose()
}

/// The path of `ketch-init`.
fn init(global: &Global) -> anyhow::Result<PathBuf> {
    let exe = global.run.join("exe");
    EXECUTABLES
        .init_in(&exe)
        .with_context(|| format!("cannot put the small executables into `{}`", exe.display()))
}

/// Lets `ketch-init` take this process over.
fn hand_over(global: &Global, plan: &OciPlan) -> anyhow::Result<OciError> {
    Ok(oci::hand_over(&init(global)?, plan))
}

/// Who makes the control group of a new container.
fn driver(global: &Global) -> anyhow::Result<CgroupDriver> {
    Ok(match global.systemd_cgroup {
        true => {
            // Before anything is claimed.
            runtime_native::systemd::check()?;
            CgroupDriver::Systemd {
                init: init(global)?,
            }
        }
        false => CgroupDriver::Cgroupfs,
    })
}

fn create(global: &Global, log: &Log, args: CreateArgs) -> anyhow::Result<u8> {
    make(global, log, args, Extent::Create, RunOnly::default())
}

fn run_container(global: &Global, log: &Log, args: RunArgs) -> anyhow::Result<u8> {
    let extent = match args.detach {
        true => Extent::RunDetached,
        false => Extent::Run,
    };
    let only = RunOnly {
        keep: args.keep,
        trace: args.trace_steps,
    };
    make(global, log, args.create, extent, only)
}

/// What only `run` can be asked for.
#[derive(Default)]
struct RunOnly {
    keep: bool,
    trace: Option<PathBuf>,
}

fn make(
    global: &Global,
    log: &Log,
    args: CreateArgs,
    extent: Extent,
    only: RunOnly,
) -> anyhow::Result<u8> {
    let bundle = Bundle::read(&args.bundle)?;
    for warning in &bundle.warnings {
        log.warning(warning);
    }
    let options = CreateOptions {
        extent,
        console_socket: absolute(args.console_socket)?,
        pid_file: absolute(args.pid_file)?,
        pidfd_socket: absolute(args.pidfd_socket)?,
        preserve_fds: args.preserve_fds,
        driver: driver(global)?,
        no_pivot: args.no_pivot,
        keep: only.keep,
        trace: absolute(only.trace)?,
        log: global.log.clone(),
    };
    let wasm = |bundle: &Bundle| wasm::plan(global, bundle);
    let plan = oci::create(&global.root, &args.id, &bundle, &options, &wasm)?;
    let failed = hand_over(global, &plan);
    // Nothing has taken over, so nothing may stay.
    oci::delete(&global.root, &args.id, true, log)?;
    Err(failed?.into())
}

fn exec(global: &Global, log: &Log, args: ExecArgs) -> anyhow::Result<u8> {
    let container = global.root.open(&args.id)?;
    let mut process = match &args.process {
        Some(path) => Some(read_process(path, log)?),
        None => None,
    };
    if let Some(process) = &mut process
        && args.tty
    {
        process.set_terminal(Some(true));
    }
    if process.is_none() && args.args.is_empty() {
        return Err(Usage("`exec` needs a program, or `--process`".to_owned()).into());
    }
    let options = ExecOptions {
        process,
        user: args.user.as_deref().map(parse_user).transpose()?,
        args: args.args,
        cwd: args.cwd,
        env: args.env,
        tty: args.tty,
        additional_gids: args.additional_gids,
        cap: args.cap,
        process_label: args.process_label,
        apparmor: args.apparmor,
        no_new_privs: args.no_new_privs,
        ignore_paused: args.ignore_paused,
        detach: args.detach,
        console_socket: absolute(args.console_socket)?,
        pid_file: absolute(args.pid_file)?,
        pidfd_socket: absolute(args.pidfd_socket)?,
        preserve_fds: args.preserve_fds,
        cgroup: args.cgroup,
        log: global.log.clone(),
    };
    let plan = oci::exec(&container, &options)?;
    Err(hand_over(global, &plan)?.into())
}

fn read_process(path: &Path, log: &Log) -> anyhow::Result<oci_spec::runtime::Process> {
    let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let (process, warnings) = oci::parse_process(path, &bytes)?;
    for warning in &warnings {
        log.warning(warning);
    }
    Ok(process)
}

/// `UID[:GID]`: numbers alone, which no file of the container turns into others (S11).
fn parse_user(text: &str) -> anyhow::Result<(u32, Option<u32>)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text
            .parse::<u32>()
            .ok()
            .filter(|id| digits && *id < u32::MAX);
        number.ok_or_else(|| Usage(format!("`{text}` is not the number of a user or group")))
    };
    Ok(match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, Some(number(gid)?)),
        None => (number(text)?, None),
    })
}

fn kill(global: &Global, args: &KillArgs) -> anyhow::Result<u8> {
    let signal = runtime_native::signal_number(&args.signal)
        .ok_or_else(|| Usage(format!("`{}` is not a signal", args.signal)))?;
    let reach = match args.all {
        true => Reach::All,
        false => Reach::Init,
    };
    oci::kill(&global.root.open(&args.id)?, signal, reach)?;
    Ok(0)
}

fn list(global: &Global, args: &ListArgs) -> anyhow::Result<u8> {
    if global.is_root_named && !global.root.exists() {
        anyhow::bail!("cannot list the containers: the directory of `--root` does not exist");
    }
    let states = oci::list(&global.root)?;
    if args.quiet {
        for state in &states {
            render::print(&state.id)?;
        }
        return Ok(0);
    }
    match args.format.as_str() {
        "json" => render::print(&serde_json::to_string(&states)?)?,
        "table" => {
            let row = |state: &oci::State| {
                vec![
                    state.id.clone(),
                    state.pid.to_string(),
                    state.status.to_string(),
                    state.bundle.display().to_string(),
                    state.created.clone(),
                    state.owner.clone(),
                ]
            };
            let rows: Vec<_> = states.iter().map(row).collect();
            let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
            render::table(&header, &rows)?;
        }
        other => return Err(Usage(format!("invalid format option: `{other}`")).into()),
    }
    Ok(0)
}

fn spec(args: &SpecArgs) -> anyhow::Result<u8> {
    let path = args.bundle.join("config.json");
    let text = serde_json::to_vec_pretty(&oci::default_spec(args.rootless))?;
    let claimed = sys::durable::claim_file(&path, &text, sys::durable::Durability::Atomic);
    claimed.with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(0)
}
