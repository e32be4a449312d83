//! Files of a container: archives in and out, changes, export.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::{
    Container, CopyOptions, Engine, EngineError, FileChangeKind, FollowLink, Local, Owner,
};
use http::StatusCode;
use rustix::fs::{FileType, Mode, OFlags};
use serde_json::{Value, json};
use state::clock;

use crate::body::{self, BodyReader, BodyWriter};
use crate::call::{Call, Reply, ok, status, streamed, with_header};
use crate::error::{ApiError, chain};

/// Where the answer says what a path is.
const STAT: &str = "x-docker-container-path-stat";

fn path(call: &Call) -> Result<PathBuf, ApiError> {
    let path = call.query.get("path");
    let path = path.ok_or_else(|| ApiError::bad("bad parameter: path is missing"))?;
    Ok(Path::new("/").join(path))
}

/// What a path in a container is, as the header says it.
fn describe(engine: &Engine, container: &Container, path: &Path) -> Result<String, ApiError> {
    let root = engine.open_root(container)?;
    let missing = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => ApiError::not_found(format!(
            "Could not find the file {} in container {}",
            path.display(),
            container.config.name
        )),
        other => ApiError::internal(format!("cannot look at `{}`: {other}", path.display())),
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = path.strip_prefix("/").unwrap_or(path);
    let beneath = if beneath.as_os_str().is_empty() {
        Path::new(".")
    } else {
        beneath
    };
    let file = rustix::fs::openat2(
        root.as_fd(),
        beneath,
        flags,
        Mode::empty(),
        rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(missing)?;
    let stat = rustix::fs::fstat(&file).map_err(missing)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let target = match kind {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&file, "", Vec::new()).map_err(missing)?;
            target.to_string_lossy().into_owned()
        }
        _ => String::new(),
    };
    let name = path
        .file_name()
        .map_or("/".into(), |name| name.to_string_lossy());
    let nanoseconds = stat
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0));
    let record = json!({
        "name": name,
        "size": stat.st_size,
        "mode": go_mode(kind, stat.st_mode),
        "mtime": clock::from_nanoseconds(nanoseconds),
        "linkTarget": target,
    });
    Ok(STANDARD.encode(record.to_string()))
}

/// The bits of Go's `fs.FileMode`.
fn go_mode(kind: FileType, mode: u32) -> u32 {
    let kind = match kind {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 23), (0o2000, 22), (0o1000, 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(kind | mode & 0o777, |all, (_, shift)| all | 1 << shift)
}

/// `HEAD /containers/{id}/archive`.
pub(crate) async fn stat(call: Call, id: &str) -> Reply {
    let (path, name) = (path(&call)?, id.to_owned());
    let described = call
        .daemon
        .run_apart(move |engine| describe(engine, &engine.container(&name)?, &path));
    with_header(status(StatusCode::OK), STAT, &described.await?)
}

/// `GET /containers/{id}/archive`.
pub(crate) async fn get(call: Call, id: &str) -> Reply {
    let (path, name) = (path(&call)?, id.to_owned());
    let asked = path.clone();
    let described = call.daemon.run_apart(move |engine| {
        let container = engine.container(&name)?;
        let text = describe(engine, &container, &asked)?;
        Ok((container, text))
    });
    let (container, described) = described.await?;
    let (sender, stream) = body::channel();
    let daemon = call.daemon.clone();
    tokio::spawn(async move {
        let copied = daemon.run_apart(move |engine| {
            let mut writer = BodyWriter::new(sender);
            let options = CopyOptions {
                follow: FollowLink::No,
                owner: Owner::Source,
            };
            engine.copy_out(&container, &path, Local::Stream(&mut writer), options)?;
            std::io::Write::flush(&mut writer)
                .map_err(|_| ApiError::internal("the client has hung up"))
        });
        if let Err(error) = copied.await {
            tracing::debug!(error = error.message, "an archive was not sent to its end");
        }
    });
    with_header(streamed("application/x-tar", stream), STAT, &described)
}

/// `PUT /containers/{id}/archive`.
pub(crate) async fn put(call: Call, id: &str) -> Reply {
    let (path, name) = (path(&call)?, id.to_owned());
    let no_overwrite = call.query.is_set("noOverwriteDirNonDir");
    tracing::debug!(no_overwrite, "directories never replace files here");
    let mut reader = BodyReader::new(call.body);
    let copied = call.daemon.run_apart(move |engine| {
        let container = engine.container(&name)?;
        let options = CopyOptions {
            follow: FollowLink::No,
            owner: Owner::Source,
        };
        let stream: &mut (dyn Read + '_) = &mut reader;
        match engine.copy_in(&container, Local::Stream(stream), &path, options) {
            Ok(_) => Ok(()),
            Err(error @ EngineError::ReadOnly { .. }) => {
                Err(ApiError::new(StatusCode::FORBIDDEN, chain(&error)))
            }
            Err(error) => Err(error.into()),
        }
    });
    copied.await?;
    status(StatusCode::OK)
}

/// `GET /containers/{id}/changes`.
pub(crate) async fn changes(call: Call, id: &str) -> Reply {
    let name = id.to_owned();
    let changes = call.daemon.run_apart(move |engine| {
        let changes = engine.diff(&engine.container(&name)?)?;
        let record = |change: &engine::FileChange| {
            let kind = match change.kind {
                FileChangeKind::Changed => 0,
                FileChangeKind::Added => 1,
                FileChangeKind::Deleted => 2,
            };
            json!({ "Path": change.path, "Kind": kind })
        };
        Ok(changes.iter().map(record).collect::<Vec<Value>>())
    });
    let changes = changes.await?;
    match changes.is_empty() {
        true => ok(&Value::Null),
        false => ok(&changes),
    }
}

/// `GET /containers/{id}/export`.
pub(crate) async fn export(call: Call, id: &str) -> Reply {
    let name = id.to_owned();
    let found = call.daemon.run(move |engine| Ok(engine.container(&name)?));
    let container = found.await?;
    let (sender, stream) = body::channel();
    let daemon = call.daemon.clone();
    tokio::spawn(async move {
        let exported = daemon.run_apart(move |engine| {
            let mut writer = BodyWriter::new(sender);
            engine.export(&container, &mut writer)?;
            engine.record_container_event(&container.config, "export", &[]);
            std::io::Write::flush(&mut writer)
                .map_err(|_| ApiError::internal("the client has hung up"))
        });
        if let Err(error) = exported.await {
            tracing::debug!(error = error.message, "an export was not sent to its end");
        }
    });
    streamed("application/x-tar", stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(
            go_mode(FileType::Directory, 0o041_777),
            1 << 31 | 1 << 20 | 0o777
        );
        assert_eq!(go_mode(FileType::RegularFile, 0o104_755), 1 << 23 | 0o755);
    }
}
