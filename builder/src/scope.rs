//! The variables of a stage: ARG, ENV and those that are there by themselves.

use std::collections::{BTreeMap, BTreeSet};

use image::{Platform, RunConfig};

/// Usable without being declared, and neither in the history nor in a cache key.
pub(crate) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The variables of the proxies that are given: programs look for either case.
pub(crate) fn proxies(args: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str| {
        let other = match name.starts_with(|c: char| c.is_ascii_uppercase()) {
            true => name.to_ascii_lowercase(),
            false => name.to_ascii_uppercase(),
        };
        args.get(name).or_else(|| args.get(&other))
    };
    let pairs = PROXIES
        .iter()
        .filter_map(|name| Some(format!("{name}={}", value(name)?)));
    pairs.collect()
}

/// `TARGETPLATFORM` and its like, for the stage that is built.
pub(crate) fn automatic(target: &Platform, stage: Option<&str>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
        all.insert(format!("{prefix}PLATFORM"), platform.to_string());
        all.insert(format!("{prefix}OS"), platform.os().to_owned());
        all.insert(format!("{prefix}ARCH"), platform.architecture().to_owned());
        all.insert(
            format!("{prefix}VARIANT"),
            platform.variant().unwrap_or_default().to_owned(),
        );
    }
    let stage = stage.unwrap_or("default").to_owned();
    all.insert("TARGETSTAGE".to_owned(), stage);
    all
}

/// What was declared with ARG in a stage and those that it is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    args: BTreeMap<String, Option<String>>,
    /// Names that the user gave and that something took.
    pub(crate) consumed: BTreeSet<String>,
}

/// Where the value of an ARG can come from.
pub(crate) struct Sources<'a> {
    pub(crate) given: &'a BTreeMap<String, String>,
    pub(crate) globals: &'a BTreeMap<String, Option<String>>,
    pub(crate) automatic: &'a BTreeMap<String, String>,
}

impl Scope {
    /// `ARG name` or `ARG name=default`.
    pub(crate) fn declare(&mut self, name: &str, default: Option<String>, sources: &Sources<'_>) {
        let value = match sources.given.get(name) {
            Some(given) => {
                self.consumed.insert(name.to_owned());
                Some(given.clone())
            }
            None => default
                .or_else(|| sources.globals.get(name).cloned().flatten())
                .or_else(|| sources.automatic.get(name).cloned()),
        };
        self.args.insert(name.to_owned(), value);
    }

    /// The value of a variable: ENV wins.
    pub(crate) fn lookup(&self, config: &RunConfig, name: &str) -> Option<String> {
        env_value(config, name).or_else(|| self.args.get(name).cloned().flatten())
    }

    /// Whether a variable was declared, with a value or without.
    pub(crate) fn is_declared(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    /// What RUN sees of ARG: `name=value`, without those that ENV hides.
    pub(crate) fn env(&self, config: &RunConfig) -> Vec<String> {
        let visible = self
            .args
            .iter()
            .filter(|(name, _)| env_value(config, name).is_none());
        visible
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")))
            .collect()
    }
}

pub(crate) fn env_value(config: &RunConfig, name: &str) -> Option<String> {
    config.env.iter().rev().find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

/// Sets a variable of the image: in its place when it is there.
pub(crate) fn set_env(config: &mut RunConfig, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    let place = config
        .env
        .iter_mut()
        .find(|old| old.split('=').next() == Some(name));
    match place {
        Some(old) => *old = pair,
        None => config.env.push(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_given_in_both_cases() {
        let args = [
            ("http_proxy", "a"),
            ("NO_PROXY", "b"),
            ("no_proxy", "c"),
            ("X", "d"),
        ];
        let args = args.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = ["HTTP_PROXY=a", "http_proxy=a", "NO_PROXY=b", "no_proxy=c"];
        assert_eq!(proxies(&BTreeMap::from(args)), expected);
    }

    #[test]
    fn values_come_from_the_nearest_source() {
        let given = BTreeMap::from([("A".to_owned(), "given".to_owned())]);
        let globals = BTreeMap::from([
            ("B".to_owned(), Some("global".to_owned())),
            ("C".to_owned(), None),
        ]);
        let auto = automatic(&"linux/arm/v7".parse().unwrap(), Some("x"));
        let sources = Sources {
            given: &given,
            globals: &globals,
            automatic: &auto,
        };
        let mut scope = Scope::default();
        for (name, default) in [
            ("A", Some("d")),
            ("B", None),
            ("C", None),
            ("D", Some("d")),
            ("TARGETVARIANT", None),
        ] {
            scope.declare(name, default.map(str::to_owned), &sources);
        }
        let mut config = RunConfig::default();
        set_env(&mut config, "D", "env");
        let value = |name: &str| scope.lookup(&config, name);
        assert_eq!(value("A").as_deref(), Some("given"));
        assert_eq!(value("B").as_deref(), Some("global"));
        assert_eq!(value("C"), None);
        assert_eq!(value("D").as_deref(), Some("env"));
        assert_eq!(value("TARGETVARIANT").as_deref(), Some("v7"));
        assert_eq!(value("TARGETOS"), None);
        assert_eq!(
            scope.env(&config),
            ["A=given", "B=global", "TARGETVARIANT=v7"]
        );
    }
}
