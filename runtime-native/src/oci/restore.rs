//! `restore`: a container whose processes are those that `checkpoint` has saved.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use sys::clone::namespace;
use sys::durable::{self, Durability};

use super::checkpoint::DESCRIPTORS;
use super::criu::{CriuOptions, external_mounts, refuse_terminal};
use super::record::{CONFIG, Record};
use super::{Bundle, Container, Log, OciError, Root};
use crate::cgroup;
use crate::hooks::{self, HookState};
use crate::init::return_to;
use crate::plan;

const WHAT: &str = "restore the container";

/// How it is read back.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// How criu is used.
    pub criu: CriuOptions,
    /// A label of a security module in the place of the saved one, `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// A context of SELinux for mounts in the place of the saved one.
    pub lsm_mount_context: Option<String>,
}

/// Makes a container of a bundle whose processes are those that were saved; gives its process, which
/// is a child of nobody's: it goes to the caller's subreaper.
///
/// # Errors
/// As [`super::checkpoint`], and what is wrong with the id or the bundle. Nothing is left then.
pub fn restore(
    root: &Root,
    id: &str,
    bundle: &Bundle,
    options: &RestoreOptions,
    log: &Log,
) -> Result<i32, OciError> {
    options.criu.require("restore a container")?;
    refuse_terminal(&bundle.spec, WHAT)?;
    refuse_hooks(&bundle.spec)?;
    let hooks = plan::hooks_of(&bundle.spec, id, &bundle.dir.to_string_lossy())?;
    let dir = root.claim(id)?;
    let container = restore_into(&dir, id, bundle, options).inspect_err(|_| {
        // The first error is the one to report.
        drop(root.discard(id));
    })?;
    let state = HookState::new(&hooks.about, "running", container.record.pid);
    let started = hooks::run_all(&hooks.poststart, &state).map_err(OciError::Start);
    let started = started.and_then(|()| {
        container.pid().ok_or_else(|| OciError::Unsupported {
            what: WHAT.to_owned(),
            why: "its process has ended".to_owned(),
        })
    });
    if started.is_err() {
        for failure in super::delete::destroy(&container, &bundle.spec, &hooks) {
            log.warning(&failure);
        }
    }
    started
}

/// They would have to run between two steps of criu's.
fn refuse_hooks(spec: &Spec) -> Result<(), OciError> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let lists = [
        (hooks.prestart(), "hooks.prestart"),
        (hooks.create_runtime(), "hooks.createRuntime"),
        (hooks.create_container(), "hooks.createContainer"),
        (hooks.start_container(), "hooks.startContainer"),
    ];
    match lists
        .iter()
        .find(|(list, _)| list.iter().flatten().next().is_some())
    {
        None => Ok(()),
        Some((_, field)) => Err(OciError::Unsupported {
            what: WHAT.to_owned(),
            why: format!("`{field}` cannot run: the container is made by criu"),
        }),
    }
}

fn restore_into(
    dir: &Path,
    id: &str,
    bundle: &Bundle,
    options: &RestoreOptions,
) -> Result<Container, OciError> {
    let config = dir.join(CONFIG);
    durable::replace_file(&config, &bundle.config, Durability::Atomic)
        .map_err(OciError::io("write", config))?;
    let mut container = Container {
        dir: dir.to_path_buf(),
        record: Record::new(&bundle.spec, id, &bundle.dir, &bundle.rootfs),
    };
    let write = |record: &Record| {
        record
            .write(dir)
            .map_err(OciError::io("write the state in", dir))
    };
    write(&container.record)?;
    let plan = container.plan(&bundle.spec)?;
    cgroup::create(&plan.cgroup).map_err(OciError::Start)?;
    let place = Place::enter(&plan.cgroup, &plan.namespaces).inspect_err(|_| {
        drop(cgroup::remove(&plan.cgroup));
    })?;
    let pid = read_back(dir, bundle, options, &plan);
    // This process must be out of the groups before they can go.
    let left = place.leave();
    let pid = match (pid, left) {
        (Ok(pid), Ok(())) => pid,
        (Err(error), _) | (Ok(_), Err(error)) => {
            drop(cgroup::kill(&plan.cgroup));
            drop(cgroup::remove(&plan.cgroup));
            return Err(error);
        }
    };
    container.record.pid = Some(pid);
    container.record.start_time = sys::process::start_time(pid).ok();
    write(&container.record)?;
    Ok(container)
}

/// criu is started in a mount namespace in which the root is a mount, as it wants.
fn read_back(
    dir: &Path,
    bundle: &Bundle,
    options: &RestoreOptions,
    plan: &runtime::InitPlan,
) -> Result<i32, OciError> {
    let failed =
        |errno: Errno| OciError::io("mount the root file system", &bundle.rootfs)(errno.into());
    sys::clone::unshare_mounts().map_err(failed)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed)?;
    mount_bind_recursive(&bundle.rootfs, &bundle.rootfs).map_err(failed)?;
    let number = dir.join("restored");
    let mut criu = options.criu.command("restore")?;
    criu.args(["--restore-detached", "--pidfile"]).arg(&number);
    criu.arg("--root").arg(&bundle.rootfs);
    for (place, source) in external_mounts(plan) {
        criu.arg("--external").arg(format!("mnt[{place}]:{source}"));
    }
    for (descriptor, name) in inherited(&options.criu) {
        criu.arg("--inherit-fd")
            .arg(format!("fd[{descriptor}]:{name}"));
    }
    for (option, value) in [
        ("--lsm-profile", &options.lsm_profile),
        ("--lsm-mount-context", &options.lsm_mount_context),
    ] {
        if let Some(value) = value {
            criu.arg(option).arg(value);
        }
    }
    options.criu.finish(WHAT, "restore", criu)?;
    let text = fs::read_to_string(&number).map_err(OciError::io("read", &number))?;
    durable::remove_tree(&number).map_err(OciError::io("remove", &number))?;
    text.trim().parse().map_err(|_| OciError::Unsupported {
        what: WHAT.to_owned(),
        why: "criu gave no process".to_owned(),
    })
}

/// The saved standard streams that were pipes: the caller's take their places.
fn inherited(options: &CriuOptions) -> Vec<(usize, String)> {
    let path = options.image_path.join(DESCRIPTORS);
    // Files of another tool may have none.
    let text = fs::read(path).unwrap_or_default();
    let names: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
    let pipes = names.into_iter().take(3).enumerate();
    pipes
        .filter(|(_, name)| name.starts_with("pipe:["))
        .collect()
}

/// The control groups that this process has left for a container's, and its cgroup namespace: what
/// criu starts is born there.
struct Place {
    /// The file of each old group that it is entered by.
    own: Vec<OwnedFd>,
    namespace: Option<OwnedFd>,
}

impl Place {
    fn enter(
        groups: &runtime::CgroupPlan,
        namespaces: &[runtime::Namespace],
    ) -> Result<Self, OciError> {
        let own = fs::read_to_string("/proc/self/cgroup")
            .map_err(OciError::io("read", "/proc/self/cgroup"))?;
        let mut files = Vec::new();
        for file in &groups.enter {
            let file = PathBuf::from(&*file.to_string_lossy());
            files.push((file.clone(), own_file(&file, &own)));
        }
        if let Some(dir) = &groups.clone_into {
            let file = Path::new(&*dir.to_string_lossy()).join("cgroup.procs");
            files.push((file.clone(), own_file(&file, &own)));
        }
        let open = |path: &Path| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| OciError::io("open", path)(errno.into()))
        };
        let mut place = Self {
            own: Vec::new(),
            namespace: None,
        };
        for (file, own) in files {
            let own = own.ok_or_else(|| OciError::Unsupported {
                what: format!("enter the control group of `{}`", file.display()),
                why: "this process's own is not known".to_owned(),
            })?;
            place.own.push(open(&own)?);
            let entered = rustix::io::write(open(&file)?, b"0");
            entered.map_err(|errno| {
                // The first error is the one to report.
                drop(place.leave());
                OciError::io("enter the control group by", file)(errno.into())
            })?;
        }
        let is_own = |n: &runtime::Namespace| n.flag == namespace::CGROUP && n.path.is_none();
        if namespaces.iter().any(is_own) {
            let path = "/proc/self/ns/cgroup";
            let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let unshared = own.and_then(|own| sys::clone::unshare_cgroup().map(|()| own));
            place.namespace = Some(unshared.map_err(|errno| {
                drop(place.leave());
                OciError::io("leave the cgroup namespace", path)(errno.into())
            })?);
        }
        Ok(place)
    }

    fn leave(&self) -> Result<(), OciError> {
        if let Some(own) = &self.namespace {
            // First, for the groups may be out of its sight.
            return_to(own.as_fd(), namespace::CGROUP).map_err(|errno| {
                OciError::io("return to the cgroup namespace of", "/proc/self")(errno.into())
            })?;
        }
        for file in &self.own {
            rustix::io::write(file.as_fd(), b"0").map_err(|errno| {
                OciError::io("return to the control groups of", "/proc/self")(errno.into())
            })?;
        }
        Ok(())
    }
}

/// The file in this process's own group that has the name and lies in the hierarchy of `file`, by
/// the lines of `/proc/self/cgroup`.
fn own_file(file: &Path, own: &str) -> Option<PathBuf> {
    let below = file.strip_prefix("/sys/fs/cgroup").ok()?;
    let first = below.iter().next()?.to_str()?;
    let group = |controllers: &str| {
        own.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            (names == controllers).then_some(path)
        })
    };
    let (root, path) = match group(first) {
        Some(path) => (first, path),
        // v2: beside v1, or alone.
        None if first == "unified" => ("unified", group("")?),
        None => ("", group("")?),
    };
    let dir = Path::new("/sys/fs/cgroup").join(root);
    Some(
        dir.join(path.trim_start_matches('/'))
            .join(file.file_name()?),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_group_is_found_in_each_hierarchy() {
        let own = "5:memory:/a\n2:cpu,cpuacct:/\n0::/b/c\n";
        let of = |file: &str| own_file(Path::new(file), own);
        let found = of("/sys/fs/cgroup/memory/ketch/x/tasks").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/memory/a/tasks"));
        let found = of("/sys/fs/cgroup/cpu,cpuacct/ketch/x/tasks").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/cpu,cpuacct/tasks"));
        let found = of("/sys/fs/cgroup/unified/ketch/x/cgroup.procs").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified/b/c/cgroup.procs"));
        let found = own_file(Path::new("/sys/fs/cgroup/ketch/x/cgroup.procs"), "0::/b\n");
        assert_eq!(found.unwrap(), Path::new("/sys/fs/cgroup/b/cgroup.procs"));
    }

    #[test]
    fn pipes_among_the_saved_streams_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let options = CriuOptions {
            image_path: dir.path().to_path_buf(),
            ..CriuOptions::default()
        };
        assert!(inherited(&options).is_empty());
        let names = br#"["/dev/null","pipe:[7]","pipe:[8]"]"#;
        let path = dir.path().join(DESCRIPTORS);
        durable::replace_file(&path, names, Durability::Atomic).unwrap();
        let pipes = [(1, "pipe:[7]".to_owned()), (2, "pipe:[8]".to_owned())];
        assert_eq!(inherited(&options), pipes);
    }
}
