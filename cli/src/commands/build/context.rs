//! What is built from: the Dockerfile and the context, from a directory, an archive or standard input.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::render::Usage;

/// The largest Dockerfile.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// The inputs of a build.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) dockerfile_name: String,
    pub(super) dockerfile: String,
    pub(super) ignore: Option<String>,
    pub(super) directory: Option<PathBuf>,
    /// An unpacked archive goes when the build is done.
    _unpacked: Option<tempfile::TempDir>,
}

impl Inputs {
    pub(super) fn read(context: &str, file: Option<&str>) -> anyhow::Result<Self> {
        if context == "-" {
            if file == Some("-") {
                return Err(Usage(
                    "cannot read both context and Dockerfile from standard input".to_owned(),
                )
                .into());
            }
            return Self::from_stream(spooled(io::stdin().lock())?, file);
        }
        let path = Path::new(context);
        let meta = std::fs::metadata(path)
            .with_context(|| format!("cannot use the context `{context}`"))?;
        if meta.is_file() {
            let file_handle =
                File::open(path).with_context(|| format!("cannot read `{context}`"))?;
            return Self::from_stream(file_handle, file);
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
    fn from_stream(mut stream: File, file: Option<&str>) -> anyhow::Result<Self> {
        let mut head = Vec::new();
        stream.by_ref().take(512).read_to_end(&mut head)?;
        stream.seek(SeekFrom::Start(0))?;
        let is_compressed = image::Compression::detect(&head) != image::Compression::None;
        let is_tar = head.get(257..262).is_some_and(|mark| mark == b"ustar");
        if !is_compressed && !is_tar {
            let dockerfile = text(stream, "standard input")?;
            return Ok(Self {
                dockerfile_name: "Dockerfile".to_owned(),
                dockerfile,
                ignore: None,
                directory: None,
                _unpacked: None,
            });
        }
        let unpacked = tempfile::Builder::new()
            .prefix("ketch-context-")
            .tempdir()?;
        image::unpack_context(stream, unpacked.path())?;
        let directory = unpacked.path().to_path_buf();
        Self::of_directory(directory, file, Some(unpacked))
    }

    fn of_directory(
        directory: PathBuf,
        file: Option<&str>,
        unpacked: Option<tempfile::TempDir>,
    ) -> anyhow::Result<Self> {
        let (name, dockerfile, beside) = match file {
            Some("-") => (
                "-".to_owned(),
                text(io::stdin().lock(), "standard input")?,
                None,
            ),
            Some(name) => {
                let given = Path::new(name);
                // As it is written first, then in the context.
                let path = match unpacked.is_none() && given.exists() {
                    true => given.to_path_buf(),
                    false => directory.join(given),
                };
                (name.to_owned(), read(&path)?, Some(path))
            }
            None => {
                let path = directory.join("Dockerfile");
                let (path, name) = match path.exists() {
                    true => (path, "Dockerfile"),
                    false => (directory.join("Containerfile"), "Containerfile"),
                };
                if !path.exists() {
                    anyhow::bail!(
                        "cannot find a Dockerfile in the context `{}`",
                        directory.display()
                    );
                }
                (name.to_owned(), read(&path)?, Some(path))
            }
        };
        let mut ignore = None;
        if let Some(path) = beside {
            let mut own = path.into_os_string();
            own.push(".dockerignore");
            let own = PathBuf::from(own);
            if own.exists() {
                ignore = Some(super::read(&own)?);
            }
        }
        Ok(Self {
            dockerfile_name: name,
            dockerfile,
            ignore,
            directory: Some(directory),
            _unpacked: unpacked,
        })
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
