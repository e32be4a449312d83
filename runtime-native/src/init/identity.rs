//! Who the program is and what it may do: namespaces to join, limits, seccomp, user, capabilities.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use runtime::ProcessPlan;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::{Announce, At, Result, paths, rootfs};
use crate::step::Step;

/// Becomes user and group 0 of a new user namespace.
pub(super) fn become_root() -> Result<()> {
    // Where `setgroups` is denied the groups stay as they are.
    match set_thread_groups(&[]) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).at(Step::UserNamespace),
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at(Step::UserNamespace)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at(Step::UserNamespace)
}

/// Joins the namespace behind `path`, which must be of the kind `flag`.
pub(crate) fn join(path: &CStr, flag: u64) -> std::result::Result<(), Errno> {
    let Some(kind) = kind_of(flag)? else {
        return Ok(());
    };
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))
}

/// Joins a namespace of the kind `flag` that was open before.
pub(crate) fn return_to(file: BorrowedFd<'_>, flag: u64) -> std::result::Result<(), Errno> {
    rustix::thread::move_into_link_name_space(file, kind_of(flag)?)
}

fn kind_of(flag: u64) -> std::result::Result<Option<LinkNameSpaceType>, Errno> {
    Ok(Some(match flag {
        sys::clone::namespace::MOUNT => LinkNameSpaceType::Mount,
        sys::clone::namespace::UTS => LinkNameSpaceType::HostNameAndNISDomainName,
        sys::clone::namespace::IPC => LinkNameSpaceType::InterProcessCommunication,
        sys::clone::namespace::NET => LinkNameSpaceType::Network,
        sys::clone::namespace::CGROUP => LinkNameSpaceType::ControlGroup,
        // Joined by the parent: the pid namespace holds for children only, and a time namespace may
        // be the host's, where a user namespace has no say.
        sys::clone::namespace::PID | sys::clone::namespace::TIME => return Ok(None),
        _ => return Err(Errno::INVAL),
    }))
}

/// A cgroup namespace rooted at the groups that were entered.
pub(super) fn unshare_cgroup() -> std::result::Result<(), Errno> {
    sys::clone::unshare_cgroup()
}

/// Resource limits, the file mode mask, and how the kernel schedules the program.
pub(super) fn set_limits(process: &ProcessPlan) -> Result<()> {
    set_scheduling(process).at(Step::Scheduling)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    for (index, limit) in process.rlimits.iter().enumerate() {
        let (mut soft, mut hard) = (limit.soft, limit.hard);
        if limit.clamp {
            let (_, ceiling) = sys::exec::rlimit(limit.resource).at_item(Step::Rlimit, index)?;
            hard = hard.min(ceiling);
            soft = soft.min(hard);
        }
        sys::exec::set_rlimit(limit.resource, soft, hard).at_item(Step::Rlimit, index)?;
    }
    Ok(())
}

fn set_scheduling(process: &ProcessPlan) -> std::result::Result<(), Errno> {
    if let Some(domain) = process.personality {
        sys::schedule::set_personality(domain)?;
    }
    if let Some(priority) = process.io_priority {
        sys::schedule::set_io_priority(priority)?;
    }
    if let Some(policy) = &process.memory_policy {
        sys::schedule::set_memory_policy(policy.mode, &policy.nodes)?;
    }
    if let Some(mask) = &process.affinity.last {
        sys::schedule::set_cpu_affinity(mask)?;
    }
    if let Some(scheduler) = &process.scheduler {
        sys::schedule::set_scheduler(sys::schedule::SchedulerAttributes {
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        })?;
    }
    Ok(())
}

/// Writes `/proc/self/oom_score_adj`. A value below the inherited one needs `CAP_SYS_RESOURCE`; the
/// inherited one then stays.
pub(super) fn set_oom_score_adj(
    procfs: BorrowedFd<'_>,
    value: i32,
) -> std::result::Result<(), Errno> {
    let mut buffer = [0; 12];
    let text = paths::decimal(value, &mut buffer);
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    match paths::write_own(procfs, c"oom_score_adj", text) {
        Err(Errno::ACCESS) => Ok(()),
        other => other,
    }
}

/// The label that the program gets when it is executed.
pub(super) fn set_exec_label(procfs: BorrowedFd<'_>, process: &ProcessPlan) -> Result<()> {
    match &process.exec_label {
        Some((file, label)) => paths::write_own(procfs, file, label.to_bytes()).at(Step::ExecLabel),
        None => Ok(()),
    }
}

/// Takes on user, groups and capabilities, loads the filter and enters the working directory.
///
/// Without `no_new_privs` a filter needs `CAP_SYS_ADMIN`, so it is loaded first and must allow what
/// follows; with it the filter comes last.
pub(super) fn assume(process: &ProcessPlan, announce: &Announce<'_>) -> Result<()> {
    match sys::exec::join_new_session_keyring() {
        // No keys here, none left to this user, or forbidden: the program has no keyring then.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::DQUOT | Errno::ACCESS) => {}
        Err(errno) => return Err(errno).at(Step::Capabilities),
    }
    // Before the user changes: a directory that only root may enter is an error either way, but
    // one on a file system that refuses root (NFS) is entered below.
    let entered = rustix::process::chdir(&*process.cwd);
    if entered.is_ok() {
        // A filter may refuse `getcwd`.
        check_cwd()?;
    }
    if !process.no_new_privileges {
        load_seccomp(process, announce)?;
    }
    let capabilities = &process.capabilities;
    let bounding = drop_bounding(capabilities.bounding)?;
    rustix::thread::set_keep_capabilities(true).at(Step::Capabilities)?;
    let mut groups = [Gid::ROOT; MAX_GROUPS];
    let groups = group_list(&process.groups, &mut groups)?;
    match set_thread_groups(groups) {
        Ok(()) => {}
        Err(Errno::PERM) if groups.is_empty() => {}
        Err(errno) => return Err(errno).at(Step::Groups),
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    set_thread_res_gid(gid, gid, gid).at(Step::User)?;
    set_thread_res_uid(uid, uid, uid).at(Step::User)?;
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(capabilities.effective & bounding),
        permitted: CapabilitySet::from_bits_retain(capabilities.permitted & bounding),
        inheritable: CapabilitySet::from_bits_retain(capabilities.inheritable & bounding),
    };
    rustix::thread::set_capabilities(None, sets).at(Step::Capabilities)?;
    rustix::thread::set_keep_capabilities(false).at(Step::Capabilities)?;
    set_ambient(capabilities.ambient & bounding)?;
    if entered.is_err() {
        rustix::process::chdir(&*process.cwd).at(Step::Chdir)?;
        check_cwd()?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
        load_seccomp(process, announce)?;
    }
    Ok(())
}

/// As [`assume`], with the limits and the label that a container's init has set before.
pub(crate) fn assume_exec(process: &ProcessPlan, announce: &Announce<'_>) -> Result<()> {
    set_limits(process)?;
    if process.exec_label.is_some() || process.oom_score_adj.is_some() {
        // Not the container's procfs, which may be anything by now (CVE-2025-52881).
        let procfs = rootfs::new_procfs().at(Step::Procfs)?;
        if let Some(value) = process.oom_score_adj {
            set_oom_score_adj(procfs.as_fd(), value).at(Step::OomScoreAdj)?;
        }
        set_exec_label(procfs.as_fd(), process)?;
    }
    assume(process, announce)
}

/// As many supplementary groups as fit without a heap.
const MAX_GROUPS: usize = 256;

fn group_list<'a>(from: &[u32], to: &'a mut [Gid; MAX_GROUPS]) -> Result<&'a [Gid]> {
    let to = to
        .get_mut(..from.len())
        .ok_or(Errno::INVAL)
        .at(Step::Groups)?;
    for (to, from) in to.iter_mut().zip(from) {
        *to = Gid::from_raw(*from);
    }
    Ok(to)
}

fn load_seccomp(process: &ProcessPlan, announce: &Announce<'_>) -> Result<()> {
    if process.seccomp.is_empty() {
        return Ok(());
    }
    let loaded = sys::exec::load_seccomp(&process.seccomp, process.seccomp_flags);
    match loaded.at(Step::Seccomp)? {
        Some(notifications) => announce.listener(&notifications),
        None => Ok(()),
    }
}

/// Drops what is not in `keep` and gives what is left: a process without some capability (root
/// without `CAP_SYS_RESOURCE`) passes on what it has.
fn drop_bounding(keep: u64) -> Result<u64> {
    let mut left = 0;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if keep & (1 << bit) != 0 => left |= 1 << bit,
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)
                .at(Step::Capabilities)?,
            Ok(false) => {}
            // The kernel's last capability was passed.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).at(Step::Capabilities),
        }
    }
    let have = rustix::thread::capabilities(None).at(Step::Capabilities)?;
    Ok(left & have.permitted.bits())
}

fn set_ambient(keep: u64) -> Result<()> {
    rustix::thread::clear_ambient_capability_set().at(Step::Capabilities)?;
    for bit in 0..64 {
        if keep & (1 << bit) != 0 {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            rustix::thread::configure_capability_in_ambient_set(capability, true)
                .at(Step::Capabilities)?;
        }
    }
    Ok(())
}

/// The working directory must be inside the root: a descriptor of the host that leaked in would be
/// a way out (CVE-2024-21626). The kernel says "(unreachable)" for what is not below the root.
fn check_cwd() -> Result<()> {
    let inside = sys::path::current_dir_is_inside().at(Step::CwdOutside)?;
    if inside {
        Ok(())
    } else {
        Err(Errno::NOENT).at(Step::CwdOutside)
    }
}
