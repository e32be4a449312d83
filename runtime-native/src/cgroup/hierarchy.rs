//! What control groups this host has.

use std::fs;
use std::path::Path;

/// Where cgroupfs is mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The v1 controllers whose groups every container enters where they are mounted.
const ALWAYS: [&str; 8] = [
    "cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio",
];

/// The v1 controllers whose groups a container enters when a limit needs them.
const ON_DEMAND: [&str; 4] = ["hugetlb", "rdma", "net_cls", "net_prio"];

/// The control groups of this host, as far as this user may use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// None can be made: not mounted, or not this user's.
    None,
    /// v2 alone.
    Unified {
        /// The group below `/sys/fs/cgroup` that ketch's own subtree is made in, with a leading
        /// slash: empty for root, the delegated group for an ordinary user.
        base: String,
    },
    /// v1, with or without a v2 hierarchy beside it.
    Legacy {
        /// Directories below `/sys/fs/cgroup` that are v1 hierarchies. One of several controllers
        /// is named after all of them: `cpu,cpuacct`.
        controllers: Vec<String>,
        /// The v2 hierarchy beside them, without controllers: for `cgroup.kill`, `CLONE_INTO_CGROUP`
        /// and a device filter.
        unified: bool,
    },
}

impl Hierarchy {
    /// The v1 directory that holds `controller`.
    pub(super) fn legacy_dir(&self, controller: &str) -> Option<&str> {
        let Self::Legacy { controllers, .. } = self else {
            return None;
        };
        let mut names = controllers.iter().map(String::as_str);
        names.find(|name| name.split(',').any(|part| part == controller))
    }
}

/// Whether a container enters the group of this v1 hierarchy even without a limit in it.
pub(super) fn is_always_entered(name: &str) -> bool {
    name.split(',').any(|part| ALWAYS.contains(&part))
}

/// Looks at `/sys/fs/cgroup`.
#[must_use]
pub fn detect() -> Hierarchy {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return match delegated() {
            Some(base) => Hierarchy::Unified { base },
            None => Hierarchy::None,
        };
    }
    if !is_writable(root) {
        return Hierarchy::None;
    }
    let controllers = legacy_hierarchies(root);
    if controllers.is_empty() {
        return Hierarchy::None;
    }
    let unified = root.join("unified/cgroup.procs").exists();
    Hierarchy::Legacy {
        controllers,
        unified,
    }
}

fn legacy_hierarchies(root: &Path) -> Vec<String> {
    let known = |name: &str| {
        let mut parts = name.split(',');
        parts.any(|part| ALWAYS.contains(&part) || ON_DEMAND.contains(&part))
    };
    let mut names: Vec<String> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        // `cpu` is a link to `cpu,cpuacct` where both are one hierarchy.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| known(name) && root.join(name).join("cgroup.procs").exists())
        .collect();
    names.sort_unstable();
    names
}

/// The topmost v2 group between the root and this process's own that this user may make groups in,
/// enable controllers in and move processes into (cgroups(7), "Delegation").
fn delegated() -> Option<String> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A process outside this cgroup namespace shows as `/../…`: only the root is known then.
    let own = if own.contains("/..") { "/" } else { own };
    let mut base = String::new();
    let mut rest = own.split('/').filter(|part| !part.is_empty());
    loop {
        let dir = Path::new(ROOT).join(base.trim_start_matches('/'));
        let files = ["", "cgroup.procs", "cgroup.subtree_control"];
        if files.iter().all(|file| is_writable(&dir.join(file))) {
            return Some(base);
        }
        base = format!("{base}/{}", rest.next()?);
    }
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        rustix::fs::Access::WRITE_OK,
        rustix::fs::AtFlags::EACCESS,
    )
    .is_ok()
}
