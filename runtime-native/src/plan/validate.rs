//! Rules of the specification that its JSON types do not express. Rules of one part stand with the
//! part's planner.

use std::path::Path;

use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxNamespace, PosixRlimit, Process, Spec, User,
};

use super::PlanError;
use crate::capability;

/// Checks a specification.
pub(super) fn check(spec: &Spec, linux: &Linux, process: &Process) -> Result<(), PlanError> {
    let rule = |path: &str, rule| {
        Err(PlanError::Rule {
            path: path.to_owned(),
            rule,
        })
    };
    check_version(spec.version())?;
    check_process(process)?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    unique(
        namespaces.iter().map(LinuxNamespace::typ),
        "linux.namespaces",
    )?;
    let has = |kind| namespaces.iter().any(|n| n.typ() == kind);
    let uts = has(oci_spec::runtime::LinuxNamespaceType::Uts);
    if !uts && spec.hostname().as_ref().is_some_and(|h| !h.is_empty()) {
        return rule("hostname", "needs a UTS namespace in `linux.namespaces`");
    }
    if !uts && spec.domainname().as_ref().is_some_and(|d| !d.is_empty()) {
        return rule("domainname", "needs a UTS namespace in `linux.namespaces`");
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        if mount.destination().as_os_str().is_empty() {
            let path = format!("mounts[{index}].destination");
            return rule(&path, "must not be empty");
        }
    }
    let masked = [
        (linux.masked_paths(), "linux.maskedPaths"),
        (linux.readonly_paths(), "linux.readonlyPaths"),
    ];
    for (paths, field) in masked {
        for (index, path) in paths.iter().flatten().enumerate() {
            if !Path::new(path).is_absolute() {
                return rule(&format!("{field}[{index}]"), "must be an absolute path");
            }
        }
    }
    unsupported(linux)
}

/// Checks a process: the container's own or a further one.
pub(super) fn check_process(process: &Process) -> Result<(), PlanError> {
    let rule = |path: &str, rule| {
        Err(PlanError::Rule {
            path: path.to_owned(),
            rule,
        })
    };
    if !process.cwd().is_absolute() {
        return rule("process.cwd", "must be an absolute path");
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return rule("process.args", "must have at least one entry");
    }
    check_user(process.user())?;
    if process
        .oom_score_adj()
        .is_some_and(|value| !(-1000..=1000).contains(&value))
    {
        return rule("process.oomScoreAdj", "must be between -1000 and 1000");
    }
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    unique(rlimits.iter().map(PosixRlimit::typ), "process.rlimits")?;
    process
        .capabilities()
        .as_ref()
        .map_or(Ok(()), check_capabilities)
}

/// -1 is no id: to setresuid(2) it means "as before", which is root (CVE-2024-40635).
fn check_user(user: &User) -> Result<(), PlanError> {
    let groups = user.additional_gids().iter().flatten().copied();
    let ids = [("uid", user.uid()), ("gid", user.gid())];
    let ids = ids
        .into_iter()
        .chain(groups.map(|gid| ("additionalGids", gid)));
    for (field, id) in ids {
        if id == u32::MAX {
            return Err(PlanError::Rule {
                path: format!("process.user.{field}"),
                rule: "must not be 4294967295, which is no id",
            });
        }
    }
    Ok(())
}

/// What capset(2) would refuse, with the field's name.
fn check_capabilities(sets: &LinuxCapabilities) -> Result<(), PlanError> {
    let mask = |set: &Option<Capabilities>| capability::from_spec(set.iter().flatten());
    let rule = |set: &str, rule| {
        Err(PlanError::Rule {
            path: format!("process.capabilities.{set}"),
            rule,
        })
    };
    if mask(sets.inheritable()) & !mask(sets.bounding()) != 0 {
        return rule(
            "inheritable",
            "must not hold what the bounding set lacks (EPERM of capset(2))",
        );
    }
    if mask(sets.effective()) & !mask(sets.permitted()) != 0 {
        return rule("effective", "must not hold what the permitted set lacks");
    }
    Ok(())
}

/// The versions that this runtime reads: all of the first major one.
fn check_version(version: &str) -> Result<(), PlanError> {
    let mut parts = version.split(['.', '-', '+']);
    let numbers: Vec<_> = parts.by_ref().take(3).map(str::parse::<u32>).collect();
    match numbers.as_slice() {
        [Ok(1), Ok(_), Ok(_)] => Ok(()),
        _ => Err(PlanError::Unknown {
            field: "`ociVersion`",
            value: version.to_owned(),
        }),
    }
}

/// Parts that no kernel feature here can honour yet: named, never passed over.
fn unsupported(linux: &Linux) -> Result<(), PlanError> {
    let refuse = |field: &str, why: &str| {
        Err(PlanError::Unavailable {
            option: format!("`{field}`"),
            why: why.to_owned(),
        })
    };
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt", "Intel RDT is not supported");
    }
    Ok(())
}

fn unique<T: PartialEq>(
    items: impl Iterator<Item = T> + Clone,
    path: &str,
) -> Result<(), PlanError> {
    let mut rest = items;
    while let Some(item) = rest.next() {
        if rest.clone().any(|other| other == item) {
            return Err(PlanError::Rule {
                path: path.to_owned(),
                rule: "must not hold two entries of one type",
            });
        }
    }
    Ok(())
}
