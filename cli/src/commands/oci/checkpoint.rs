//! `checkpoint` and `restore`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use runtime_native::oci::{
    self, Bundle, CgroupMode, CheckpointOptions, CriuOptions, Log, RestoreOptions,
};
use sys::durable::{self, Durability};

use super::global::Global;
use crate::render::Usage;

/// What both directions have.
#[derive(Debug, Args)]
struct ImageArgs {
    /// The directory of criu's files
    #[arg(long, default_value = "checkpoint")]
    image_path: PathBuf,
    /// The directory of criu's logs
    #[arg(long)]
    work_path: Option<PathBuf>,
    /// Open TCP connections are allowed
    #[arg(long)]
    tcp_established: bool,
    /// Sockets that lead outside are allowed
    #[arg(long)]
    ext_unix_sk: bool,
    /// Terminals from outside are allowed
    #[arg(long)]
    shell_job: bool,
    /// File locks are allowed
    #[arg(long)]
    file_locks: bool,
    /// What criu does about control groups
    #[arg(long, value_enum, default_value = "ignore")]
    manage_cgroups_mode: Mode,
    /// Leave out what is in a namespace: `network` (can be repeated)
    #[arg(long)]
    empty_ns: Vec<String>,
    /// Pages that are in two sets of files are left in one
    #[arg(long)]
    auto_dedup: bool,
    /// Refused: pages are read back at once
    #[arg(long)]
    lazy_pages: bool,
}

/// What criu does about control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Make those that are missing
    Soft,
    /// Make all, and set everything in them
    Full,
    /// Those that are there already are an error
    Strict,
    /// Nothing: they are this runtime's
    Ignore,
}

impl ImageArgs {
    fn options(self, global: &Global) -> anyhow::Result<CriuOptions> {
        if self.lazy_pages {
            let text = "`--lazy-pages` is not supported: a container would run without its memory";
            return Err(Usage(text.to_owned()).into());
        }
        if let Some(name) = self.empty_ns.iter().find(|name| *name != "network") {
            let text = format!("`--empty-ns` takes `network`, not `{name}`");
            return Err(Usage(text).into());
        }
        let work_path = self.work_path.map(std::path::absolute);
        Ok(CriuOptions {
            criu: global.criu.clone(),
            image_path: std::path::absolute(self.image_path)?,
            work_path: work_path.transpose()?,
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            cgroups: Some(match self.manage_cgroups_mode {
                Mode::Soft => CgroupMode::Soft,
                Mode::Full => CgroupMode::Full,
                Mode::Strict => CgroupMode::Strict,
                Mode::Ignore => CgroupMode::Ignore,
            }),
            empty_network: !self.empty_ns.is_empty(),
        })
    }
}

/// Options of `checkpoint`.
#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// The container goes on
    #[arg(long)]
    leave_running: bool,
    /// Save memory alone, for a later checkpoint to build upon; the container goes on
    #[arg(long)]
    pre_dump: bool,
    /// Earlier files that these build upon, relative to them
    #[arg(long)]
    parent_path: Option<PathBuf>,
    /// Send pages to `ADDRESS:PORT`
    #[arg(long)]
    page_server: Option<String>,
    /// The container's id
    id: String,
}

/// Options of `restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// The bundle's directory
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Return when its processes run
    #[arg(short, long)]
    detach: bool,
    /// A file that the number of the container's process is written to
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// A label of a security module, `TYPE:NAME`
    #[arg(long)]
    lsm_profile: Option<String>,
    /// A context of SELinux for mounts
    #[arg(long)]
    lsm_mount_context: Option<String>,
    /// Subreaping is left to the caller: accepted
    #[arg(long)]
    no_subreaper: bool,
    /// The container's id
    id: String,
}

/// Writes a container to files.
pub(super) fn save(global: &Global, args: CheckpointArgs) -> anyhow::Result<u8> {
    let page_server = args.page_server.as_deref().map(address).transpose()?;
    let options = CheckpointOptions {
        criu: args.image.options(global)?,
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        parent_path: args.parent_path,
        page_server,
    };
    oci::checkpoint(&global.root.open(&args.id)?, &options)?;
    Ok(0)
}

fn address(text: &str) -> anyhow::Result<(String, u16)> {
    let parsed = text
        .rsplit_once(':')
        .and_then(|(address, port)| Some((address.to_owned(), port.parse().ok()?)));
    parsed.with_context(|| format!("`--page-server` takes `ADDRESS:PORT`, not `{text}`"))
}

/// Reads one back.
pub(super) fn restore(global: &Global, log: &Log, args: RestoreArgs) -> anyhow::Result<u8> {
    if !args.detach {
        let text = "`restore` needs `--detach`: a restored container has no terminal to stay at";
        return Err(Usage(text.to_owned()).into());
    }
    if global.systemd_cgroup {
        let text = "`restore` cannot use `--systemd-cgroup`: criu makes the processes";
        return Err(Usage(text.to_owned()).into());
    }
    let options = RestoreOptions {
        criu: args.image.options(global)?,
        lsm_profile: args.lsm_profile,
        lsm_mount_context: args.lsm_mount_context,
    };
    let bundle = Bundle::read(&args.bundle)?;
    for warning in &bundle.warnings {
        log.warning(warning);
    }
    let pid = oci::restore(&global.root, &args.id, &bundle, &options, log)?;
    if let Some(path) = args.pid_file {
        durable::replace_file(&path, pid.to_string().as_bytes(), Durability::Atomic)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(0)
}
