//! Kernel parameters: only those that belong to a namespace of the container's own (runtime-spec
//! v1.2 `config-linux.md#sysctl`).

use std::ffi::CString;

use oci_spec::runtime::Linux;
use runtime::Namespace;
use sys::clone::namespace as flag;

use super::{PlanError, c_string};

/// Parameters of an IPC namespace besides `fs.mqueue.*` (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Plans the writes, each to a path below procfs.
pub(super) fn plan(
    linux: &Linux,
    namespaces: &[Namespace],
) -> Result<Vec<(CString, CString)>, PlanError> {
    let mut writes = linux
        .sysctl()
        .iter()
        .flatten()
        .map(|(key, value)| {
            let path = path(key);
            check(key, &path, namespaces)?;
            Ok((c_string(&format!("sys/{path}"))?, c_string(value)?))
        })
        .collect::<Result<Vec<_>, PlanError>>()?;
    writes.sort();
    Ok(writes)
}

/// The path of a key: where a slash comes first, dots belong to the names (sysctl.d(5)).
fn path(key: &str) -> String {
    match key.find(['.', '/']).map(|at| key.as_bytes().get(at)) {
        Some(Some(b'/')) => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

fn check(key: &str, path: &str, namespaces: &[Namespace]) -> Result<(), PlanError> {
    let rule = |rule| {
        Err(PlanError::Rule {
            path: format!("linux.sysctl[{key}]"),
            rule,
        })
    };
    let has = |kind| namespaces.iter().any(|n| n.flag == kind);
    if path.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        return rule("is not the name of a kernel parameter");
    }
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return match has(flag::IPC) {
            true => Ok(()),
            false => rule("is of the IPC namespace, which the container shares with the host"),
        };
    }
    if path.starts_with("net/") {
        return match has(flag::NET) {
            true => Ok(()),
            false => rule("is of the network namespace, which the container shares with the host"),
        };
    }
    match path {
        "kernel/domainname" if has(flag::UTS) => Ok(()),
        "kernel/hostname" => rule("must be set by `hostname`"),
        _ if path.starts_with("user/") && has(flag::USER) => Ok(()),
        _ => rule("is not of a namespace that the container has to itself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_both_spellings() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        let slashes = "net/ipv4/conf/eth0.100/forwarding";
        assert_eq!(path(slashes), slashes);
        assert_eq!(
            path("net.ipv4.conf.eth0/100.forwarding"),
            "net/ipv4/conf/eth0.100/forwarding"
        );
    }

    #[test]
    fn parameter_of_a_shared_namespace_is_refused() {
        let net = [Namespace {
            flag: flag::NET,
            path: None,
        }];
        assert!(check("k", "net/core/somaxconn", &net).is_ok());
        assert!(check("k", "net/core/somaxconn", &[]).is_err());
        assert!(check("k", "kernel/msgmax", &net).is_err());
        assert!(check("k", "kernel/core_pattern", &net).is_err());
        assert!(check("k", "net/../kernel/core_pattern", &net).is_err());
    }
}
