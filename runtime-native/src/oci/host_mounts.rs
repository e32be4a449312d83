//! The mounts of a container that shares the host's mount namespace: nothing takes them away but
//! whoever removes the container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use crate::plan::unescaped;

/// A mount below a container's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostMount {
    /// Its number while it is mounted.
    id: u64,
    /// Where it is.
    place: PathBuf,
}

/// The mounts strictly below `root`, earlier ones first.
pub(super) fn below(root: &Path) -> io::Result<Vec<HostMount>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(parse)
        .filter(|mount| mount.place.starts_with(root) && mount.place != root)
        .collect())
}

/// A line of mountinfo (proc(5)): the first field is the number, the fifth the place.
fn parse(line: &str) -> Option<HostMount> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let place = PathBuf::from(unescaped(fields.nth(3)?));
    Some(HostMount { id, place })
}

/// Unmounts what was not there `before`, later ones first, and gives what stays.
pub(super) fn remove_new(root: &Path, before: &[HostMount]) -> Vec<String> {
    let now = match below(root) {
        Ok(now) => now,
        Err(error) => return vec![format!("cannot list the container's mounts: {error}")],
    };
    let mut failures = Vec::new();
    for mount in now.iter().rev().filter(|mount| !before.contains(mount)) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match unmount(&mount.place, flags) {
            // It went with the one that it lay on.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => failures.push(format!(
                "cannot unmount `{}`: {}",
                mount.place.display(),
                crate::reason(errno)
            )),
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_the_fifth_field() {
        let line = "25 1 0:22 / /b/rootfs/a\\040b rw,nosuid shared:5 - proc proc rw";
        let mount = parse(line).unwrap();
        assert_eq!(
            (mount.id, mount.place),
            (25, PathBuf::from("/b/rootfs/a b"))
        );
        assert_eq!(parse("x 1 0:22 / /b rw"), None);
        assert_eq!(parse("25 1"), None);
    }
}
