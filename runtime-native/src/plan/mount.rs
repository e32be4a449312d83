//! Mounts: options as mount(8) spells them, to flags, propagation and file system options
//! (runtime-spec v1.2 `config.md#linux-mount-options`).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use oci_spec::runtime::{Linux, Mount};
use runtime::{CgroupPlan, MountIdMap, MountPlan, MountSource, RootfsPlan, UserMap};

use super::{Hierarchy, Options, PlanError, c_string, namespace};

/// `MOUNT_ATTR_*` (mount_setattr(2)).
mod attr {
    pub(super) const RDONLY: u64 = 0x1;
    pub(super) const NOSUID: u64 = 0x2;
    pub(super) const NODEV: u64 = 0x4;
    pub(super) const NOEXEC: u64 = 0x8;
    /// The mask of the three exclusive access time settings.
    pub(super) const ATIME: u64 = 0x70;
    pub(super) const NOATIME: u64 = 0x10;
    pub(super) const STRICTATIME: u64 = 0x20;
    pub(super) const NODIRATIME: u64 = 0x80;
    pub(super) const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// `MS_*` of `linux/mount.h`.
mod propagation {
    pub(super) const REC: u64 = 1 << 14;
    pub(super) const UNBINDABLE: u64 = 1 << 17;
    pub(super) const PRIVATE: u64 = 1 << 18;
    pub(super) const SLAVE: u64 = 1 << 19;
    pub(super) const SHARED: u64 = 1 << 20;
}

/// The options that are understood here; all others are the file system's.
pub(crate) const OPTIONS: [&str; 64] = [
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// A mount's options, sorted.
#[derive(Debug, Default)]
struct Parsed {
    bind: bool,
    recursive: bool,
    set: u64,
    clear: u64,
    recursive_flags: bool,
    propagation: u64,
    copy_up: bool,
    /// `idmap` or `ridmap`: whether the whole tree.
    id_map: Option<bool>,
    data: Vec<(String, Option<String>)>,
}

/// Plans all mounts in their order.
pub(super) fn plan(
    mounts: &[Mount],
    options: &Options<'_>,
    cgroup: &CgroupPlan,
    linux: &Linux,
) -> Result<Vec<MountPlan>, PlanError> {
    let mut plans = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let kind = mount.typ().as_deref().unwrap_or("none");
        if kind == "cgroup" {
            cgroup_view(mount, options, cgroup, &mut plans)?;
        } else {
            plans.push(one(mount, kind, options, linux)?);
        }
    }
    Ok(plans)
}

fn one(
    mount: &Mount,
    kind: &str,
    options: &Options<'_>,
    linux: &Linux,
) -> Result<MountPlan, PlanError> {
    let parsed = parse(mount.options().as_deref().unwrap_or_default());
    let path = mount
        .source()
        .as_ref()
        .map(|path| path.to_string_lossy().into_owned());
    let id_map = id_map(mount, &parsed, linux)?;
    let source = if parsed.bind || kind == "bind" {
        let path = path.ok_or(PlanError::Missing("mounts.source"))?;
        let recursive = parsed.recursive;
        match beneath_root(Path::new(&path), &options.rootfs).filter(|_| id_map.is_none()) {
            Some(inside) => MountSource::Inside {
                path: c_string(&inside)?,
                recursive,
            },
            None => MountSource::Bind {
                path: c_string(&path)?,
                recursive,
            },
        }
    } else {
        let data = parsed
            .data
            .iter()
            .filter(|(key, value)| is_mapped(key, value.as_deref(), options))
            .map(|(key, value)| {
                Ok((
                    c_string(key)?,
                    value.as_ref().map(|value| c_string(value)).transpose()?,
                ))
            })
            .collect::<Result<_, PlanError>>()?;
        MountSource::FileSystem {
            kind: c_string(kind)?,
            options: data,
            name: c_string(path.as_deref().unwrap_or(kind))?,
        }
    };
    Ok(MountPlan {
        source,
        target: c_string(&mount.destination().to_string_lossy())?,
        set_flags: parsed.set,
        clear_flags: parsed.clear,
        recursive_flags: parsed.recursive_flags,
        propagation: parsed.propagation,
        id_map,
        copy_up: parsed.copy_up && kind == "tmpfs",
        beneath: None,
    })
}

/// The path inside the container of what lies in its root directory on the host. Whoever makes the
/// other mounts has to look it up: nobody else sees what they put there.
fn beneath_root(source: &Path, rootfs: &RootfsPlan) -> Option<String> {
    let RootfsPlan::Directory { path, .. } = rootfs else {
        return None;
    };
    let root = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let inside = source.strip_prefix(root).ok()?;
    let is_below = inside
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let is_it = inside.as_os_str().is_empty() || root == Path::new("/");
    (is_below && !is_it).then(|| format!("/{}", inside.display()))
}

/// The ids that a mount's files are shown with: its own maps, or with `idmap` alone the ones of the
/// container's user namespace.
fn id_map(mount: &Mount, parsed: &Parsed, linux: &Linux) -> Result<Option<MountIdMap>, PlanError> {
    let (uid, gid) = (mount.uid_mappings(), mount.gid_mappings());
    let joined = linux.namespaces().iter().flatten().find_map(|n| {
        let is_user = n.typ() == oci_spec::runtime::LinuxNamespaceType::User;
        n.path().as_ref().filter(|_| is_user)
    });
    let namespace = match (uid, gid) {
        (None, None) => joined
            .map(|path| c_string(&path.to_string_lossy()))
            .transpose()?,
        _ => None,
    };
    let (uid, gid) = match (uid, gid) {
        (None, None) if parsed.id_map.is_none() => return Ok(None),
        (None, None) => (linux.uid_mappings(), linux.gid_mappings()),
        own => own,
    };
    let rule = |rule| PlanError::Rule {
        path: format!("mounts[{}]", mount.destination().display()),
        rule,
    };
    if !(parsed.bind || mount.typ().as_deref() == Some("bind")) {
        return Err(rule("can have its ids mapped only as a bind mount"));
    }
    let map = UserMap {
        uid: namespace::id_maps(uid.as_deref().unwrap_or_default()),
        gid: namespace::id_maps(gid.as_deref().unwrap_or_default()),
        deny_setgroups: false,
    };
    if namespace.is_none() && (map.uid.is_empty() || map.gid.is_empty()) {
        return Err(rule("needs `uidMappings` and `gidMappings` to map its ids"));
    }
    Ok(Some(MountIdMap {
        map,
        namespace,
        recursive: parsed.id_map == Some(true),
    }))
}

/// A group that the user namespace does not map cannot own a devpts: it is left out there.
fn is_mapped(key: &str, value: Option<&str>, options: &Options<'_>) -> bool {
    let Some(mapped) = options.user_namespace else {
        return true;
    };
    let id = value.and_then(|value| value.parse::<u32>().ok());
    key != "gid" || id.is_none_or(|id| id < mapped)
}

/// `/sys/fs/cgroup`: the v2 hierarchy by its own file system, a v1 host by one bind a hierarchy on
/// a tmpfs. In a user namespace without groups of its own, the host's tree, read-only throughout
/// (CVE-2023-25809).
fn cgroup_view(
    mount: &Mount,
    options: &Options<'_>,
    cgroup: &CgroupPlan,
    plans: &mut Vec<MountPlan>,
) -> Result<(), PlanError> {
    let parsed = parse(mount.options().as_deref().unwrap_or_default());
    let target = mount.destination().to_string_lossy();
    let bind = |path: CString, target: CString, recursive: bool| MountPlan {
        source: MountSource::Bind { path, recursive },
        target,
        set_flags: parsed.set,
        clear_flags: 0,
        recursive_flags: recursive,
        propagation: propagation::PRIVATE | propagation::REC,
        id_map: None,
        copy_up: false,
        beneath: None,
    };
    match options.hierarchy {
        Hierarchy::None => {}
        _ if cgroup.make.is_empty() && cgroup.clone_into.is_none() => {
            let host = c_string("/sys/fs/cgroup")?;
            let mut view = bind(host, c_string(&target)?, true);
            view.set_flags |= attr::RDONLY;
            plans.push(view);
        }
        Hierarchy::Unified { .. } => plans.push(MountPlan {
            source: MountSource::FileSystem {
                kind: c_string("cgroup2")?,
                options: Vec::new(),
                name: c_string("cgroup")?,
            },
            target: c_string(&target)?,
            set_flags: parsed.set,
            clear_flags: 0,
            recursive_flags: false,
            propagation: 0,
            id_map: None,
            copy_up: false,
            beneath: None,
        }),
        Hierarchy::Legacy { .. } => {
            plans.push(MountPlan {
                source: MountSource::FileSystem {
                    kind: c_string("tmpfs")?,
                    options: vec![(c_string("mode")?, Some(c_string("755")?))],
                    name: c_string("tmpfs")?,
                },
                target: c_string(&target)?,
                set_flags: parsed.set & !attr::RDONLY,
                clear_flags: 0,
                recursive_flags: false,
                propagation: 0,
                id_map: None,
                copy_up: false,
                beneath: None,
            });
            for dir in &cgroup.make {
                let path = dir.to_string_lossy();
                let name = path
                    .strip_prefix("/sys/fs/cgroup/")
                    .and_then(|p| p.split('/').next());
                let Some(name) = name else { continue };
                plans.push(bind(
                    dir.clone(),
                    c_string(&format!("{target}/{name}"))?,
                    false,
                ));
            }
        }
    }
    Ok(())
}

fn parse(options: &[String]) -> Parsed {
    let mut parsed = Parsed::default();
    for option in options {
        if !(attribute(option, &mut parsed) || spread(option, &mut parsed)) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option.as_str(), None),
            };
            parsed.data.push((key.to_owned(), value));
        }
    }
    parsed
}

/// Flags of the mount itself; an `r` before one makes it hold for the whole tree.
fn attribute(option: &str, parsed: &mut Parsed) -> bool {
    let (set, clear) = match option.strip_prefix('r').filter(|_| is_recursive(option)) {
        Some(rest) => {
            parsed.recursive_flags = true;
            attribute_bits(rest)
        }
        None => attribute_bits(option),
    };
    if option == "defaults" {
        return true;
    }
    parsed.set = parsed.set & !clear | set;
    parsed.clear = parsed.clear & !set | clear;
    if set & attr::ATIME != 0 {
        // The access time setting is one field: all of it is cleared before one value is set.
        parsed.clear |= attr::ATIME;
    }
    set != 0 || clear != 0
}

fn is_recursive(option: &str) -> bool {
    matches!(
        option,
        "rro"
            | "rrw"
            | "rnosuid"
            | "rsuid"
            | "rnodev"
            | "rdev"
            | "rnoexec"
            | "rexec"
            | "rnoatime"
            | "ratime"
            | "rrelatime"
            | "rnorelatime"
            | "rstrictatime"
            | "rnostrictatime"
            | "rnodiratime"
            | "rdiratime"
            | "rnosymfollow"
            | "rsymfollow"
    )
}

fn attribute_bits(option: &str) -> (u64, u64) {
    match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "noatime" => (attr::NOATIME, 0),
        "strictatime" => (attr::STRICTATIME, 0),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (0, attr::ATIME),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        _ => (0, 0),
    }
}

/// Bind, propagation, and what is no option of the kernel's.
fn spread(option: &str, parsed: &mut Parsed) -> bool {
    let kind = match option {
        "tmpcopyup" => {
            parsed.copy_up = true;
            return true;
        }
        "idmap" | "ridmap" => {
            parsed.id_map = Some(option == "ridmap");
            return true;
        }
        // A mount is always made, never changed; and the kernel is silent about it anyway. Access
        // control lists and change counters are no longer an option of any file system.
        "remount" | "silent" | "loud" | "acl" | "noacl" | "iversion" | "noiversion" => {
            return true;
        }
        "bind" => {
            parsed.bind = true;
            return true;
        }
        "rbind" => {
            (parsed.bind, parsed.recursive) = (true, true);
            return true;
        }
        "private" => propagation::PRIVATE,
        "rprivate" => propagation::PRIVATE | propagation::REC,
        "slave" => propagation::SLAVE,
        "rslave" => propagation::SLAVE | propagation::REC,
        "shared" => propagation::SHARED,
        "rshared" => propagation::SHARED | propagation::REC,
        "unbindable" => propagation::UNBINDABLE,
        "runbindable" => propagation::UNBINDABLE | propagation::REC,
        _ => return false,
    };
    parsed.propagation = kind;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Parsed {
        parse(
            &options
                .iter()
                .map(|&option| option.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn source_in_the_root_directory_is_looked_up_inside() {
        let rootfs = RootfsPlan::Directory {
            path: c"/b/rootfs".to_owned(),
            readonly: false,
        };
        let inside = |path: &str| beneath_root(Path::new(path), &rootfs);
        assert_eq!(inside("/b/rootfs/tmp/x").as_deref(), Some("/tmp/x"));
        for outside in ["/b/rootfs", "/b/rootfs2/x", "/b/rootfs/../x", "/x"] {
            assert_eq!(inside(outside), None, "{outside}");
        }
    }

    #[test]
    fn options_later_one_wins() {
        let mount = parsed(&["ro", "nosuid", "rw"]);
        assert_eq!(mount.set, attr::NOSUID);
        assert_eq!(mount.clear, attr::RDONLY);
    }

    #[test]
    fn recursive_read_only_is_a_flag_of_the_tree() {
        let mount = parsed(&["rbind", "rro", "rslave"]);
        assert!(mount.bind && mount.recursive && mount.recursive_flags);
        assert_eq!(mount.set, attr::RDONLY);
        assert_eq!(mount.propagation, propagation::SLAVE | propagation::REC);
    }

    #[test]
    fn unknown_options_go_to_the_file_system() {
        let mount = parsed(&["size=64m", "mode=1777", "newinstance"]);
        assert_eq!(mount.data.len(), 3);
        assert_eq!(mount.data[2], ("newinstance".to_owned(), None));
    }
}
