//! `checkpoint` and `restore`.

use std::path::PathBuf;

use clap::Args;
use runtime_native::oci::{self, Bundle, CheckpointOptions};
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
}

impl ImageArgs {
    fn options(self, leave_running: bool) -> anyhow::Result<CheckpointOptions> {
        let work_path = self.work_path.map(std::path::absolute);
        Ok(CheckpointOptions {
            image_path: std::path::absolute(self.image_path)?,
            work_path: work_path.transpose()?,
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            leave_running,
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
    /// The container's id
    id: String,
}

/// Writes a container to files.
pub(super) fn save(global: &Global, args: CheckpointArgs) -> anyhow::Result<u8> {
    let options = args.image.options(args.leave_running)?;
    oci::checkpoint(&global.root.open(&args.id)?, &options)?;
    Ok(0)
}

/// Reads one back.
pub(super) fn restore(global: &Global, args: RestoreArgs) -> anyhow::Result<u8> {
    if !args.detach {
        let text = "`restore` needs `--detach`: a restored container has no terminal to stay at";
        return Err(Usage(text.to_owned()).into());
    }
    let options = args.image.options(false)?;
    let bundle = Bundle::read(&args.bundle)?;
    let pid = oci::restore(&global.root, &args.id, &bundle, &options)?;
    if let Some(path) = args.pid_file {
        durable::replace_file(&path, pid.to_string().as_bytes(), Durability::Atomic)?;
    }
    Ok(0)
}
