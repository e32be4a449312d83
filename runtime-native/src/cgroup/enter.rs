//! Entering the v1 groups. The process does it itself: the kernel moves a thread that writes `0` into
//! `tasks` at once, while a process that is moved by another one first waits for an RCU grace period,
//! 5 to 18 ms (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c, Linux 5.5). The v2 group is
//! entered by the clone.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use runtime::StartFailure;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::apply::{failure, inherit_cpuset, path};

/// The `tasks` of each group, opened by the parent: a container's init sees no control groups.
#[derive(Debug)]
pub struct Entrances(Vec<OwnedFd>);

impl Entrances {
    /// Opens what [`enter`](Self::enter) needs.
    ///
    /// # Errors
    /// The group that cannot be opened.
    pub fn open(tasks: &[CString]) -> Result<Self, StartFailure> {
        let open = |tasks: &CString| {
            // A cpuset without processors cannot be entered: one whose parent is not ours, and does
            // not hand its own down.
            if tasks.to_string_lossy().contains("cpuset") {
                inherit_cpuset(path(tasks).parent().unwrap_or(Path::new("")), 0);
            }
            rustix::fs::open(&**tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| failure("enter the cgroup", tasks, &errno.into()))
        };
        tasks.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Moves the calling process, which has one thread, into all of them. Async-signal-safe.
    ///
    /// # Errors
    /// The index of the group that could not be entered, and why.
    pub fn enter(&self) -> Result<(), (usize, Errno)> {
        for (index, tasks) in self.0.iter().enumerate() {
            rustix::io::write(tasks, b"0").map_err(|errno| (index, errno))?;
        }
        Ok(())
    }
}
