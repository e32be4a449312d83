//! Everything that the kernel counts for one group.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::controller::cpu::{self, CpuStats};
use super::controller::hugetlb::{self, HugetlbStats};
use super::controller::io::{self as block_io, IoStats};
use super::controller::memory::{self, MemoryStats};
use super::controller::pids::{self, PidsStats};
use super::controller::rdma::{self, RdmaStats};
use super::error::CgroupError;
use super::group::Group;
use super::read::{self, Pressure};

/// What a group uses and has used. A part whose controller the group does not have is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory and swap.
    pub memory: Option<MemoryStats>,
    /// Processes and threads.
    pub pids: Option<PidsStats>,
    /// Block devices.
    pub io: Option<IoStats>,
    /// Huge pages, by size.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// RDMA, by device.
    pub rdma: BTreeMap<String, RdmaStats>,
    /// Pressure of processors (v2, with PSI switched on).
    pub cpu_pressure: Option<Pressure>,
    /// Pressure of memory.
    pub memory_pressure: Option<Pressure>,
    /// Pressure of block devices.
    pub io_pressure: Option<Pressure>,
}

impl Group {
    /// Reads what the group uses and has used.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        Ok(Stats {
            cpu: self.part("cpu", cpu::stats(self))?,
            memory: self.part("memory", memory::stats(self))?,
            pids: self.part("pids", pids::stats(self))?,
            io: self.part("blkio", block_io::stats(self))?,
            hugetlb: self.part("hugetlb", hugetlb::stats(self))?,
            rdma: self.part("rdma", rdma::stats(self))?,
            cpu_pressure: self.pressure("cpu.pressure")?,
            memory_pressure: self.pressure("memory.pressure")?,
            io_pressure: self.pressure("io.pressure")?,
        })
    }

    fn pressure(&self, name: &str) -> Result<Option<Pressure>, CgroupError> {
        let Some(dir) = self.unified_dir() else {
            return Ok(None);
        };
        let file = PathBuf::from(dir).join(name);
        read::pressure(&file).map_err(|source| CgroupError::Read { file, source })
    }

    fn part<T>(&self, controller: &str, read: io::Result<T>) -> Result<T, CgroupError> {
        read.map_err(|source| CgroupError::Read {
            file: PathBuf::from(self.dir(controller).unwrap_or_default()),
            source,
        })
    }
}
