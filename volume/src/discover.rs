//! Where drivers are found: sockets in a directory, or files that name an address. The first that
//! has the name counts; sockets before files, ketch's own directories before Docker's.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DriverError;

/// Where Docker looks for sockets, and for files.
const DOCKER_SOCKETS: &str = "/run/docker/plugins";
const FILES: [&str; 3] = [
    "/etc/ketch/plugins",
    "/etc/docker/plugins",
    "/usr/lib/docker/plugins",
];

/// No file that describes a plugin is longer.
const MAX_FILE: u64 = 64 * 1024;

/// Where a driver listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// `unix:///path`, `tcp://address:port` or `http://address:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path)),
                false => Err(format!("`{text}` names no absolute path")),
            };
        }
        let rest = text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or_else(|| format!("its address `{text}` is not unix://, tcp:// or http://"))?;
        let address = rest.trim_end_matches('/').parse();
        address
            .map(Self::Tcp)
            .map_err(|_| format!("its address `{text}` is no number with a port"))
    }
}

/// A `.json` file that describes a plugin.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls_config: Option<serde_json::Value>,
}

/// The directories of plugins.
#[derive(Debug, Clone)]
pub struct Plugins {
    sockets: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() < 128
        && bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-:/".contains(&byte))
        && text.split('/').all(|part| !part.is_empty() && part != "..")
}

impl Plugins {
    /// The plugins of this host, with those that have a socket in `<run>/plugins`.
    #[must_use]
    pub fn new(run: &Path) -> Self {
        Self {
            sockets: vec![run.join("plugins"), PathBuf::from(DOCKER_SOCKETS)],
            files: FILES.iter().map(PathBuf::from).collect(),
        }
    }

    /// Where a driver listens.
    ///
    /// # Errors
    /// When no plugin has the name, or the file that describes it is wrong.
    pub fn find(&self, name: &str) -> Result<Address, DriverError> {
        if is_name(name) {
            for (dir, ending) in self.candidates() {
                // A plugin may have a directory of its own.
                let file = format!("{name}.{ending}");
                for path in [dir.join(&file), dir.join(name).join(&file)] {
                    if path.exists() {
                        return address(name, path, ending);
                    }
                }
            }
        }
        let places = self.sockets.iter().chain(&self.files);
        let places: Vec<String> = places.map(|dir| dir.display().to_string()).collect();
        Err(DriverError::NotFound {
            name: name.to_owned(),
            places: places.join(", "),
        })
    }

    fn candidates(&self) -> impl Iterator<Item = (&PathBuf, &'static str)> {
        let sockets = self.sockets.iter().map(|dir| (dir, "sock"));
        let files = self.files.iter();
        sockets.chain(files.flat_map(|dir| [(dir, "spec"), (dir, "json")]))
    }

    /// The names of all plugins, whatever they can do.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (dir, ending) in self.candidates() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
                    continue;
                };
                let is_plugin = path.extension().is_some_and(|own| own == ending)
                    || path.join(format!("{stem}.{ending}")).exists();
                if is_plugin && is_name(stem) {
                    names.push(stem.to_owned());
                }
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

fn address(name: &str, path: PathBuf, ending: &str) -> Result<Address, DriverError> {
    let bad = |why: String| DriverError::BadPlugin {
        name: name.to_owned(),
        why,
    };
    if ending == "sock" {
        return Ok(Address::Unix(path));
    }
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| bad(format!("cannot read `{}`: {error}", path.display())))?;
    if ending == "spec" {
        return text.trim().parse().map_err(bad);
    }
    let described: Described = serde_json::from_str(&text)
        .map_err(|error| bad(format!("cannot read `{}`: {error}", path.display())))?;
    if described.tls_config.is_some_and(|config| !config.is_null()) {
        return Err(bad("it wants TLS, which is not spoken here".to_owned()));
    }
    described.addr.parse().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn plugins() -> (tempfile::TempDir, Plugins) {
        let dir = tempfile::tempdir().unwrap();
        let plugins = Plugins {
            sockets: vec![dir.path().join("sockets")],
            files: vec![dir.path().join("files")],
        };
        for dir in plugins.sockets.iter().chain(&plugins.files) {
            fs::create_dir(dir).unwrap();
        }
        (dir, plugins)
    }

    #[expect(clippy::disallowed_methods, reason = "test code")]
    fn write(path: PathBuf, text: &str) {
        fs::write(path, text).unwrap();
    }

    #[test]
    fn socket_comes_before_file_and_both_may_have_a_directory() {
        let (dir, plugins) = plugins();
        write(dir.path().join("files/one.spec"), "unix:///run/one.sock\n");
        write(
            dir.path().join("files/two.json"),
            r#"{"Name":"two","Addr":"tcp://127.0.0.1:9"}"#,
        );
        fs::create_dir(dir.path().join("sockets/three")).unwrap();
        let _one = UnixListener::bind(dir.path().join("sockets/three/three.sock")).unwrap();
        assert_eq!(plugins.names(), ["one", "three", "two"]);
        assert_eq!(
            plugins.find("one").unwrap(),
            Address::Unix(PathBuf::from("/run/one.sock"))
        );
        assert!(matches!(plugins.find("two").unwrap(), Address::Tcp(_)));
        let _two = UnixListener::bind(dir.path().join("sockets/one.sock")).unwrap();
        assert_eq!(
            plugins.find("one").unwrap(),
            Address::Unix(dir.path().join("sockets/one.sock"))
        );
        assert!(plugins.find("three").is_ok());
    }

    #[test]
    fn what_is_no_plugin_is_refused_by_name() {
        let (dir, plugins) = plugins();
        write(dir.path().join("files/bad.spec"), "ftp://x");
        write(
            dir.path().join("files/tls.json"),
            r#"{"Addr":"tcp://127.0.0.1:9","TLSConfig":{"CAFile":"x"}}"#,
        );
        for (name, says) in [
            ("bad", "unix://"),
            ("tls", "TLS"),
            ("../bad", "no such volume driver"),
            ("none", "no such volume driver"),
        ] {
            let error = plugins.find(name).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
