//! The root file system: what can be had of it, and what of the host has to be out of sight.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::{Namespace, RootChange, RootfsPlan};
use sys::clone::namespace::MOUNT;

use super::{Options, PlanError, c_string};

/// Without a mount namespace the root is a directory of the host's, not a mount of the container's.
pub(super) fn check(rootfs: &RootfsPlan, namespaces: &[Namespace]) -> Result<(), PlanError> {
    let (RootfsPlan::Overlay { readonly, .. } | RootfsPlan::Directory { readonly, .. }) = rootfs;
    if *readonly && !namespaces.iter().any(|n| n.flag == MOUNT) {
        return Err(PlanError::Rule {
            path: "root.readonly".to_owned(),
            rule: "needs a mount namespace in `linux.namespaces`",
        });
    }
    Ok(())
}

/// The mounts of the host that show all of procfs or sysfs, later ones first.
///
/// A root that is moved over the old one leaves them in the mount namespace, and a user namespace
/// may mount a procfs wherever one is that hides nothing (`mount_too_revealing` in
/// fs/namespace.c).
pub(super) fn hidden(options: &Options<'_>) -> Result<Vec<CString>, PlanError> {
    if options.root_change != RootChange::Move {
        return Ok(Vec::new());
    }
    let RootfsPlan::Directory { path, .. } = &options.rootfs else {
        return Ok(Vec::new());
    };
    let root = Path::new(OsStr::from_bytes(path.to_bytes()));
    let table =
        fs::read_to_string("/proc/self/mountinfo").map_err(|error| PlanError::Unavailable {
            option: "--no-pivot".to_owned(),
            why: format!("cannot read `/proc/self/mountinfo`: {error}"),
        })?;
    let mut paths = Vec::new();
    for path in table.lines().rev().filter_map(kernels_view) {
        if !Path::new(&path).starts_with(root) {
            paths.push(c_string(&path)?);
        }
    }
    Ok(paths)
}

/// The place of a line of mountinfo, when it mounts the root of a procfs or sysfs.
fn kernels_view(line: &str) -> Option<String> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let kind = kind.split(' ').next()?;
    (root == "/" && matches!(kind, "proc" | "sysfs")).then(|| unescaped(place))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits (proc(5)).
pub(crate) fn unescaped(place: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(place.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_views_of_the_kernel_are_found() {
        let line = |root: &str, place: &str, kind: &str| {
            format!("25 1 0:22 {root} {place} rw,nosuid shared:5 - {kind} {kind} rw")
        };
        let found = kernels_view(&line("/", "/mnt/a\\040b", "proc"));
        assert_eq!(found.as_deref(), Some("/mnt/a b"));
        assert!(kernels_view(&line("/", "/sys", "sysfs")).is_some());
        assert_eq!(kernels_view(&line("/irq", "/x", "proc")), None);
        assert_eq!(kernels_view(&line("/", "/", "ext4")), None);
    }

    #[test]
    fn readonly_root_needs_a_mount_namespace() {
        let rootfs = |readonly| RootfsPlan::Directory {
            path: c"/r".to_owned(),
            readonly,
        };
        assert!(check(&rootfs(true), &[]).is_err());
        check(&rootfs(false), &[]).unwrap();
    }
}
