//! Network devices of the host that the container gets (runtime-spec v1.3
//! `config-linux.md#namespaced-network-devices`).

use std::collections::HashSet;

use oci_spec::runtime::Linux;
use runtime::Namespace;
use sys::clone::namespace as flag;

use super::PlanError;

/// Plans the moves, in the order of the names.
pub(super) fn plan(
    linux: &Linux,
    namespaces: &[Namespace],
) -> Result<Vec<(String, String)>, PlanError> {
    let mut moves = Vec::new();
    let mut names = HashSet::new();
    for (host, device) in linux.net_devices().iter().flatten() {
        let rule = |rule| PlanError::Rule {
            path: format!("linux.netDevices[{host}]"),
            rule,
        };
        if !namespaces.iter().any(|n| n.flag == flag::NET) {
            return Err(rule("needs a network namespace in `linux.namespaces`"));
        }
        let name = device.name().clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| host.clone());
        if !is_name(host) || !is_name(&name) {
            return Err(rule("is not the name of a network device"));
        }
        if !names.insert(name.clone()) {
            return Err(rule("has the same name in the container as another one"));
        }
        moves.push((host.clone(), name));
    }
    moves.sort();
    Ok(moves)
}

/// What the kernel takes (`dev_valid_name` in `net/core/dev.c`).
fn is_name(text: &str) -> bool {
    let is_free = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    (1..16).contains(&text.len()) && ![".", ".."].contains(&text) && !text.contains(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_kernels() {
        assert!(is_name("eth0.100") && is_name("a"));
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "0123456789abcdef"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
