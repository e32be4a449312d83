//! Namespaces that the parent joins for its child: pid and time hold for children only, and those of
//! another owner are out of reach for a child in a user namespace.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use runtime::InitPlan;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sys::clone::namespace;

use super::StartError;
use crate::init::{join_namespace, return_to};
use crate::prepare;

/// Gives the next child the clocks of the plan. The own time namespace, to return to.
pub(super) fn own_time(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    let mut namespaces = plan.namespaces.iter();
    let joined = namespaces.find(|n| n.flag == namespace::TIME && n.path.is_some());
    if let Some(path) = joined.and_then(|n| n.path.as_ref()) {
        let what = format!("join the namespace `{}`", path.to_string_lossy());
        return prepare::join_time_namespace(path)
            .map(Some)
            .map_err(|error| StartError::engine(&what, &error));
    }
    let Some(offsets) = &plan.time_offsets else {
        return Ok(None);
    };
    prepare::enter_time_namespace(offsets)
        .map(Some)
        .map_err(|error| StartError::engine("set the time namespace's offsets", &error))
}

/// Returns to it.
pub(super) fn leave_time(own: Option<OwnedFd>) -> Result<(), StartError> {
    own.map_or(Ok(()), |own| {
        prepare::leave_time_namespace(own.as_fd())
            .map_err(|error| StartError::engine("return to the host's time namespace", &error))
    })
}

/// The user namespace that is joined.
pub(super) fn joined_users(plan: &InitPlan) -> Option<&CString> {
    let users = plan.namespaces.iter().find(|n| n.flag == namespace::USER);
    users?.path.as_ref()
}

/// Joins a pid namespace by path: it holds for the children of this process.
pub(super) fn join_pid_namespace(plan: &InitPlan) -> Result<(), StartError> {
    let joined = plan
        .namespaces
        .iter()
        .find(|n| n.flag == namespace::PID && n.path.is_some());
    let Some(path) = joined.and_then(|n| n.path.as_ref()) else {
        return Ok(());
    };
    let failed = |e: Errno| StartError::engine("join the pid namespace", &e.into());
    let file = rustix::fs::open(&**path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let kind = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).map_err(failed)
}

/// The namespaces that this process has left for those of its next child.
#[derive(Debug, Default)]
pub(super) struct Visit {
    own: Vec<(u64, OwnedFd)>,
}

/// Kinds that can be left again, with their names below `/proc/self/ns`.
const VISITED: [(u64, &CStr); 4] = [
    (namespace::NET, c"/proc/self/ns/net"),
    (namespace::UTS, c"/proc/self/ns/uts"),
    (namespace::IPC, c"/proc/self/ns/ipc"),
    (namespace::CGROUP, c"/proc/self/ns/cgroup"),
];

/// Joins the namespaces of a container that has a user namespace: who is in that one has no right to
/// those that another owns (setns(2)). What this process has no right to either is left to the
/// child: it may belong to its user namespace.
pub(super) fn visit(plan: &InitPlan) -> Result<Visit, StartError> {
    let mut visit = Visit::default();
    if !plan.namespaces.iter().any(|n| n.flag == namespace::USER) {
        return Ok(visit);
    }
    for joined in &plan.namespaces {
        let own = VISITED.iter().find(|(flag, _)| *flag == joined.flag);
        let Some((path, (flag, own))) = joined.path.as_ref().zip(own) else {
            continue;
        };
        let result = rustix::fs::open(*own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|own| join_namespace(path, *flag).map(|()| own));
        match result {
            Ok(own) => visit.own.push((*flag, own)),
            Err(Errno::PERM) => {}
            Err(errno) => {
                visit.leave()?;
                let what = format!("join the namespace `{}`", path.to_string_lossy());
                return Err(StartError::engine(&what, &errno.into()));
            }
        }
    }
    Ok(visit)
}

impl Visit {
    /// The kinds that the next child is born into.
    pub(super) fn flags(&self) -> u64 {
        self.own.iter().fold(0, |flags, (flag, _)| flags | flag)
    }

    /// Returns to the own ones.
    pub(super) fn leave(&self) -> Result<(), StartError> {
        for (flag, own) in self.own.iter().rev() {
            return_to(own.as_fd(), *flag)
                .map_err(|e| StartError::engine("return to the host's namespaces", &e.into()))?;
        }
        Ok(())
    }
}
