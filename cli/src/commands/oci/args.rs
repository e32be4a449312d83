//! The options of each verb.

use std::path::PathBuf;

use clap::Args;

/// Options of `create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The container's id
    pub(super) id: String,
    /// The bundle's directory
    #[arg(short, long, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// A socket that the terminal's master side is sent to
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// A socket that the pidfd of the container's process is sent to
    #[arg(long)]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// A file that the number of the container's process is written to
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting it
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// The session keyring is new in any case: accepted for callers that ask for none
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// So many further descriptors are passed on, from 3
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) create: CreateArgs,
    /// Return when the program runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Leave the container when it has ended
    #[arg(long)]
    pub(super) keep: bool,
    /// Add the steps of the start to a file: side, step, microseconds since it began
    #[arg(long)]
    pub(super) trace_steps: Option<PathBuf>,
    /// Subreaping is left to the caller: accepted
    #[arg(long)]
    pub(super) no_subreaper: bool,
}

/// A container.
#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// The container's id
    pub(super) id: String,
}

/// Options of `kill`.
#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// Signal every process of the container
    #[arg(short, long)]
    pub(super) all: bool,
    /// The container's id
    pub(super) id: String,
    /// The signal, by name or number
    #[arg(default_value = "SIGTERM")]
    pub(super) signal: String,
}

/// Options of `delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Kill it first; one that does not exist is no error
    #[arg(short, long)]
    pub(super) force: bool,
    /// The container's id
    pub(super) id: String,
}

/// Options of `exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// A socket that the terminal's master side is sent to
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// A socket that the pidfd of the program is sent to
    #[arg(long)]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// The working directory
    #[arg(long)]
    pub(super) cwd: Option<PathBuf>,
    /// A variable, `KEY=value` (can be repeated)
    #[arg(short, long)]
    pub(super) env: Vec<String>,
    /// Give the program a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// The user, `UID[:GID]`
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// A further group (can be repeated)
    #[arg(short = 'g', long)]
    pub(super) additional_gids: Vec<u32>,
    /// A file with a whole `process` object
    #[arg(short, long)]
    pub(super) process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// A file that the program's number is written to
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// A label of SELinux
    #[arg(long)]
    pub(super) process_label: Option<String>,
    /// A profile of AppArmor
    #[arg(long)]
    pub(super) apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// A capability to add (can be repeated)
    #[arg(short, long)]
    pub(super) cap: Vec<String>,
    /// So many further descriptors are passed on, from 3
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// A control group below the container's own, `[CONTROLLER,...:]PATH` (can be repeated)
    #[arg(long)]
    pub(super) cgroup: Vec<String>,
    /// Also in a paused container
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// The container's id
    pub(super) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

/// Options of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// `table` or `json`
    #[arg(short, long, default_value = "table")]
    pub(super) format: String,
    /// Print the ids alone
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// Options of `spec`.
#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// The directory to write `config.json` to
    #[arg(short, long, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// For a user who is not root
    #[arg(long)]
    pub(super) rootless: bool,
}

/// Options of `ps`.
#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// `table` or `json`
    #[arg(short, long, default_value = "table")]
    pub(super) format: String,
    /// The container's id
    pub(super) id: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

/// Options of `events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Print what it uses now, once
    #[arg(long)]
    pub(super) stats: bool,
    /// Time between two reports: `5s`, `500ms`, `1m`
    #[arg(long, default_value = "5s")]
    pub(super) interval: String,
    /// The container's id
    pub(super) id: String,
}

/// Options of `update`.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// A file with a `resources` object, `-` for standard input
    #[arg(short, long)]
    pub(super) resources: Option<PathBuf>,
    /// Weight of block I/O
    #[arg(long)]
    pub(super) blkio_weight: Option<u16>,
    /// Microseconds of a period of CPU time
    #[arg(long)]
    pub(super) cpu_period: Option<u64>,
    /// Microseconds of CPU time in a period
    #[arg(long, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// Microseconds of a real-time period
    #[arg(long)]
    pub(super) cpu_rt_period: Option<u64>,
    /// Microseconds of real time in each period
    #[arg(long)]
    pub(super) cpu_rt_runtime: Option<i64>,
    /// Microseconds of CPU time that may be saved up
    #[arg(long)]
    pub(super) cpu_burst: Option<u64>,
    /// Weight of CPU time
    #[arg(long)]
    pub(super) cpu_share: Option<u64>,
    /// 1 for a container that gets CPU time nobody else wants
    #[arg(long)]
    pub(super) cpu_idle: Option<i64>,
    /// CPUs to run on
    #[arg(long)]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    pub(super) cpuset_mems: Option<String>,
    /// Memory, as 64m or bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory: Option<String>,
    /// Memory that is left when it is scarce
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory_reservation: Option<String>,
    /// Memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Processes and threads
    #[arg(long, allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// The container's id
    pub(super) id: String,
}
