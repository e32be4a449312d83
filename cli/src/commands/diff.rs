//! `ketch diff`, `ketch export` and `ketch commit`.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use engine::{CommitRequest, FileChangeKind};
use image::Reference;

use super::Invocation;
use crate::render::{self, Usage};

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Container, by name or id
    container: String,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File to write (default: standard output)
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Container, by name or id
    container: String,
}

/// Options of `commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// Note for the history
    #[arg(short, long)]
    message: Option<String>,
    /// Apply a Dockerfile instruction (can be repeated)
    #[arg(short, long)]
    change: Vec<String>,
    /// Pause the container meanwhile (default true)
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_name = "BOOL", action = clap::ArgAction::Set)]
    pause: bool,
    /// Let the container go on meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Container, by name or id
    container: String,
    /// Name of the image
    name: Option<String>,
}

/// Shows what a container has changed of its image.
pub(crate) fn diff(context: &Invocation, args: &DiffArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut output = io::stdout().lock();
    for change in engine.diff(&engine.container(&args.container)?)? {
        let kind = match change.kind {
            FileChangeKind::Added => 'A',
            FileChangeKind::Changed => 'C',
            FileChangeKind::Deleted => 'D',
        };
        let path = String::from_utf8_lossy(change.path.as_os_str().as_bytes()).into_owned();
        writeln!(output, "{kind} {}", render::clean(&path))?;
    }
    Ok(0)
}

/// Writes the files of a container as an archive.
pub(crate) fn export(context: &Invocation, args: &ExportArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.container(&args.container)?;
    let Some(path) = &args.output else {
        let output = io::stdout().lock();
        if output.is_terminal() {
            let text = "cannot write an archive to a terminal: add --output or redirect it";
            return Err(Usage(text.to_owned()).into());
        }
        engine.export(&container, io::BufWriter::new(output))?;
        return Ok(0);
    };
    let failed = || format!("cannot write `{}`", path.display());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")));
    let mut file = file.with_context(failed)?;
    engine.export(&container, io::BufWriter::new(&mut file))?;
    file.persist(path).with_context(failed)?;
    Ok(0)
}

/// Makes an image of a container.
pub(crate) fn commit(context: &Invocation, args: &CommitArgs) -> anyhow::Result<u8> {
    let request = CommitRequest {
        name: args.name.as_deref().map(Reference::parse).transpose()?,
        author: args.author.clone(),
        message: args.message.clone(),
        changes: args.change.clone(),
        running: args.no_pause || !args.pause,
        time: source_time()?,
    };
    let engine = context.engine()?;
    let (id, went_on) = engine.commit(&engine.container(&args.container)?, &request)?;
    if went_on {
        render::line("ketch: warning: the container went on meanwhile: it has no control group");
    }
    render::print(&id.to_string())?;
    Ok(0)
}

/// The time of `SOURCE_DATE_EPOCH`, as configs have it and in seconds.
fn source_time() -> anyhow::Result<Option<(String, i64)>> {
    let Some(text) = super::push::source_date()? else {
        return Ok(None);
    };
    let time = time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339)?;
    Ok(Some((text, time.unix_timestamp())))
}
