//! Policies of sockets, and where they are kept: `<root>/sockets/NAME.json`, replaced as a whole, which a
//! daemon that runs notices and one that starts reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::Layout;
use sys::durable::{Durability, make_private_dir, replace_file};

use crate::routes::table::{Effect, Route, Verb};

/// The version of the files.
const VERSION: u32 = 1;

/// What a socket address can hold (unix(7)), less its end.
const MAX_PATH: usize = 107;

/// What changes things that all share; a socket for containers with a label has it when it is named.
const OF_ALL: [Verb; 5] = [Verb::Commit, Verb::Load, Verb::Tag, Verb::Rmi, Verb::Login];

/// Whether a socket changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It only shows.
    ReadOnly,
    /// It does what is allowed.
    #[default]
    ReadWrite,
}

/// What a socket allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    version: u32,
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it changes anything.
    pub mode: Mode,
    /// Only containers, networks and volumes with all of these are there.
    pub labels: BTreeMap<String, String>,
    /// What is allowed; without it everything but what hands out the host, or with labels what
    /// belongs to all.
    pub allow: Option<BTreeSet<Verb>>,
    /// When it was made.
    pub created: String,
}

/// Why a policy cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Nothing is restricted.
    #[error(
        "cannot make the socket `{0}`: without --read-only, --label and --allow it would be the full one"
    )]
    Unrestricted(String),
    /// Neither a name nor an absolute path.
    #[error("cannot make the socket `{name}`: {why}")]
    BadName {
        /// What was asked for.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// There is one.
    #[error("the socket `{0}` is there already")]
    Exists(String),
    /// There is none.
    #[error("no such socket: {0}")]
    NotFound(String),
    /// A file that is not understood.
    #[error("cannot read the policy `{}`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// It comes from a newer ketch.
    #[error("cannot use the policy `{}`: it has version {version}, a newer ketch has written it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The system refuses.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Policy {
    /// A policy for a socket that is named or has a path of its own.
    ///
    /// # Errors
    /// When the name cannot be one, or nothing is restricted.
    pub fn new(
        layout: &Layout,
        name: &str,
        mode: Mode,
        labels: BTreeMap<String, String>,
        allow: Option<BTreeSet<Verb>>,
    ) -> Result<Self, PolicyError> {
        let bad = |why| PolicyError::BadName {
            name: name.to_owned(),
            why,
        };
        let path = if name.contains('/') {
            let path = PathBuf::from(name);
            let is_plain = path.components().all(|part| {
                use std::path::Component::{Normal, RootDir};
                matches!(part, RootDir | Normal(_))
            });
            if !path.is_absolute() || !is_plain || name.ends_with('/') {
                return Err(bad("a path must be absolute and without `..`"));
            }
            path
        } else {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let is_first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
            if !is_first || !name.chars().all(is_name) {
                return Err(bad("a name has letters, digits, `_`, `.` and `-`"));
            }
            // A directory of its own can be mounted, and survives the socket in it.
            layout.run().join("sockets").join(name).join("docker.sock")
        };
        if path.as_os_str().len() > MAX_PATH {
            return Err(bad(
                "its path is longer than the 107 bytes of a socket's address",
            ));
        }
        if mode == Mode::ReadWrite && labels.is_empty() && allow.is_none() {
            return Err(PolicyError::Unrestricted(name.to_owned()));
        }
        Ok(Self {
            version: VERSION,
            name: name.to_owned(),
            path,
            mode,
            labels,
            allow,
            created: state::clock::now(),
        })
    }

    /// Whether a verb is allowed.
    #[must_use]
    pub fn has(&self, verb: Verb) -> bool {
        match &self.allow {
            _ if verb == Verb::Ping => true,
            Some(allowed) => allowed.contains(&verb),
            None if verb == Verb::Host => false,
            None => self.labels.is_empty() || !OF_ALL.contains(&verb),
        }
    }

    /// Whether a route is allowed, whatever it is asked about.
    pub(crate) fn admits(&self, route: &Route) -> bool {
        let changes = route.effect == Effect::Changes;
        self.has(route.verb) && !(changes && self.mode == Mode::ReadOnly)
    }

    /// Whether something with these labels is there for its clients.
    pub(crate) fn sees(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.labels.iter();
        wanted.all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// All policies of a root.
#[derive(Debug, Clone)]
pub struct Policies {
    dir: PathBuf,
}

impl Policies {
    /// Those of a root; the directory is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(layout: &Layout) -> Result<Self, PolicyError> {
        let dir = layout.root().join("sockets");
        make_private_dir(&dir).map_err(failed("make the directory", &dir))?;
        Ok(Self { dir })
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A slash is no part of a file's name.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}.json", name.replace('/', "%")))
    }

    /// Keeps a policy.
    ///
    /// # Errors
    /// When there is one of this name, or it cannot be written.
    pub fn add(&self, policy: &Policy) -> Result<(), PolicyError> {
        if self.list()?.iter().any(|own| own.path == policy.path) {
            return Err(PolicyError::Exists(policy.name.clone()));
        }
        let path = self.file(&policy.name);
        let bytes = serde_json::to_vec_pretty(policy).map_err(|source| PolicyError::Malformed {
            path: path.clone(),
            source,
        })?;
        replace_file(&path, &bytes, Durability::Synced).map_err(failed("write", &path))
    }

    /// Forgets a policy, and with it the socket of a daemon that runs. Gives what it was.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove(&self, name: &str) -> Result<Policy, PolicyError> {
        let found = self.list()?.into_iter().find(|policy| policy.name == name);
        let policy = found.ok_or_else(|| PolicyError::NotFound(name.to_owned()))?;
        let path = self.file(name);
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(policy)
    }

    /// All of them by name. A file that is not understood is an error: what it restricts would be
    /// guessed.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn list(&self) -> Result<Vec<Policy>, PolicyError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("list", &self.dir))? {
            let path = entry.map_err(failed("list", &self.dir))?.path();
            // A new one is written beside.
            if path.extension().is_some_and(|end| end == "json") {
                all.extend(read(&path)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

/// One policy; `None` when it has gone meanwhile.
fn read(path: &Path) -> Result<Option<Policy>, PolicyError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(failed("read", path))?,
    };
    let malformed = |source| PolicyError::Malformed {
        path: path.to_path_buf(),
        source,
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(malformed)?;
    let version = value["version"].as_u64().unwrap_or(0);
    if version > u64::from(VERSION) {
        return Err(PolicyError::Newer {
            path: path.to_path_buf(),
            version: u32::try_from(version).unwrap_or(u32::MAX),
        });
    }
    serde_json::from_value(value).map(Some).map_err(malformed)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PolicyError {
    let path = path.to_path_buf();
    move |source| PolicyError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::table::ROUTES;

    fn layout(dir: &Path) -> Layout {
        Layout::open(dir.join("root"), dir.join("run")).unwrap()
    }

    fn policy(mode: Mode, label: Option<&str>, allow: Option<&[Verb]>) -> Policy {
        let dir = tempfile::tempdir().unwrap();
        let labels = label.map(|text| (text.to_owned(), "1".to_owned()));
        let allow = allow.map(|verbs| verbs.iter().copied().collect());
        Policy::new(
            &layout(dir.path()),
            "x",
            mode,
            labels.into_iter().collect(),
            allow,
        )
        .unwrap()
    }

    fn admitted(policy: &Policy) -> Vec<String> {
        let routes = ROUTES.iter().filter(|route| policy.admits(route));
        routes
            .map(|route| format!("{} {}", route.method, route.path))
            .collect()
    }

    #[test]
    fn read_only_socket_has_no_route_that_changes() {
        let policy = policy(Mode::ReadOnly, None, None);
        for route in ROUTES {
            let wanted = route.effect == Effect::Reads;
            assert_eq!(
                policy.admits(route),
                wanted,
                "{} {}",
                route.method,
                route.path
            );
        }
    }

    #[test]
    fn allowed_verbs_are_all_there_is() {
        let policy = policy(Mode::ReadWrite, None, Some(&[Verb::Logs, Verb::Start]));
        assert_eq!(
            admitted(&policy),
            [
                "GET _ping",
                "HEAD _ping",
                "GET version",
                "GET containers/{id}/logs",
                "POST containers/{id}/start",
                "POST containers/{id}/unpause",
                "GET _fault",
            ]
        );
    }

    #[test]
    fn label_alone_keeps_the_host_and_what_belongs_to_all() {
        let policy = policy(Mode::ReadWrite, Some("team"), None);
        for verb in OF_ALL.into_iter().chain([Verb::Host]) {
            assert!(!policy.has(verb), "{verb}");
        }
        for verb in [
            Verb::Create,
            Verb::Exec,
            Verb::Pull,
            Verb::Build,
            Verb::Volumes,
        ] {
            assert!(policy.has(verb), "{verb}");
        }
        let own = |value: &str| BTreeMap::from([("team".to_owned(), value.to_owned())]);
        assert!(policy.sees(&own("1")) && !policy.sees(&own("2")));
        assert!(!policy.sees(&BTreeMap::new()));
    }

    /// Every verb but that for the host opens at least one route: none is without a meaning.
    #[test]
    fn every_class_of_routes_is_opened_by_its_verb_alone() {
        for route in ROUTES {
            let policy = policy(Mode::ReadWrite, None, Some(&[route.verb]));
            for other in ROUTES {
                let wanted = other.verb == route.verb || other.verb == Verb::Ping;
                assert_eq!(
                    policy.admits(other),
                    wanted,
                    "{} for {}",
                    other.path,
                    route.verb
                );
            }
        }
    }

    #[test]
    fn policies_are_kept_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let policies = Policies::open(&layout).unwrap();
        let one = policy(Mode::ReadOnly, None, None);
        policies.add(&one).unwrap();
        assert!(matches!(policies.add(&one), Err(PolicyError::Exists(_))));
        assert_eq!(policies.list().unwrap(), [one]);
        assert_eq!(policies.remove("x").unwrap().name, "x");
        assert!(matches!(
            policies.remove("x"),
            Err(PolicyError::NotFound(_))
        ));
        let path = policies.dir().join("new.json");
        replace_file(&path, b"{\"version\": 2}", Durability::Atomic).unwrap();
        assert!(matches!(
            policies.list(),
            Err(PolicyError::Newer { version: 2, .. })
        ));
    }

    #[test]
    fn names_and_paths_are_checked_and_no_restriction_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let new = |name: &str, mode| Policy::new(&layout, name, mode, BTreeMap::new(), None);
        for bad in ["", "-x", "a b", "a/b", "/a/../b", "/a/"] {
            assert!(new(bad, Mode::ReadOnly).is_err(), "{bad}");
        }
        assert!(new(&format!("/{}", "x".repeat(107)), Mode::ReadOnly).is_err());
        assert_eq!(
            new("/a/b.sock", Mode::ReadOnly).unwrap().path,
            Path::new("/a/b.sock")
        );
        assert!(matches!(
            new("x", Mode::ReadWrite),
            Err(PolicyError::Unrestricted(_))
        ));
    }
}
