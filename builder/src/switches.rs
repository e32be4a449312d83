//! Build arguments that are for the builder itself and not for the file: `BUILDKIT_…`.

use std::collections::BTreeMap;

use crate::dockerfile::{Dockerfile, check_directive};
use crate::error::BuildError;

/// Stands for `# syntax=`.
const SYNTAX: &str = "BUILDKIT_SYNTAX";
/// Stands for `# check=`.
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// The host name in steps.
const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// What the ids of cache mounts begin with.
const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// An index also for one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// Those that whoever calls the builder reads, and one that is a name for people.
const ELSEWHERE: [&str; 3] = [
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_BUILD_NAME",
];

/// The longest host name (hostname(7)).
const MAX_HOSTNAME: usize = 64;

/// What they say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    pub(crate) hostname: Option<String>,
    pub(crate) cache_namespace: Option<String>,
    pub(crate) multi_platform: bool,
}

/// Whether an argument is one of them.
pub(crate) fn is_switch(name: &str) -> bool {
    let own = [SYNTAX, CHECK, HOSTNAME, CACHE_NAMESPACE, MULTI_PLATFORM];
    own.contains(&name) || ELSEWHERE.contains(&name)
}

impl Switches {
    /// Reads them, and changes the file as they say.
    pub(crate) fn read(
        args: &BTreeMap<String, String>,
        file: &mut Dockerfile,
    ) -> Result<Self, BuildError> {
        let value = |name: &str| args.get(name).filter(|value| !value.is_empty()).cloned();
        let wrong = |name: &str, why: &str| {
            BuildError::Option(format!("cannot use the build argument `{name}`: {why}"))
        };
        if let Some(syntax) = value(SYNTAX) {
            file.syntax = Some(syntax);
        }
        if let Some(text) = value(CHECK) {
            file.check = check_directive(&text).map_err(|why| wrong(CHECK, &why))?;
        }
        let hostname = value(HOSTNAME);
        let is_name = |name: &String| {
            let mut bytes = name.bytes();
            name.len() <= MAX_HOSTNAME
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        if hostname.as_ref().is_some_and(|name| !is_name(name)) {
            return Err(wrong(HOSTNAME, "it is no host name"));
        }
        let multi_platform = match value(MULTI_PLATFORM).as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(_) => return Err(wrong(MULTI_PLATFORM, "it is neither true nor false")),
        };
        Ok(Self {
            hostname,
            cache_namespace: value(CACHE_NAMESPACE),
            multi_platform,
        })
    }

    /// The id of a cache mount among those of its namespace.
    pub(crate) fn cache_id(&self, id: &str) -> String {
        match &self.cache_namespace {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_change_what_the_builder_does() {
        let text = "# check=skip=A\nFROM a\n";
        let read = |pairs: &[(&str, &str)]| {
            let mut file = Dockerfile::parse("Dockerfile", text).unwrap();
            let pairs = pairs.iter().map(|(name, value)| {
                assert!(is_switch(name), "{name}");
                ((*name).to_owned(), (*value).to_owned())
            });
            let switches = Switches::read(&pairs.collect(), &mut file);
            switches.map(|switches| (switches, file))
        };
        let (none, file) = read(&[("BUILDKIT_SYNTAX", "")]).unwrap();
        assert_eq!((none, file.syntax), (Switches::default(), None));
        let (switches, file) = read(&[
            ("BUILDKIT_SYNTAX", "x"),
            ("BUILDKIT_DOCKERFILE_CHECK", "error=true"),
            ("BUILDKIT_SANDBOX_HOSTNAME", "a-b.c"),
            ("BUILDKIT_CACHE_MOUNT_NS", "n"),
            ("BUILDKIT_MULTI_PLATFORM", "1"),
        ])
        .unwrap();
        assert_eq!(file.syntax.as_deref(), Some("x"));
        assert!(file.check.error && file.check.skip.is_empty());
        assert!(switches.multi_platform && switches.hostname.as_deref() == Some("a-b.c"));
        assert_eq!(switches.cache_id("x"), "n/x");
        for bad in [
            ("BUILDKIT_DOCKERFILE_CHECK", "often"),
            ("BUILDKIT_SANDBOX_HOSTNAME", "a b"),
            ("BUILDKIT_MULTI_PLATFORM", "2"),
        ] {
            let error = read(&[bad]).unwrap_err().to_string();
            assert!(error.contains(bad.0), "{error}");
        }
        assert!(!is_switch("BUILDKIT_OTHER"));
    }
}
