//! `ketch pause`, `unpause` and `update`.

use clap::Args;
use engine::{Changes, Engine};

use super::Invocation;
use super::lifecycle::{Names, each};
use super::options::{bytes, nano_cpus, restart_policy};
use crate::render::Usage;

/// Options of `update`, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Memory limit, in bytes or with a unit: b, k, m, g
    #[arg(short, long)]
    memory: Option<String>,
    /// Memory and swap together; -1 without limit
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is left to it when the host runs short
    #[arg(long)]
    memory_reservation: Option<String>,
    /// How many processors, such as 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// Weight against other containers (default 1024)
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Period of the quota, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Quota, in microseconds of each period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors, such as 0-2,7
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// How many processes; -1 without limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Start it again when it ends: `no`, `on-failure[:N]`, `always` or `unless-stopped`
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[command(flatten)]
    names: Names,
}

impl UpdateArgs {
    fn changes(&self) -> anyhow::Result<Changes> {
        let size = |text: &Option<String>| text.as_deref().map(bytes).transpose();
        let changes = Changes {
            memory_bytes: size(&self.memory)?,
            memory_swap_bytes: match self.memory_swap.as_deref() {
                Some("-1") => Some(-1),
                _ => size(&self.memory_swap)?,
            },
            memory_reservation_bytes: size(&self.memory_reservation)?,
            nano_cpus: self.cpus.map(nano_cpus).transpose()?,
            cpu_shares: self.cpu_shares,
            cpu_period_us: self.cpu_period,
            cpu_quota_us: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            restart: self.restart.as_deref().map(restart_policy).transpose()?,
        };
        if changes == Changes::default() {
            return Err(
                Usage("nothing is to be changed: give at least one option".to_owned()).into(),
            );
        }
        Ok(changes)
    }
}

/// Stops all processes of containers where they are.
pub(crate) fn pause(context: &Invocation, args: &Names) -> anyhow::Result<u8> {
    each(context, args, Engine::pause)
}

/// Lets them go on.
pub(crate) fn unpause(context: &Invocation, args: &Names) -> anyhow::Result<u8> {
    each(context, args, Engine::unpause)
}

/// Changes limits and restart policies.
pub(crate) fn update(context: &Invocation, args: &UpdateArgs) -> anyhow::Result<u8> {
    let changes = args.changes()?;
    each(context, &args.names, |engine, container| {
        engine.update(container, &changes)
    })
}
