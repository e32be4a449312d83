//! The packages of an image: what Debian's and Alpine's package managers installed, and what the lock files
//! of languages name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::{ImageError, LayeredRoot};
use serde_json::Value;

use crate::error::BuildError;

/// The largest file that is read for its packages.
const MAX_FILE: u64 = 64 << 20;

/// How deep lock files are looked for.
const MAX_DEPTH: usize = 12;

/// How many directories are looked into.
const MAX_DIRECTORIES: usize = 200_000;

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package-url.
    pub purl: String,
    /// The file that names it.
    pub found_in: String,
}

/// The packages of the image with these layers, uppermost first.
///
/// # Errors
/// When a file of it cannot be read.
pub fn packages(layers: &[PathBuf]) -> Result<Vec<Package>, BuildError> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let root = LayeredRoot::new(layers.to_vec());
    let mut found = BTreeSet::new();
    let distribution = distribution(&root)?;
    for path in [
        "/var/lib/dpkg/status",
        "/lib/apk/db/installed",
        "/usr/lib/apk/db/installed",
    ] {
        let Some(text) = text(&root, path)? else {
            continue;
        };
        match path {
            "/var/lib/dpkg/status" => dpkg(&text, path, &distribution, &mut found),
            _ => apk(&text, path, &distribution, &mut found),
        }
    }
    // Images without a package manager keep a file a package.
    let single = Path::new("/var/lib/dpkg/status.d");
    for name in names(&root, single)? {
        let path = single.join(&name).display().to_string();
        if let Some(text) = text(&root, &path)? {
            dpkg(&text, &path, &distribution, &mut found);
        }
    }
    lock_files(&root, &mut found)?;
    Ok(found.into_iter().collect())
}

/// The text of a file; `None` when there is none.
fn text(root: &LayeredRoot, path: &str) -> Result<Option<String>, BuildError> {
    match root.lookup(Path::new(path)) {
        Ok(found) if found.is_file() => {
            let bytes = root.read_bounded(Path::new(path), MAX_FILE)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Ok(_) => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_absent(error: &ImageError) -> bool {
    error.kind() == image::ErrorKind::NotFound
}

fn names(root: &LayeredRoot, dir: &Path) -> Result<Vec<String>, BuildError> {
    let names = match root.lookup_link(dir) {
        Ok(found) if found.is_dir() => root.names(dir)?,
        Ok(_) => Vec::new(),
        Err(error) if is_absent(&error) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut names: Vec<String> = names
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .collect();
    names.sort();
    Ok(names)
}

/// `ID` of os-release.
fn distribution(root: &LayeredRoot) -> Result<String, BuildError> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = text(root, path)? {
            let id = text.lines().find_map(|line| line.strip_prefix("ID="));
            return Ok(id.unwrap_or("linux").trim_matches('"').to_owned());
        }
    }
    Ok("linux".to_owned())
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn dpkg(text: &str, path: &str, distribution: &str, found: &mut BTreeSet<Package>) {
    for stanza in text.split("\n\n") {
        let installed = field(stanza, "Status").is_none_or(|status| status.ends_with(" installed"));
        let (Some(name), Some(version), true) = (
            field(stanza, "Package"),
            field(stanza, "Version"),
            installed,
        ) else {
            continue;
        };
        let arch = field(stanza, "Architecture").unwrap_or("all");
        found.insert(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            purl: format!(
                "pkg:deb/{distribution}/{name}@{}?arch={arch}",
                quoted(version)
            ),
            found_in: path.to_owned(),
        });
    }
}

fn apk(text: &str, path: &str, distribution: &str, found: &mut BTreeSet<Package>) {
    for stanza in text.split("\n\n") {
        let (Some(name), Some(version)) = (field(stanza, "P"), field(stanza, "V")) else {
            continue;
        };
        let arch = field(stanza, "A").unwrap_or("noarch");
        found.insert(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            purl: format!(
                "pkg:apk/{distribution}/{name}@{}?arch={arch}",
                quoted(version)
            ),
            found_in: path.to_owned(),
        });
    }
}

/// Looks for lock files in all directories but those that hold no files of an image.
fn lock_files(root: &LayeredRoot, found: &mut BTreeSet<Package>) -> Result<(), BuildError> {
    let mut todo = vec![(PathBuf::from("/"), 0)];
    let mut seen = 0;
    while let Some((dir, depth)) = todo.pop() {
        seen += 1;
        if depth > MAX_DEPTH || seen > MAX_DIRECTORIES {
            continue;
        }
        for name in names(root, &dir)? {
            let path = dir.join(&name);
            if depth == 0 && ["proc", "sys", "dev"].contains(&name.as_str()) {
                continue;
            }
            let kind = match name.as_str() {
                "package-lock.json" | ".package-lock.json" => Some("npm"),
                "Cargo.lock" => Some("cargo"),
                "poetry.lock" | "uv.lock" => Some("pypi"),
                _ => None,
            };
            let node = root.lookup_link(&path)?;
            if node.is_dir() {
                todo.push((path, depth + 1));
            } else if let (Some(kind), true) = (kind, node.is_file()) {
                let shown = path.display().to_string();
                if let Some(text) = text(root, &shown)? {
                    locked(kind, &text, &shown, found);
                }
            }
        }
    }
    Ok(())
}

fn locked(kind: &str, text: &str, path: &str, found: &mut BTreeSet<Package>) {
    let pairs = match kind {
        "npm" => npm(text),
        _ => toml(text),
    };
    for (name, version) in pairs {
        found.insert(Package {
            purl: format!("pkg:{kind}/{}@{}", quoted(&name), quoted(&version)),
            name,
            version,
            found_in: path.to_owned(),
        });
    }
}

/// The packages of `package-lock.json`, version 2 and 3.
fn npm(text: &str) -> Vec<(String, String)> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let packages = value.get("packages").and_then(Value::as_object);
    let pair = |(path, package): (&String, &Value)| {
        let (_, name) = path.rsplit_once("node_modules/")?;
        let version = package.get("version")?.as_str()?;
        Some((name.to_owned(), version.to_owned()))
    };
    packages.into_iter().flatten().filter_map(pair).collect()
}

/// The `[[package]]` tables of a TOML lock file, which programs write and always in this form.
fn toml(text: &str) -> Vec<(String, String)> {
    let value = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
        Some(rest.trim().trim_matches('"').to_owned())
    };
    let mut pairs = Vec::new();
    for table in text.split("[[package]]").skip(1) {
        let own = table.split("\n[").next().unwrap_or(table);
        let find = |key: &str| own.lines().find_map(|line| value(line, key));
        if let (Some(name), Some(version)) = (find("name"), find("version")) {
            pairs.push((name, version));
        }
    }
    pairs
}

/// What a package-url cannot hold as it is.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        match c {
            '@' | ' ' | '?' | '#' | '%' | '+' | ':' if c != ':' => {
                quoted.push_str(&format!("%{:02X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap();
    }

    #[test]
    fn packages_of_all_kinds_are_found_in_stacked_layers() {
        let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        file(lower.path(), "etc/os-release", "NAME=x\nID=debian\n");
        file(
            lower.path(),
            "var/lib/dpkg/status",
            "Package: old\nVersion: 1\n",
        );
        file(
            upper.path(),
            "var/lib/dpkg/status",
            "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2+d\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        );
        file(
            lower.path(),
            "lib/apk/db/installed",
            "C:Q1\nP:musl\nV:1.2-r0\nA:x86_64\n\n",
        );
        file(
            lower.path(),
            "app/package-lock.json",
            r#"{"packages":{"":{"version":"9"},"node_modules/@a/b":{"version":"2.0.0"}}}"#,
        );
        file(
            upper.path(),
            "srv/Cargo.lock",
            "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\ndependencies = [\n \"x\",\n]\n",
        );
        let layers = [upper.path().to_path_buf(), lower.path().to_path_buf()];
        let found = packages(&layers).unwrap();
        let purls: Vec<&str> = found.iter().map(|package| package.purl.as_str()).collect();
        assert_eq!(
            purls,
            [
                "pkg:npm/%40a/b@2.0.0",
                "pkg:apk/debian/musl@1.2-r0?arch=x86_64",
                "pkg:cargo/serde@1.0.1",
                "pkg:deb/debian/zlib1g@1:1.2%2Bd?arch=amd64",
            ]
        );
    }
}
