//! What is built from: the Dockerfile and the context, from a directory, an archive or standard input.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use builder::{CHECKOUT, Repository};
use image::RegistryOptions;
use sys::durable;
use tempfile::TempDir;

use crate::render::Usage;

/// The largest Dockerfile.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// The largest context that is fetched from a URL.
const MAX_CONTEXT: u64 = 64 << 30;

/// The inputs of a build.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) dockerfile_name: String,
    pub(super) dockerfile: String,
    pub(super) ignore: Option<String>,
    pub(super) directory: Option<PathBuf>,
    /// The repository and the commit that it is.
    pub(super) source: Option<(String, String)>,
    /// What was unpacked or fetched goes when the build is done.
    _unpacked: Option<TempDir>,
}

/// What inputs are read with.
pub(super) struct Means<'a> {
    /// Where contexts are unpacked.
    pub(super) tmp: &'a Path,
    pub(super) registry: &'a RegistryOptions,
    /// The socket of the agent `default`.
    pub(super) agent: Option<&'a Path>,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
    pub(super) keep_git_dir: bool,
}

/// A repository that was fetched.
pub(super) struct CheckedOut {
    /// What holds it.
    pub(super) dir: TempDir,
    /// The directory that is meant.
    pub(super) found: PathBuf,
    commit: String,
}

impl Means<'_> {
    fn directory(&self) -> anyhow::Result<TempDir> {
        let made = tempfile::Builder::new()
            .prefix("context-")
            .tempdir_in(self.tmp);
        made.context("cannot make a directory for the context")
    }

    /// Fetches an archive and unpacks it.
    pub(super) fn fetch_archive(&self, url: &str) -> anyhow::Result<TempDir> {
        let failed = || format!("cannot use the context `{url}`");
        let fetched =
            image::fetch_url(url, self.tmp, MAX_CONTEXT, self.registry).with_context(failed)?;
        let mut file = fetched.file;
        file.seek(SeekFrom::Start(0))?;
        if !is_archive(&mut file)? {
            anyhow::bail!("cannot use the context `{url}`: it is no archive");
        }
        let dir = self.directory()?;
        image::unpack_context(file, dir.path()).with_context(failed)?;
        Ok(dir)
    }

    /// Fetches a repository.
    pub(super) fn check_out(&self, repository: &Repository) -> anyhow::Result<CheckedOut> {
        let dir = self.directory()?;
        let commit = repository
            .check_out(dir.path(), self.agent, &|| false)
            .with_context(|| format!("cannot use the context `{}`", repository.url))?;
        let root = std::fs::canonicalize(dir.path().join(CHECKOUT))?;
        if !repository.keep_git_dir.unwrap_or(self.keep_git_dir) {
            durable::remove_tree(&root.join(".git"))?;
        }
        let named = root.join(repository.dir.as_deref().unwrap_or("."));
        let found = std::fs::canonicalize(&named)
            .ok()
            .filter(|found| found.starts_with(&root) && found.is_dir());
        let Some(found) = found else {
            anyhow::bail!(
                "cannot use the context `{}`: it has no directory `{}`",
                repository.url,
                repository.dir.as_deref().unwrap_or(".")
            );
        };
        Ok(CheckedOut { dir, found, commit })
    }
}

impl Inputs {
    pub(super) fn read(
        context: &str,
        file: Option<&str>,
        means: &Means<'_>,
    ) -> anyhow::Result<Self> {
        if context == "-" {
            if file == Some("-") {
                return Err(Usage(
                    "cannot read both context and Dockerfile from standard input".to_owned(),
                )
                .into());
            }
            return Self::from_stream(spooled(io::stdin().lock())?, file, means);
        }
        let wrong = |why: String| Usage(format!("cannot use the context `{context}`: {why}"));
        if let Some(repository) = Repository::parse(context).map_err(wrong)? {
            let out = means.check_out(&repository)?;
            let mut inputs = Self::of_directory(out.found, file, Some(out.dir))?;
            inputs.source = Some((format!("git+{}", repository.url), out.commit));
            return Ok(inputs);
        }
        if context.starts_with("http://") || context.starts_with("https://") {
            let fetched = image::fetch_url(context, means.tmp, MAX_CONTEXT, means.registry)
                .with_context(|| format!("cannot fetch the context `{context}`"))?;
            return Self::from_stream(fetched.file, file, means);
        }
        let path = Path::new(context);
        let meta = std::fs::metadata(path)
            .with_context(|| format!("cannot use the context `{context}`"))?;
        if meta.is_file() {
            let file_handle =
                File::open(path).with_context(|| format!("cannot read `{context}`"))?;
            return Self::from_stream(file_handle, file, means);
        }
        let directory = std::fs::canonicalize(path)
            .with_context(|| format!("cannot use the context `{context}`"))?;
        Self::of_directory(directory, file, None)
    }

    /// The text of the `.dockerignore` that counts.
    pub(super) fn ignore(&self) -> anyhow::Result<Option<String>> {
        if self.ignore.is_some() {
            return Ok(self.ignore.clone());
        }
        let path = self
            .directory
            .as_ref()
            .map(|directory| directory.join(".dockerignore"));
        path.filter(|path| path.exists())
            .map(|path| super::read(&path))
            .transpose()
    }

    /// An archive, or the text of a Dockerfile.
    fn from_stream(
        mut stream: File,
        file: Option<&str>,
        means: &Means<'_>,
    ) -> anyhow::Result<Self> {
        stream.seek(SeekFrom::Start(0))?;
        if !is_archive(&mut stream)? {
            let dockerfile = text(stream, "standard input")?;
            return Ok(Self {
                dockerfile_name: "Dockerfile".to_owned(),
                dockerfile,
                ignore: None,
                directory: None,
                source: None,
                _unpacked: None,
            });
        }
        let unpacked = means.directory()?;
        image::unpack_context(stream, unpacked.path())?;
        let directory = unpacked.path().to_path_buf();
        Self::of_directory(directory, file, Some(unpacked))
    }

    fn of_directory(
        directory: PathBuf,
        file: Option<&str>,
        unpacked: Option<TempDir>,
    ) -> anyhow::Result<Self> {
        // What somebody else made is read without following its links out of it.
        let source = match (&unpacked, file) {
            (Some(_), _) => Place::Beneath(&directory),
            // As the user wrote it first, then in the context.
            (None, Some(name)) if Path::new(name).exists() => Place::Here(Path::new("")),
            (None, _) => Place::Here(&directory),
        };
        let (name, dockerfile) = match file {
            Some("-") => ("-", Some(text(io::stdin().lock(), "standard input")?)),
            Some(name) => (name, source.read(name)?),
            None => match source.read("Dockerfile")? {
                Some(text) => ("Dockerfile", Some(text)),
                None => ("Containerfile", source.read("Containerfile")?),
            },
        };
        let name = name.to_owned();
        let dockerfile = dockerfile.with_context(|| match file {
            Some(name) => format!("cannot find the Dockerfile `{name}`"),
            None => format!(
                "cannot find a Dockerfile in the context `{}`",
                directory.display()
            ),
        })?;
        let mut ignore = match name.as_str() {
            "-" => None,
            name => source.read(&format!("{name}.dockerignore"))?,
        };
        if unpacked.is_some() && ignore.is_none() {
            ignore = Some(source.read(".dockerignore")?.unwrap_or_default());
        }
        Ok(Self {
            dockerfile_name: name,
            dockerfile,
            ignore,
            directory: Some(directory),
            source: None,
            _unpacked: unpacked,
        })
    }
}

/// Whether a file is an archive, plain or compressed, by its first bytes.
fn is_archive(file: &mut File) -> io::Result<bool> {
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let is_compressed = image::Compression::detect(&head) != image::Compression::None;
    Ok(is_compressed || head.get(257..262).is_some_and(|mark| mark == b"ustar"))
}

/// Where the files are that a build reads itself.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// In a directory of the user.
    Here(&'a Path),
    /// In a directory that somebody else made.
    Beneath(&'a Path),
}

impl Place<'_> {
    /// The text of a file; `None` when it is not there.
    fn read(self, name: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::Beneath(dir) => {
                let bytes = builder::read_beneath(dir, Path::new(name), MAX_DOCKERFILE)
                    .with_context(|| format!("cannot read `{name}` of the context"))?;
                bytes.map(|bytes| text(bytes.as_slice(), name)).transpose()
            }
            Self::Here(dir) => {
                let path = dir.join(name);
                path.exists().then(|| read(&path)).transpose()
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read `{shown}`"))?;
    text(file, &shown)
}

fn text(reader: impl Read, name: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{name}`"))?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        anyhow::bail!("cannot use `{name}` as a Dockerfile: it is larger than 4 MiB");
    }
    String::from_utf8(bytes)
        .map_err(|_| anyhow::anyhow!("cannot use `{name}` as a Dockerfile: it is no UTF-8 text"))
}

/// Standard input as a file, to be read twice.
fn spooled(mut reader: impl Read) -> anyhow::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut reader, &mut file).context("cannot read the context from standard input")?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
