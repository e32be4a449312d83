//! Namespaces, the id maps and clocks of new ones, and what of the mounts the host sees (runtime-spec
//! v1.2 `config-linux.md#namespaces`).

use std::ffi::CString;
use std::fmt::Write;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};
use runtime::{IdMap, Namespace, RootChange, RootPropagation, RootfsPlan, UserMap};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use sys::clone::namespace as flag;

use super::{PlanError, c_string};

/// Plans the namespaces. A user namespace comes first: what it grants is needed for the others.
pub(super) fn plan(specified: &[LinuxNamespace]) -> Result<Vec<Namespace>, PlanError> {
    let mut namespaces: Vec<Namespace> = specified
        .iter()
        .map(|namespace| {
            let path = namespace.path().as_ref();
            // Docker and others write an empty path for "a new one".
            let path = path.filter(|path| !path.as_os_str().is_empty());
            let path = path.map(|path| c_string(&path.to_string_lossy()));
            Ok(Namespace {
                flag: namespace_flag(namespace.typ()),
                path: path.transpose()?,
            })
        })
        .collect::<Result<_, PlanError>>()?;
    namespaces.sort_by_key(|namespace| namespace.flag != flag::USER);
    Ok(namespaces)
}

fn namespace_flag(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::Mount => flag::MOUNT,
        LinuxNamespaceType::Cgroup => flag::CGROUP,
        LinuxNamespaceType::Uts => flag::UTS,
        LinuxNamespaceType::Ipc => flag::IPC,
        LinuxNamespaceType::User => flag::USER,
        LinuxNamespaceType::Pid => flag::PID,
        LinuxNamespaceType::Network => flag::NET,
        LinuxNamespaceType::Time => flag::TIME,
    }
}

/// Whether a new namespace of this kind is made.
pub(super) fn is_new(namespaces: &[Namespace], kind: u64) -> bool {
    let mut all = namespaces.iter();
    all.any(|n| n.flag == kind && n.path.is_none())
}

/// Plans the maps of a new user namespace.
pub(super) fn user_map(
    linux: &Linux,
    namespaces: &[Namespace],
) -> Result<Option<UserMap>, PlanError> {
    let uid = id_maps(linux.uid_mappings().as_deref().unwrap_or_default());
    let gid = id_maps(linux.gid_mappings().as_deref().unwrap_or_default());
    let rule = |path: &str, rule| PlanError::Rule {
        path: path.to_owned(),
        rule,
    };
    if !is_new(namespaces, flag::USER) {
        return match uid.is_empty() && gid.is_empty() {
            true => Ok(None),
            // With a namespace that is joined they are for id-mapped mounts.
            false if namespaces.iter().any(|n| n.flag == flag::USER) => Ok(None),
            false => Err(rule(
                "linux.uidMappings",
                "needs a new user namespace in `linux.namespaces`",
            )),
        };
    }
    for (maps, path) in [(&uid, "linux.uidMappings"), (&gid, "linux.gidMappings")] {
        if maps.is_empty() {
            return Err(rule(path, "must not be empty with a new user namespace"));
        }
        if maps.iter().any(|map| map.count == 0) {
            return Err(rule(path, "must not hold a range of size 0"));
        }
    }
    Ok(Some(UserMap {
        uid,
        gid,
        deny_setgroups: !rustix::process::geteuid().is_root(),
    }))
}

/// Id maps as the kernel takes them.
pub(super) fn id_maps(specified: &[LinuxIdMapping]) -> Vec<IdMap> {
    let map = |map: &LinuxIdMapping| IdMap {
        inside: map.container_id(),
        outside: map.host_id(),
        count: map.size(),
    };
    specified.iter().map(map).collect()
}

/// Plans the clocks of a new time namespace: lines for `/proc/self/timens_offsets`.
pub(super) fn time_offsets(
    linux: &Linux,
    namespaces: &[Namespace],
) -> Result<Option<CString>, PlanError> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|o| !o.is_empty()) else {
        return Ok(None);
    };
    if !is_new(namespaces, flag::TIME) {
        return Err(PlanError::Rule {
            path: "linux.timeOffsets".to_owned(),
            rule: "needs a new time namespace in `linux.namespaces`",
        });
    }
    let mut text = String::new();
    for (clock, offset) in offsets {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(PlanError::Rule {
                path: format!("linux.timeOffsets.{clock}"),
                rule: "must be `monotonic` or `boottime`",
            });
        }
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        // Writing to a string does not fail.
        let _written = writeln!(text, "{clock} {secs} {nanosecs}");
    }
    c_string(&text).map(Some)
}

/// Plans how mounts spread (`linux.rootfsPropagation`).
pub(super) fn propagation(linux: &Linux, root: &RootfsPlan) -> Result<RootPropagation, PlanError> {
    let Some(wanted) = linux
        .rootfs_propagation()
        .as_deref()
        .filter(|p| !p.is_empty())
    else {
        return Ok(RootPropagation::default());
    };
    // `MS_*` of `linux/mount.h`.
    let (kind, recursive) = match wanted.strip_prefix('r').filter(|rest| !rest.is_empty()) {
        Some(rest) => (rest, 1 << 14),
        None => (wanted, 0),
    };
    let kind = match kind {
        "shared" => 1 << 20,
        "slave" => 1 << 19,
        "private" => 1 << 18,
        "unbindable" => 1 << 17,
        _ => {
            return Err(PlanError::Unknown {
                field: "linux.rootfsPropagation",
                value: wanted.to_owned(),
            });
        }
    };
    let place = match root {
        RootfsPlan::Overlay { mountpoint, .. } => mountpoint,
        RootfsPlan::Directory { path, .. } => path,
    };
    Ok(RootPropagation {
        flag: kind | recursive,
        parent_mount: mount_above(&place.to_string_lossy())?,
    })
}

/// The mount that `path` lies in.
fn mount_above(path: &str) -> Result<Option<CString>, PlanError> {
    let mount = |path: &Path| {
        let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        statx(CWD, path, AtFlags::empty(), flags)
            .ok()
            .map(|stat| stat.stx_mnt_id)
    };
    let mut at = Path::new(path);
    let Some(id) = mount(at) else { return Ok(None) };
    while let Some(parent) = at.parent().filter(|parent| mount(parent) == Some(id)) {
        at = parent;
    }
    c_string(&at.to_string_lossy()).map(Some)
}

/// Without a mount namespace there is nothing to pivot in.
pub(super) fn root_change(namespaces: &[Namespace], wanted: RootChange) -> RootChange {
    if namespaces.iter().any(|n| n.flag == flag::MOUNT) {
        wanted
    } else {
        RootChange::Chroot
    }
}
