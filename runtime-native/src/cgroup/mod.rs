//! Control groups: cgroup v1 (also hybrid) and v2 with the cgroupfs driver.
//!
//! ```text
//! hierarchy    what this host has, and where this user may make groups
//! group        one container's group: its directory in each hierarchy
//! plan         specification -> CgroupPlan, in front ends
//! apply        CgroupPlan -> groups made, killed, removed, in ketch-init
//! enter        a process moves itself into the v1 groups
//! controller/  one file each: limits of v1 and v2, and what is counted
//! stats        everything that is counted, of one group
//! update       new limits for a running container
//! freeze       pause and resume
//! ```
//!
//! A limit that the kernel has no controller for is an error that names both. Values that other
//! runtimes read as "not set" (a quota, period or share of 0) are read so here.

mod apply;
mod controller;
mod enter;
mod error;
mod freeze;
mod group;
mod hierarchy;
mod limits;
mod plan;
mod read;
mod stats;
mod update;

pub use apply::{create, kill, oom_kills, processes, remove};
pub use controller::cpu::CpuStats;
pub use controller::hugetlb::HugetlbStats;
pub use controller::io::{IoDeviceStats, IoStats};
pub use controller::memory::MemoryStats;
pub use controller::pids::PidsStats;
pub use controller::rdma::RdmaStats;
pub use enter::Entrances;
pub use error::CgroupError;
pub use freeze::{freeze, thaw};
pub use group::Group;
pub use hierarchy::{Hierarchy, detect};
pub use read::{Pressure, Stall};
pub use stats::Stats;
pub use update::{Change, apply_change};

pub(crate) use plan::plan;
