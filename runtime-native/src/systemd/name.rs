//! The names of a container's slice and scope.

use std::path::Path;

use crate::plan::PlanError;

/// What `cgroupsPath` says to systemd's users: `slice:prefix:name`, as runc and crun read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// The slice that holds the scope.
    pub(super) slice: String,
    /// The scope.
    pub(super) scope: String,
}

/// Whose systemd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    /// The machine's.
    System,
    /// The one of this user.
    User,
}

impl Names {
    /// The names for the container `id`.
    pub(super) fn new(
        cgroups_path: Option<&Path>,
        id: &str,
        manager: Manager,
    ) -> Result<Self, PlanError> {
        let unknown = |value: &str| PlanError::Rule {
            path: format!("linux.cgroupsPath ({value})"),
            rule: "must be `slice:prefix:name` with `--systemd-cgroup`",
        };
        let text = cgroups_path.map(|path| path.to_str().ok_or_else(|| unknown("not UTF-8")));
        let text = text.transpose()?.unwrap_or_default();
        let (slice, prefix, name) = match text.split(':').collect::<Vec<_>>().as_slice() {
            [""] => ("", "ketch", id),
            [slice, prefix, name] if !name.is_empty() => (*slice, *prefix, *name),
            _ => return Err(unknown(text)),
        };
        if name.ends_with(".slice") {
            return Err(PlanError::Unavailable {
                option: "linux.cgroupsPath".to_owned(),
                why: format!("a container is a scope, and `{name}` is a slice"),
            });
        }
        let slice = match (slice, manager) {
            ("", Manager::System) => "system.slice",
            ("", Manager::User) => "user.slice",
            (slice, _) if slice.ends_with(".slice") && !slice.contains('/') => slice,
            _ => return Err(unknown(text)),
        };
        let scope = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Ok(Self {
            slice: slice.to_owned(),
            scope,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, manager: Manager) -> Result<(String, String), String> {
        let names = Names::new(Some(Path::new(path)), "abc", manager);
        let names = names.map_err(|error| error.to_string())?;
        Ok((names.slice, names.scope))
    }

    fn pair(slice: &str, scope: &str) -> Result<(String, String), String> {
        Ok((slice.to_owned(), scope.to_owned()))
    }

    #[test]
    fn path_has_slice_prefix_and_name() {
        let found = names("machine.slice:libpod:xyz", Manager::System);
        assert_eq!(found, pair("machine.slice", "libpod-xyz.scope"));
        let found = names(":docker:xyz", Manager::System);
        assert_eq!(found, pair("system.slice", "docker-xyz.scope"));
        let found = names("user.slice::xyz", Manager::User);
        assert_eq!(found, pair("user.slice", "xyz.scope"));
        assert_eq!(
            names("", Manager::User),
            pair("user.slice", "ketch-abc.scope")
        );
        let none = Names::new(None, "abc", Manager::System).unwrap();
        assert_eq!(
            (none.slice.as_str(), none.scope.as_str()),
            ("system.slice", "ketch-abc.scope")
        );
    }

    #[test]
    fn path_of_another_form_is_refused() {
        for bad in [
            "/docker/x",
            "a:b",
            "a.slice:b:c:d",
            "a.slice:b:",
            "nothing:b:c",
            "a/b.slice:b:c",
        ] {
            let error = names(bad, Manager::System).unwrap_err();
            assert!(error.contains("slice:prefix:name"), "{bad}: {error}");
        }
        let error = names("a.slice:b:c.slice", Manager::System).unwrap_err();
        assert!(error.contains("is a slice"), "{error}");
    }
}
