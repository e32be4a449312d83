//! What is built from: the archive in the request, a repository, an archive or a Dockerfile elsewhere.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use builder::{CHECKOUT, Repository};
use engine::Engine;
use image::RegistryOptions;
use tempfile::TempDir;

use crate::error::{ApiError, chain};

/// The largest Dockerfile.
pub(crate) const MAX_DOCKERFILE: u64 = 4 << 20;
/// The largest context that is fetched.
const MAX_CONTEXT: u64 = 64 << 30;

const DOCKERFILE: &str = "Dockerfile";

/// What contexts are got with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) registry: &'a RegistryOptions,
    pub(crate) stop: &'a AtomicBool,
    /// The socket of an SSH agent, for repositories.
    pub(crate) agent: Option<&'a Path>,
}

impl Means<'_> {
    /// A directory for a context; it goes with what is given back.
    pub(crate) fn directory(&self) -> Result<TempDir, ApiError> {
        tempfile::Builder::new()
            .prefix("context-")
            .tempdir_in(self.engine.layout().tmp())
            .map_err(|error| failed("make a directory for the context", &error))
    }

    /// Fetches a repository into an empty directory, and gives the directory in it that is meant;
    /// `None` for an address that is no repository.
    pub(crate) fn repository(
        &self,
        address: &str,
        dir: &Path,
    ) -> Result<Option<PathBuf>, ApiError> {
        let wrong = |why: &str| ApiError::bad(format!("cannot use the context `{address}`: {why}"));
        let Some(repository) = Repository::parse(address).map_err(|why| wrong(&why))? else {
            return Ok(None);
        };
        let is_stopped = || self.stop.load(Ordering::Relaxed);
        repository
            .check_out(dir, self.agent, &is_stopped)
            .map_err(|error| wrong(&chain(&error)))?;
        let root = std::fs::canonicalize(dir.join(CHECKOUT))
            .map_err(|error| failed("find the repository", &error))?;
        let named = root.join(repository.dir.as_deref().unwrap_or("."));
        std::fs::canonicalize(&named)
            .ok()
            .filter(|found| found.starts_with(&root) && found.is_dir())
            .map(Some)
            .ok_or_else(|| wrong("it has no such directory"))
    }
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// In the context, under this name or the usual one.
    InContext(Option<&'a str>),
    /// Elsewhere: the caller brings it.
    Elsewhere,
}

/// A context and its Dockerfile.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) dockerfile_name: String,
    pub(crate) dockerfile: String,
    pub(crate) ignore: String,
    pub(crate) directory: PathBuf,
    /// Goes when the build is done.
    _unpacked: TempDir,
}

impl Inputs {
    /// A context elsewhere.
    pub(crate) fn of_remote(
        address: &str,
        dockerfile: Wanted<'_>,
        means: Means<'_>,
    ) -> Result<Self, ApiError> {
        let dir = means.directory()?;
        if let Some(found) = means.repository(address, dir.path())? {
            return Self::in_directory(found, dockerfile, dir);
        }
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(ApiError::bad(format!(
                "cannot use the context `{address}`: it is neither a repository nor an address"
            )));
        }
        let tmp = means.engine.layout().tmp();
        let fetched = image::fetch_url(address, &tmp, MAX_CONTEXT, means.registry)?;
        Self::from_file(fetched.file, dockerfile, dir)
    }

    /// A context that comes as an archive.
    pub(crate) fn of_archive(
        archive: impl Read,
        dockerfile: Wanted<'_>,
        means: Means<'_>,
    ) -> Result<Self, ApiError> {
        let dir = means.directory()?;
        image::unpack_context(archive, dir.path())?;
        let directory = dir.path().to_path_buf();
        Self::in_directory(directory, dockerfile, dir)
    }

    /// A context that lies in a directory already, and its Dockerfile.
    pub(crate) fn new(unpacked: TempDir, name: String, dockerfile: String, ignore: String) -> Self {
        Self {
            dockerfile_name: name,
            dockerfile,
            ignore,
            directory: unpacked.path().to_path_buf(),
            _unpacked: unpacked,
        }
    }

    /// An archive, or a Dockerfile alone.
    fn from_file(mut file: File, dockerfile: Wanted<'_>, dir: TempDir) -> Result<Self, ApiError> {
        let broken = |error| failed("read the context", &error);
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(broken)?;
        file.by_ref()
            .take(512)
            .read_to_end(&mut head)
            .map_err(broken)?;
        file.seek(SeekFrom::Start(0)).map_err(broken)?;
        let is_compressed = image::Compression::detect(&head) != image::Compression::None;
        let is_tar = head.get(257..262).is_some_and(|mark| mark == b"ustar");
        if is_compressed || is_tar {
            image::unpack_context(file, dir.path())?;
            let directory = dir.path().to_path_buf();
            return Self::in_directory(directory, dockerfile, dir);
        }
        let mut bytes = Vec::new();
        file.take(MAX_DOCKERFILE)
            .read_to_end(&mut bytes)
            .map_err(broken)?;
        Ok(Self {
            dockerfile_name: DOCKERFILE.to_owned(),
            dockerfile: text(bytes, DOCKERFILE)?,
            ignore: String::new(),
            directory: dir.path().to_path_buf(),
            _unpacked: dir,
        })
    }

    /// What somebody else made is read without following its links out of it.
    fn in_directory(
        directory: PathBuf,
        dockerfile: Wanted<'_>,
        unpacked: TempDir,
    ) -> Result<Self, ApiError> {
        let read = |name: &str| {
            let bytes = builder::read_beneath(&directory, Path::new(name), MAX_DOCKERFILE)
                .map_err(|error| failed("read a file of the context", &error))?;
            bytes.map(|bytes| text(bytes, name)).transpose()
        };
        let Wanted::InContext(name) = dockerfile else {
            return Ok(Self {
                dockerfile_name: String::new(),
                dockerfile: String::new(),
                ignore: read(".dockerignore")?.unwrap_or_default(),
                directory,
                _unpacked: unpacked,
            });
        };
        let name = name.unwrap_or(DOCKERFILE).trim_start_matches('/');
        let dockerfile = read(name)?
            .ok_or_else(|| ApiError::bad(format!("Cannot locate specified Dockerfile: {name}")))?;
        let ignore = match read(&format!("{name}.dockerignore"))? {
            Some(ignore) => ignore,
            None => read(".dockerignore")?.unwrap_or_default(),
        };
        Ok(Self {
            dockerfile_name: name.to_owned(),
            dockerfile,
            ignore,
            directory,
            _unpacked: unpacked,
        })
    }
}

fn failed(what: &str, error: &io::Error) -> ApiError {
    ApiError::internal(format!("cannot {what}: {error}"))
}

/// A Dockerfile's text.
pub(crate) fn text(bytes: Vec<u8>, name: &str) -> Result<String, ApiError> {
    String::from_utf8(bytes).map_err(|_| {
        ApiError::bad(format!(
            "cannot use `{name}` as a Dockerfile: it is no UTF-8 text"
        ))
    })
}
