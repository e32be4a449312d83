//! What is built from: the archive in the request, a repository, an archive or a Dockerfile elsewhere.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use builder::{CHECKOUT, Repository};
use tempfile::TempDir;

use super::Work;
use super::options::Asked;
use crate::error::{ApiError, chain};

/// The largest Dockerfile.
const MAX_DOCKERFILE: u64 = 4 << 20;
/// The largest context that is fetched.
const MAX_CONTEXT: u64 = 64 << 30;

const DOCKERFILE: &str = "Dockerfile";

/// A context and its Dockerfile.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) dockerfile_name: String,
    pub(super) dockerfile: String,
    pub(super) ignore: String,
    pub(super) directory: PathBuf,
    /// Goes when the build is done.
    _unpacked: TempDir,
}

impl Inputs {
    pub(super) fn read(asked: &Asked, body: impl Read, work: &Work<'_>) -> Result<Self, ApiError> {
        let tmp = work.engine.layout().tmp();
        let dir = tempfile::Builder::new()
            .prefix("context-")
            .tempdir_in(&tmp)
            .map_err(|error| failed("make a directory for the context", &error))?;
        let Some(remote) = &asked.remote else {
            image::unpack_context(body, dir.path())?;
            let directory = dir.path().to_path_buf();
            return Self::in_directory(directory, asked.dockerfile.as_deref(), dir);
        };
        let wrong = |why: &str| ApiError::bad(format!("cannot use the context `{remote}`: {why}"));
        if let Some(repository) = Repository::parse(remote).map_err(|why| wrong(&why))? {
            let is_stopped = || work.stop.load(Ordering::Relaxed);
            repository
                .check_out(dir.path(), None, &is_stopped)
                .map_err(|error| wrong(&chain(&error)))?;
            let root = std::fs::canonicalize(dir.path().join(CHECKOUT))
                .map_err(|error| failed("find the repository", &error))?;
            let named = root.join(repository.dir.as_deref().unwrap_or("."));
            let found = std::fs::canonicalize(&named)
                .ok()
                .filter(|found| found.starts_with(&root) && found.is_dir())
                .ok_or_else(|| wrong("it has no such directory"))?;
            return Self::in_directory(found, asked.dockerfile.as_deref(), dir);
        }
        if !remote.starts_with("http://") && !remote.starts_with("https://") {
            return Err(wrong("it is neither a repository nor an address"));
        }
        let fetched = image::fetch_url(remote, &tmp, MAX_CONTEXT, work.registry)?;
        Self::from_file(fetched.file, asked, dir)
    }

    /// An archive, or a Dockerfile alone.
    fn from_file(mut file: File, asked: &Asked, dir: TempDir) -> Result<Self, ApiError> {
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
            return Self::in_directory(directory, asked.dockerfile.as_deref(), dir);
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
        name: Option<&str>,
        unpacked: TempDir,
    ) -> Result<Self, ApiError> {
        let read = |name: &str| {
            let bytes = builder::read_beneath(&directory, Path::new(name), MAX_DOCKERFILE)
                .map_err(|error| failed("read a file of the context", &error))?;
            bytes.map(|bytes| text(bytes, name)).transpose()
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

fn text(bytes: Vec<u8>, name: &str) -> Result<String, ApiError> {
    String::from_utf8(bytes).map_err(|_| {
        ApiError::bad(format!(
            "cannot use `{name}` as a Dockerfile: it is no UTF-8 text"
        ))
    })
}
