//! Docker's store of contexts, which both programs use:
//!
//! ```text
//! contexts/meta/<sha256 of the name>/meta.json      where the daemon is
//! contexts/tls/<the same>/docker/{ca,cert,key}.pem  how it is spoken to
//! ```
//!
//! Which context is used is each program's own affair: docker has it in its configuration, ketch in
//! `context` below its root.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use image::Digest;
use serde_json::{Value, json};
use state::Layout;
use sys::durable::{Durability, make_private_dir, replace_file};

use super::endpoint::{Endpoint, TlsFiles};
use crate::render::Usage;

/// The context of the engine of this program itself.
pub(crate) const DEFAULT: &str = "default";

/// The files of TLS.
const TLS_FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// No file of a context is larger.
const MAX_FILE: u64 = 1 << 20;

/// A context.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Context {
    pub(crate) name: String,
    /// `meta.json`, with what others have put there.
    pub(crate) meta: Value,
}

impl Context {
    /// A new one.
    pub(crate) fn new(name: &str, description: &str, host: &Endpoint) -> anyhow::Result<Self> {
        check(name)?;
        let mut metadata = json!({});
        if !description.is_empty() {
            metadata["Description"] = json!(description);
        }
        Ok(Self {
            name: name.to_owned(),
            meta: json!({
                "Name": name,
                "Metadata": metadata,
                "Endpoints": { "docker": { "Host": host.to_string(), "SkipTLSVerify": false } },
            }),
        })
    }

    pub(crate) fn description(&self) -> &str {
        self.meta["Metadata"]["Description"]
            .as_str()
            .unwrap_or_default()
    }

    pub(crate) fn host(&self) -> &str {
        self.meta["Endpoints"]["docker"]["Host"]
            .as_str()
            .unwrap_or_default()
    }
}

/// Docker's pattern for names, and no name of its own.
fn check(name: &str) -> Result<(), Usage> {
    let is_first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    if !is_first || !name.chars().all(is_name) || name.len() < 2 {
        return Err(Usage(format!(
            "cannot use the context name `{name}`: it has letters, digits, `_`, `.`, `+` and `-`, two or more"
        )));
    }
    if name == DEFAULT {
        return Err(Usage(format!(
            "the context `{DEFAULT}` is this host, always"
        )));
    }
    Ok(())
}

/// All contexts.
pub(crate) struct Contexts {
    /// `contexts` in docker's configuration.
    dir: PathBuf,
    /// The file with the name of the one that is used.
    current: PathBuf,
}

impl Contexts {
    /// Those below docker's configuration, and which one this root uses.
    pub(crate) fn new(docker: &Path, layout: &Layout) -> Self {
        Self {
            dir: docker.join("contexts"),
            current: layout.root().join("context"),
        }
    }

    fn meta_file(&self, name: &str) -> PathBuf {
        self.dir.join("meta").join(id(name)).join("meta.json")
    }

    fn tls_dir(&self, name: &str) -> PathBuf {
        self.dir.join("tls").join(id(name))
    }

    /// The files of TLS of a context; `None` when it has none.
    pub(crate) fn tls(&self, name: &str) -> Option<TlsFiles> {
        let dir = self.tls_dir(name).join("docker");
        dir.join("ca.pem").exists().then_some(TlsFiles { dir })
    }

    /// Where its records are, for `inspect`.
    pub(crate) fn storage(&self, name: &str) -> Value {
        json!({
            "MetadataPath": self.dir.join("meta").join(id(name)),
            "TLSPath": self.tls_dir(name),
        })
    }

    pub(crate) fn get(&self, name: &str) -> anyhow::Result<Context> {
        let path = self.meta_file(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                anyhow::bail!("no such context: {name}")
            }
            bytes => bytes.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        read(&path, &bytes)
    }

    /// All of them by name.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<Context>> {
        let dir = self.dir.join("meta");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot list `{}`", dir.display()))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot list `{}`", dir.display()))?
                .path()
                .join("meta.json");
            // A directory without a record is one that is being made or removed.
            if let Ok(bytes) = fs::read(&path) {
                all.push(read(&path, &bytes)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Keeps a new context with its files of TLS, which are complete before its record is there.
    pub(crate) fn add(&self, context: &Context, tls: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        let path = self.meta_file(&context.name);
        if path.exists() {
            anyhow::bail!("the context `{}` is there already", context.name);
        }
        let dir = self.tls_dir(&context.name).join("docker");
        let failed = |path: &Path| format!("cannot write `{}`", path.display());
        for (name, bytes) in tls {
            make_private_dir(&dir).with_context(|| failed(&dir))?;
            let path = dir.join(name);
            replace_file(&path, bytes, Durability::Synced).with_context(|| failed(&path))?;
        }
        let parent = path.parent().context("a context has a directory")?;
        fs::create_dir_all(parent).with_context(|| failed(parent))?;
        let bytes = serde_json::to_vec(&context.meta)?;
        replace_file(&path, &bytes, Durability::Synced).with_context(|| failed(&path))
    }

    /// Forgets a context.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        check(name)?;
        self.get(name)?;
        let meta = self.dir.join("meta").join(id(name));
        // The record goes first: what is left then is no context.
        for dir in [meta, self.tls_dir(name)] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove `{}`", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The name of the one that is used; `None` for this host.
    pub(crate) fn current(&self) -> anyhow::Result<Option<String>> {
        match fs::read_to_string(&self.current) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => {
                let text =
                    text.with_context(|| format!("cannot read `{}`", self.current.display()))?;
                let name = text.trim();
                Ok((!name.is_empty() && name != DEFAULT).then(|| name.to_owned()))
            }
        }
    }

    /// Uses another one from now on.
    pub(crate) fn set_current(&self, name: &str) -> anyhow::Result<()> {
        if name != DEFAULT {
            self.get(name)?;
        }
        replace_file(&self.current, name.as_bytes(), Durability::Synced)
            .with_context(|| format!("cannot write `{}`", self.current.display()))
    }

    /// Writes a context to an archive, as docker does.
    pub(crate) fn export(&self, name: &str, to: impl Write) -> anyhow::Result<()> {
        let context = self.get(name)?;
        let mut archive = tar::Builder::new(to);
        let mut put = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(bytes.len())?);
            header.set_mode(0o600);
            archive
                .append_data(&mut header, path, bytes)
                .context("cannot write the archive")
        };
        put("meta.json", &serde_json::to_vec(&context.meta)?)?;
        let dir = self.tls_dir(name).join("docker");
        for file in TLS_FILES {
            if let Ok(bytes) = fs::read(dir.join(file)) {
                put(&format!("tls/docker/{file}"), &bytes)?;
            }
        }
        archive
            .into_inner()
            .and_then(|mut to| to.flush())
            .context("cannot write the archive")
    }

    /// Takes a context from an archive, under a name.
    pub(crate) fn import(&self, name: &str, from: impl io::Read) -> anyhow::Result<()> {
        check(name)?;
        let mut meta = None;
        let mut tls = Vec::new();
        let mut archive = tar::Archive::new(from);
        for entry in archive.entries().context("cannot read the archive")? {
            let mut entry = entry.context("cannot read the archive")?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut bytes = Vec::new();
            let read = entry.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes);
            read.context("cannot read the archive")?;
            if u64::try_from(bytes.len())? > MAX_FILE {
                anyhow::bail!("cannot use the archive: `{path}` is larger than 1 MiB");
            }
            let own = TLS_FILES
                .iter()
                .find(|file| path == format!("tls/docker/{file}"));
            match (path.as_str(), own) {
                ("meta.json", _) => meta = Some(bytes),
                (_, Some(file)) => tls.push(((*file).to_owned(), bytes)),
                _ => anyhow::bail!("cannot use the archive: `{path}` belongs to no context"),
            }
        }
        let bytes = meta.context("cannot use the archive: it has no meta.json")?;
        let mut context = read(Path::new("meta.json"), &bytes)?;
        name.clone_into(&mut context.name);
        context.meta["Name"] = json!(name);
        self.add(&context, &tls)
    }
}

/// The directory of a name.
fn id(name: &str) -> String {
    Digest::of(name.as_bytes()).hex()
}

fn read(path: &Path, bytes: &[u8]) -> anyhow::Result<Context> {
    let meta: Value = serde_json::from_slice(bytes)
        .with_context(|| format!("cannot use `{}`", path.display()))?;
    let name = meta["Name"].as_str();
    let name = name.with_context(|| format!("cannot use `{}`: it has no name", path.display()))?;
    Ok(Context {
        name: name.to_owned(),
        meta,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(dir: &Path) -> Contexts {
        let layout = Layout::open(dir.join("root"), dir.join("run")).unwrap();
        Contexts::new(&dir.join("docker"), &layout)
    }

    #[test]
    fn context_goes_through_an_archive_with_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let all = contexts(dir.path());
        let host: Endpoint = "tcp://h:2376".parse().unwrap();
        let context = Context::new("one", "the first", &host).unwrap();
        let tls = [("ca.pem".to_owned(), b"ca".to_vec())];
        all.add(&context, &tls).unwrap();
        assert!(all.add(&context, &[]).is_err());
        // Where docker looks for it.
        let known = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        assert!(
            dir.path()
                .join("docker/contexts/meta")
                .join(known)
                .join("meta.json")
                .exists()
        );
        let mut archive = Vec::new();
        all.export("one", &mut archive).unwrap();
        all.import("two", archive.as_slice()).unwrap();
        let two = all.get("two").unwrap();
        assert_eq!(
            (two.host(), two.description()),
            ("tcp://h:2376", "the first")
        );
        let files = all.tls("two").unwrap();
        assert_eq!(fs::read(files.dir.join("ca.pem")).unwrap(), b"ca");
        let names: Vec<String> = all.list().unwrap().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["one", "two"]);
        all.set_current("two").unwrap();
        assert_eq!(all.current().unwrap().as_deref(), Some("two"));
        assert!(all.set_current("three").is_err());
        all.set_current(DEFAULT).unwrap();
        assert_eq!(all.current().unwrap(), None);
        all.remove("one").unwrap();
        assert!(all.get("one").is_err() && all.remove("one").is_err());
    }

    #[test]
    fn archive_with_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let all = contexts(dir.path());
        let mut builder = tar::Builder::new(Vec::new());
        for path in ["meta.json", "tls/docker/other.pem"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(2);
            builder.append_data(&mut header, path, &b"{}"[..]).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        let error = all.import("one", archive.as_slice()).unwrap_err();
        assert!(error.to_string().contains("other.pem"), "{error}");
        for bad in ["default", "a", "a/b", "-ab", ""] {
            assert!(all.import(bad, &b""[..]).is_err(), "{bad}");
        }
    }
}
