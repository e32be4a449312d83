//! The capability sets of a process object: what no kernel can grant is a warning, not an error
//! (runtime-spec v1.2 `config.md#linux-process`).

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};
use serde_json::Value;

use super::{OciError, Warnings};
use crate::capability;

/// Takes out the names that nobody knows.
pub(super) fn drop_unknown(process: &mut Value, warnings: &mut Warnings) {
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        let mut unknown: Vec<String> = Vec::new();
        names.retain(|name| match name.as_str() {
            Some(text) if !capability::is_known(text) => {
                unknown.push(text.to_owned());
                false
            }
            // What is no text is the parser's to refuse.
            Some(_) | None => true,
        });
        unknown.sort();
        unknown.dedup();
        if !unknown.is_empty() {
            warnings.push(format!(
                "`process.capabilities.{set}`: ignoring unknown or unavailable capabilities: [{}]",
                unknown.join(", ")
            ));
        }
    }
}

/// Takes out of the ambient set what is not both permitted and inheritable: the kernel refuses to
/// raise it (`capabilities(7)`).
pub(super) fn drop_unusable_ambient(process: &mut Process, warnings: &mut Warnings) {
    let Some(mut sets) = process.capabilities().clone() else {
        return;
    };
    let ambient = mask(sets.ambient());
    let missing = [
        ("inheritable", ambient & !mask(sets.inheritable())),
        ("permitted", ambient & !mask(sets.permitted())),
    ];
    let mut unusable = 0;
    for (set, absent) in missing {
        for capability in capability::names(absent & !unusable) {
            warnings.push(format!(
                "`process.capabilities.ambient`: can't raise ambient capability {capability}: \
                 it is not {set}"
            ));
        }
        unusable |= absent;
    }
    if unusable != 0 {
        sets.set_ambient(names(ambient & !unusable));
        process.set_capabilities(Some(sets));
    }
}

/// Adds capabilities to the sets that a further program starts with: never to the inheritable one
/// (CVE-2022-29162), and so to the ambient one only where the container's own process inherits.
pub(super) fn with(
    sets: &LinuxCapabilities,
    added: &[String],
) -> Result<LinuxCapabilities, OciError> {
    let mut wanted = 0;
    for name in added {
        wanted |= capability::parse(name).map_err(|error| OciError::Unsupported {
            what: "add the capability".to_owned(),
            why: error.to_string(),
        })?;
    }
    let mut result = sets.clone();
    result.set_bounding(names(mask(sets.bounding()) | wanted));
    result.set_effective(names(mask(sets.effective()) | wanted));
    result.set_permitted(names(mask(sets.permitted()) | wanted));
    let inherited = wanted & mask(sets.inheritable());
    if inherited != 0 {
        result.set_ambient(names(mask(sets.ambient()) | inherited));
    }
    Ok(result)
}

fn mask(set: &Option<Capabilities>) -> u64 {
    capability::from_spec(set.iter().flatten())
}

fn names(mask: u64) -> Option<Capabilities> {
    let set: HashSet<Capability> = capability::to_spec(mask).into_iter().collect();
    Some(set)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::bundle::parse_process;
    use super::*;

    fn parsed(sets: &str) -> (LinuxCapabilities, Warnings) {
        let text = format!(r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"capabilities":{sets}}}"#);
        let (process, warnings) = parse_process(Path::new("p"), text.as_bytes()).unwrap();
        (process.capabilities().clone().unwrap(), warnings)
    }

    #[test]
    fn capability_that_nobody_knows_is_a_warning() {
        let (sets, warnings) = parsed(r#"{"bounding":["CAP_CHOWN","CAP_MAGIC","CAP_MAGIC"]}"#);
        assert!(warnings.len() == 1 && warnings[0].ends_with("[CAP_MAGIC]"));
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn ambient_capability_that_cannot_be_raised_is_a_warning() {
        let (sets, warnings) = parsed(
            r#"{"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":["CAP_KILL","CAP_SYSLOG"],
                "ambient":["CAP_KILL","CAP_CHOWN","CAP_SYSLOG","CAP_BPF"]}"#,
        );
        assert_eq!(mask(sets.ambient()), 1 << 5);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("CAP_CHOWN: it is not inheritable"));
        assert!(
            warnings
                .iter()
                .any(|w| w.contains("CAP_SYSLOG: it is not permitted"))
        );
    }

    #[test]
    fn added_capability_is_ambient_only_where_it_is_inherited() {
        let add = ["CAP_SYSLOG".to_owned()];
        let (sets, _) = parsed(r#"{"permitted":["CAP_KILL"],"inheritable":["CAP_SYSLOG"]}"#);
        let sets = with(&sets, &add).unwrap();
        assert_eq!(mask(sets.ambient()), 1 << 34);
        assert_eq!(mask(sets.permitted()), 1 << 34 | 1 << 5);
        let (sets, _) = parsed(r#"{"permitted":["CAP_KILL"]}"#);
        let sets = with(&sets, &add).unwrap();
        assert_eq!((mask(sets.ambient()), mask(sets.inheritable())), (0, 0));
    }
}
