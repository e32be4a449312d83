//! One container's control group: a directory in each hierarchy.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::CgroupError;
use super::hierarchy::{Hierarchy, ROOT};
use super::{apply, read};
use crate::plan::PlanError;

/// The directory of ketch's own that holds all containers' groups.
pub(super) const PARENT: &str = "ketch";

/// The control group of one container. A name, not a lock: the group may be gone at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    hierarchy: Hierarchy,
    /// Below the hierarchy's base, without a leading slash.
    path: String,
}

impl Group {
    /// The group of the container `id`: at `cgroups_path` where the specification has one
    /// (runtime-spec v1.2 `config-linux.md#cgroups-path`), a relative one below ketch's own subtree,
    /// and `ketch/<id>` otherwise.
    ///
    /// # Errors
    /// A path that names a parent directory, or none.
    pub fn new(
        hierarchy: &Hierarchy,
        cgroups_path: Option<&Path>,
        id: &str,
    ) -> Result<Self, PlanError> {
        let path = match cgroups_path {
            None => format!("{PARENT}/{id}"),
            Some(path) => specified(path)?,
        };
        Ok(Self {
            hierarchy: hierarchy.clone(),
            path,
        })
    }

    /// The group that systemd has made, by its path on v2 with a leading slash.
    #[must_use]
    pub(crate) fn of_scope(control_group: &str) -> Self {
        let (base, name) = control_group
            .rsplit_once('/')
            .unwrap_or(("", control_group));
        Self {
            // Its slice knows what controllers it can have.
            hierarchy: Hierarchy::Unified {
                base: base.to_owned(),
            },
            path: name.to_owned(),
        }
    }

    /// The hierarchies that it is in.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Its path below the hierarchy's base, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The directory where `controller` is limited and counted. On v2 it is the same for all.
    pub(super) fn dir(&self, controller: &str) -> Option<String> {
        match &self.hierarchy {
            Hierarchy::None => None,
            Hierarchy::Unified { base } => Some(format!("{ROOT}{base}/{}", self.path)),
            Hierarchy::Legacy { .. } => {
                let name = self.hierarchy.legacy_dir(controller)?;
                Some(format!("{ROOT}/{name}/{}", self.path))
            }
        }
    }

    /// The directory in the v2 hierarchy, also in the one beside v1.
    pub(super) fn unified_dir(&self) -> Option<String> {
        match &self.hierarchy {
            Hierarchy::Unified { base } => Some(format!("{ROOT}{base}/{}", self.path)),
            Hierarchy::Legacy { unified: true, .. } => {
                Some(format!("{ROOT}/unified/{}", self.path))
            }
            Hierarchy::None | Hierarchy::Legacy { .. } => None,
        }
    }

    /// A file of `controller`, by the file's own prefix: `memory.max` is the memory controller's.
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        let controller = name.split('.').next()?;
        Some(PathBuf::from(self.dir(controller)?).join(name))
    }

    /// Any directory of the group that exists: where processes are listed.
    fn listing_dir(&self) -> Option<PathBuf> {
        let legacy = match &self.hierarchy {
            Hierarchy::Legacy { controllers, .. } => controllers.as_slice(),
            Hierarchy::None | Hierarchy::Unified { .. } => &[],
        };
        let legacy = legacy
            .iter()
            .map(|name| format!("{ROOT}/{name}/{}", self.path));
        let mut dirs = self.unified_dir().into_iter().chain(legacy);
        dirs.find(|dir| Path::new(dir).is_dir()).map(PathBuf::from)
    }

    /// The processes of the group and of the groups below it.
    ///
    /// # Errors
    /// When the group cannot be listed. One that is gone has no process.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        match self.listing_dir() {
            None => Ok(Vec::new()),
            Some(dir) => processes_below(&dir).map_err(|source| CgroupError::Read {
                file: dir.join("cgroup.procs"),
                source,
            }),
        }
    }

    /// Kills every process of the group and of the groups below it: at once by `cgroup.kill` where
    /// the kernel has it (Linux 5.14, v2), else one by one until none is left. Frozen ones too.
    ///
    /// # Errors
    /// When the group cannot be listed or written to. One that is gone is no error.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let Some(dir) = self.listing_dir() else {
            return Ok(());
        };
        apply::kill_below(&dir)
            .and_then(|()| self.thaw_if_frozen())
            .map_err(|source| CgroupError::Act {
                action: "kill",
                group: dir,
                source,
            })
    }

    /// How often the kernel killed a process of the group for want of memory; 0 when nobody counts.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.oom_file()
            .map_or(0, |file| read::key(&file, "oom_kill"))
    }

    /// Where `oom_kill` is counted: v1 `memory.oom_control` or v2 `memory.events`, which can also be
    /// watched.
    #[must_use]
    pub fn oom_file(&self) -> Option<PathBuf> {
        match self.hierarchy {
            Hierarchy::None => None,
            Hierarchy::Unified { .. } => self.file("memory.events"),
            Hierarchy::Legacy { .. } => self.file("memory.oom_control"),
        }
    }
}

/// Checks a `linux.cgroupsPath`.
fn specified(path: &Path) -> Result<String, PlanError> {
    let refuse = || PlanError::Unknown {
        field: "linux.cgroupsPath",
        value: path.display().to_string(),
    };
    let mut parts = if path.is_absolute() {
        Vec::new()
    } else {
        vec![PARENT]
    };
    let own = parts.len();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(refuse)?),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refuse()),
        }
    }
    if parts.len() == own {
        return Err(refuse());
    }
    Ok(parts.join("/"))
}

/// The processes in `dir` and below.
pub(super) fn processes_below(dir: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        match fs::read_to_string(dir.join("cgroup.procs")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(error) if read::is_gone(&error) => continue,
            Err(error) => return Err(error),
        }
        dirs.extend(children(&dir));
    }
    Ok(found)
}

/// The groups right below a group.
pub(super) fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_without_a_path_is_in_our_own_subtree() {
        let hierarchy = Hierarchy::Unified {
            base: "/user.slice".to_owned(),
        };
        let group = Group::new(&hierarchy, None, "abc").unwrap();
        assert_eq!(group.path(), "ketch/abc");
        let file = group.file("memory.max").unwrap();
        assert_eq!(
            file,
            Path::new("/sys/fs/cgroup/user.slice/ketch/abc/memory.max")
        );
    }

    #[test]
    fn group_of_a_scope_is_where_systemd_has_made_it() {
        let group = Group::of_scope("/system.slice/ketch-abc.scope");
        let dir = group.unified_dir().unwrap();
        assert_eq!(dir, "/sys/fs/cgroup/system.slice/ketch-abc.scope");
        let file = group.file("memory.max").unwrap();
        assert!(file.starts_with(dir));
    }

    #[test]
    fn cgroups_path_is_taken_beneath_the_root_or_refused() {
        let path = |text: &str| {
            let group = Group::new(&Hierarchy::None, Some(Path::new(text)), "abc");
            group.map(|group| group.path)
        };
        assert_eq!(path("/docker/x").unwrap(), "docker/x");
        assert_eq!(path("pod/x").unwrap(), "ketch/pod/x");
        for bad in ["/", ".", "", "/a/../../b", "../x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn legacy_file_is_in_the_hierarchy_that_holds_its_controller() {
        let hierarchy = Hierarchy::Legacy {
            controllers: vec!["cpu,cpuacct".to_owned(), "memory".to_owned()],
            unified: false,
        };
        let group = Group::new(&hierarchy, None, "abc").unwrap();
        let file = group.file("cpuacct.usage").unwrap();
        assert_eq!(
            file,
            Path::new("/sys/fs/cgroup/cpu,cpuacct/ketch/abc/cpuacct.usage")
        );
        assert_eq!(group.file("pids.max"), None);
    }
}
