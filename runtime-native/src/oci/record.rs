//! What is known about containers: one directory each.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use sys::durable::{self, Durability};

use super::OciError;
use super::host_mounts::{self, HostMount};
use crate::cgroup::Group;
use crate::plan::{self, Hierarchy};

/// The version of `state.json`.
const VERSION: u32 = 1;

/// Ids are names of directories, and of control groups.
const MAX_ID: usize = 1024;

pub(super) const STATE: &str = "state.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const START: &str = "start";
pub(super) const REPORT: &str = "report";

/// The directory of all containers of one root (`--root`).
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// Names the directory. Nothing is made.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Claims an id: a directory that nobody else has.
    pub(super) fn claim(&self, id: &str) -> Result<PathBuf, OciError> {
        check_id(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true);
        let made = builder.create(&self.dir);
        made.map_err(OciError::io("make the directory", &self.dir))?;
        let dir = self.dir.join(id);
        match builder.recursive(false).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(OciError::Exists(id.to_owned()))
            }
            other => other
                .map(|()| dir.clone())
                .map_err(OciError::io("make the directory", dir)),
        }
    }

    /// The container `id`.
    ///
    /// # Errors
    /// [`OciError::NotFound`], or a state file that cannot be read.
    pub fn open(&self, id: &str) -> Result<Container, OciError> {
        check_id(id)?;
        let dir = self.dir.join(id);
        let path = dir.join(STATE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OciError::NotFound(id.to_owned()));
            }
            Err(error) => return Err(OciError::io("read", path)(error)),
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|source| OciError::Json { path, source })?;
        if record.version != VERSION {
            return Err(OciError::Version {
                id: id.to_owned(),
                version: record.version,
            });
        }
        Ok(Container { dir, record })
    }

    /// Whether the directory is there: it is made for the first container.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, OciError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(OciError::io("read the directory", &self.dir)(error)),
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join(STATE).exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes what an interrupted `create` has left: a directory without a state.
    pub(super) fn discard(&self, id: &str) -> Result<(), OciError> {
        check_id(id)?;
        let dir = self.dir.join(id);
        durable::remove_tree(&dir).map_err(OciError::io("remove", dir))
    }
}

fn check_id(id: &str) -> Result<(), OciError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let is_name = !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(allowed);
    if is_name && id != "." && id != ".." {
        Ok(())
    } else {
        Err(OciError::Id(id.to_owned()))
    }
}

/// `state.json`: who the container is and where its process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub(super) version: u32,
    pub(super) oci_version: String,
    pub(super) id: String,
    /// Absent while the container is being made.
    pub(super) pid: Option<i32>,
    /// Of that process: the number alone may be another's by now.
    pub(super) start_time: Option<u64>,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) created: String,
    /// The user who made it.
    pub(super) owner: u32,
    /// The scope that systemd has made for it; none when its control group is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<Scope>,
    /// What was mounted below its root before, when it shares the host's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mounts_before: Option<Vec<HostMount>>,
}

/// A scope of systemd.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
    /// Its unit.
    pub(super) unit: String,
    /// Its group on v2, with a leading slash.
    pub(super) control_group: String,
}

impl Record {
    pub(super) fn new(spec: &Spec, id: &str, bundle: &Path, rootfs: &Path) -> Self {
        Self {
            version: VERSION,
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            pid: None,
            start_time: None,
            bundle: bundle.to_path_buf(),
            rootfs: rootfs.to_path_buf(),
            created: state::clock::now(),
            owner: rustix::process::geteuid().as_raw(),
            scope: None,
            mounts_before: None,
        }
    }

    /// Unmounts what the container has left in the host's mount namespace, and gives what stays.
    pub(super) fn remove_mounts(&self) -> Vec<String> {
        let before = self.mounts_before.as_deref();
        before.map_or_else(Vec::new, |before| {
            host_mounts::remove_new(&self.rootfs, before)
        })
    }

    /// Writes it into the container's directory.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        // A boot ends every container: nothing has to outlast a power cut.
        durable::replace_file(&dir.join(STATE), &bytes, Durability::Atomic)
    }
}

/// A container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// Everything but its program is there.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// One container.
#[derive(Debug)]
pub struct Container {
    pub(super) dir: PathBuf,
    pub(super) record: Record,
}

impl Container {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Its init, when it is alive.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let (pid, start) = (self.record.pid?, self.record.start_time?);
        sys::process::is_alive(pid, start).then_some(pid)
    }

    /// Its state.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.record.pid.is_none() {
            return Status::Creating;
        }
        if self.pid().is_none() {
            return Status::Stopped;
        }
        if self.dir.join(START).exists() {
            return Status::Created;
        }
        match self.is_frozen() {
            true => Status::Paused,
            false => Status::Running,
        }
    }

    /// The specification that it was made from.
    ///
    /// # Errors
    /// When the file is gone or no specification.
    pub fn spec(&self) -> Result<Spec, OciError> {
        let path = self.dir.join(CONFIG);
        let bytes = fs::read(&path).map_err(OciError::io("read", &path))?;
        super::bundle::parse(&path, &bytes).map(|(spec, _)| spec)
    }

    /// Its control groups, as they were planned.
    pub(super) fn cgroup(&self, spec: &Spec) -> Result<runtime::CgroupPlan, OciError> {
        let hierarchy: Hierarchy = plan::detect();
        let scope = self.record.scope.as_ref();
        let scope = scope.map(|scope| scope.control_group.as_str());
        Ok(plan::cgroup_of(spec, &self.record.id, &hierarchy, scope)?)
    }

    /// Everything that was planned for it.
    pub(super) fn plan(&self, spec: &Spec) -> Result<runtime::InitPlan, OciError> {
        let hierarchy: Hierarchy = plan::detect();
        let scope = self.record.scope.as_ref();
        let bundle = self.record.bundle.to_string_lossy();
        let options = plan::Options {
            rootfs: runtime::RootfsPlan::Directory {
                path: super::create::c_path(&self.record.rootfs)?,
                readonly: false,
            },
            scope: scope.map(|scope| scope.control_group.as_str()),
            ..plan::bare_options(&self.record.id, &hierarchy, &bundle)
        };
        Ok(plan::plan(spec, options)?)
    }

    /// The same as a group that can be watched and changed.
    pub(super) fn group(&self, spec: &Spec) -> Result<Group, OciError> {
        if let Some(scope) = &self.record.scope {
            return Ok(Group::of_scope(&scope.control_group));
        }
        let path = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_deref());
        let path = path.filter(|path| !path.as_os_str().is_empty());
        Ok(Group::new(&plan::detect(), path, &self.record.id)?)
    }

    fn is_frozen(&self) -> bool {
        let group = self.spec().and_then(|spec| self.group(&spec));
        group.is_ok_and(|group| group.is_frozen().unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_that_is_no_plain_name_is_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(1025)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        check_id("abc-1.2_3+4").unwrap();
    }

    #[test]
    fn id_is_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("root"));
        root.claim("one").unwrap();
        assert!(matches!(root.claim("one"), Err(OciError::Exists(_))));
        assert!(matches!(root.open("one"), Err(OciError::NotFound(_))));
        assert!(root.ids().unwrap().is_empty());
    }
}
