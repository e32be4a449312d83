//! One controller a file, all of the same shape: `legacy` and `unified` turn the specification's
//! resources into writes (runtime-spec v1.2 `config-linux.md#control-groups`), `*_stats` read what
//! the kernel counts.

pub(super) mod cpu;
mod cpuset;
mod device_filter;
pub(super) mod devices;
pub(super) mod hugetlb;
pub(super) mod io;
pub(super) mod memory;
mod network;
pub(super) mod pids;
pub(super) mod rdma;
mod unified;

use oci_spec::runtime::{LinuxBlockIo, LinuxNetwork, LinuxResources};

use super::hierarchy::ROOT;
use super::limits::Limits;
use crate::plan::PlanError;

pub(super) use cpuset::inherited as cpuset_inherited;

/// What one controller does with the resources.
pub(super) type Step = fn(&LinuxResources, &mut Limits<'_>) -> Result<(), PlanError>;

/// The controllers of v1.
pub(super) const LEGACY: [Step; 10] = [
    devices::legacy,
    memory::legacy,
    cpu::legacy,
    cpuset::legacy,
    pids::legacy,
    io::legacy,
    hugetlb::legacy,
    rdma::legacy,
    network::legacy,
    unified::legacy,
];

/// The controllers of v2. `unified` comes last: what it names by file wins.
pub(super) const UNIFIED: [Step; 10] = [
    devices::unified,
    memory::unified,
    cpu::unified,
    cpuset::unified,
    pids::unified,
    io::unified,
    hugetlb::unified,
    rdma::unified,
    network::unified,
    unified::unified,
];

/// A limit that nobody can enforce must not be promised. The device list is no limit of that kind:
/// who may make no group may open no device either.
pub(super) fn refuse(
    resources: &LinuxResources,
    _limits: &mut Limits<'_>,
) -> Result<(), PlanError> {
    let memory = resources.memory().is_some_and(|memory| {
        let limits = [memory.limit(), memory.reservation(), memory.swap()];
        limits.into_iter().flatten().any(|bytes| bytes >= 0)
            || memory.swappiness().is_some()
            || memory.disable_oom_killer() == Some(true)
    });
    let cpu = resources.cpu().as_ref().is_some_and(|cpu| {
        let lists = [cpu.cpus(), cpu.mems()];
        cpu.shares().is_some_and(|shares| shares != 0)
            || cpu.quota().is_some_and(|quota| quota > 0)
            || cpu.idle().is_some_and(|idle| idle != 0)
            || cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
            || lists.into_iter().flatten().any(|list| !list.is_empty())
    });
    let io = resources.block_io().as_ref();
    let network = resources.network().as_ref();
    let asked = [
        (memory, "linux.resources.memory (--memory)"),
        (cpu, "linux.resources.cpu (--cpus)"),
        (
            resources.pids().is_some_and(|pids| pids.limit() > 0),
            "linux.resources.pids (--pids-limit)",
        ),
        (
            io.is_some_and(|io| *io != LinuxBlockIo::default()),
            "linux.resources.blockIO",
        ),
        (
            resources
                .hugepage_limits()
                .iter()
                .flatten()
                .next()
                .is_some(),
            "linux.resources.hugepageLimits",
        ),
        (
            resources.rdma().iter().flatten().next().is_some(),
            "linux.resources.rdma",
        ),
        (
            network.is_some_and(|network| *network != LinuxNetwork::default()),
            "linux.resources.network",
        ),
        (
            resources.unified().iter().flatten().next().is_some(),
            "linux.resources.unified",
        ),
    ];
    match asked.into_iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, option)) => Err(PlanError::Unavailable {
            option: option.to_owned(),
            why: format!("no control group below `{ROOT}` is writable for this user"),
        }),
    }
}

/// `max` for what is below zero.
fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}
