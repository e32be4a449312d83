//! Huge pages.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use oci_spec::runtime::LinuxResources;

use crate::cgroup::group::Group;
use crate::cgroup::hierarchy::Hierarchy;
use crate::cgroup::limits::Limits;
use crate::cgroup::read;
use crate::plan::PlanError;

const LIMIT: &str = "linux.resources.hugepageLimits";

/// What a group uses of one size of page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// Bytes in use.
    pub usage: u64,
    /// The limit in bytes.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: u64,
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out, "limit_in_bytes")
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    both(resources, out, "max")
}

/// Limits what is used and what is reserved (Linux 5.7): a reservation over the limit is an error of
/// `mmap`, a use over it a signal.
fn both(resources: &LinuxResources, out: &mut Limits<'_>, suffix: &str) -> Result<(), PlanError> {
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = page_size(limit.page_size())?;
        for kind in ["", "rsvd."] {
            let file = format!("hugetlb.{size}.{kind}{suffix}");
            out.set(&file, limit.limit(), LIMIT)?;
        }
    }
    Ok(())
}

/// A size as the kernel names it, `2MB`: part of a file's name.
fn page_size(text: &str) -> Result<&str, PlanError> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'B']);
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && ["KB", "MB", "GB"].contains(&unit) {
        Ok(text)
    } else {
        Err(PlanError::Unknown {
            field: "linux.resources.hugepageLimits.pageSize",
            value: text.to_owned(),
        })
    }
}

/// What the group uses, by size of page; empty without the controller.
pub(in crate::cgroup) fn stats(group: &Group) -> io::Result<BTreeMap<String, HugetlbStats>> {
    let (usage, limit) = match group.hierarchy() {
        Hierarchy::None => return Ok(BTreeMap::new()),
        Hierarchy::Legacy { .. } => ("usage_in_bytes", "limit_in_bytes"),
        Hierarchy::Unified { .. } => ("current", "max"),
    };
    let Some(dir) = group.dir("hugetlb") else {
        return Ok(BTreeMap::new());
    };
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name.to_str().and_then(|name| name.strip_prefix("hugetlb."));
        let Some(size) = size.and_then(|rest| rest.strip_suffix(usage)) else {
            continue;
        };
        let Ok(size) = page_size(size.trim_end_matches('.')) else {
            continue;
        };
        let file = |name: &str| {
            entry
                .path()
                .with_file_name(format!("hugetlb.{size}.{name}"))
        };
        let hits = match group.hierarchy() {
            Hierarchy::Unified { .. } => read::key(&file("events"), "max"),
            Hierarchy::None | Hierarchy::Legacy { .. } => read::number(&file("failcnt"))?,
        };
        let stats = HugetlbStats {
            usage: read::number(&file(usage))?,
            limit: read::limit(&file(limit))?,
            limit_hits: hits,
        };
        sizes.insert(size.to_owned(), stats);
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_that_is_no_size_is_refused() {
        assert_eq!(page_size("2MB").unwrap(), "2MB");
        for bad in ["", "MB", "2", "2MBB", "../2MB", "2 MB"] {
            assert!(page_size(bad).is_err(), "{bad}");
        }
    }
}
