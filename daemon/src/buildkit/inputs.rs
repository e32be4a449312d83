//! The context of a build and its Dockerfile: from the client's session, or from elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder::NamedContext;
use tempfile::TempDir;

use super::board::{Board, Step};
use super::client::{Client, Wanted as Files};
use super::frontend::Asked;
use super::grpc::{Code, Status};
use crate::error::ApiError;
use crate::routes::build::context::{self, Inputs, MAX_DOCKERFILE, Means, Wanted};

/// How a client names an archive that it uploads.
const UPLOAD: &str = "http://buildkit-session/";

/// What contexts are got with.
pub(super) struct Sources<'a> {
    pub(super) asked: &'a Asked,
    pub(super) board: &'a Arc<Board>,
    pub(super) means: Means<'a>,
    /// The client, by the session that has a directory.
    pub(super) client: &'a dyn Fn(&str) -> Result<Client, Status>,
    /// The context, where it comes in a request of its own.
    pub(super) upload: &'a dyn Fn() -> Result<Box<dyn Read>, Status>,
}

/// A Dockerfile, with the step that read it.
pub(super) struct Definition {
    pub(super) step: Step,
    pub(super) name: String,
    pub(super) text: String,
    /// The `.dockerignore` beside it.
    ignore: Option<String>,
    /// The context that it came in.
    inputs: Option<Inputs>,
}

/// Further contexts, and the directories that they lie in.
pub(super) type Contexts = (BTreeMap<String, NamedContext>, Vec<TempDir>);

pub(super) fn refused(error: ApiError) -> Status {
    let code = match error.status {
        http::StatusCode::BAD_REQUEST => Code::InvalidArgument,
        http::StatusCode::NOT_FOUND => Code::NotFound,
        _ => Code::Unknown,
    };
    Status::new(code, error.message)
}

fn failed(what: &str, error: &io::Error) -> Status {
    Status::internal(format!("cannot {what}: {error}"))
}

impl Sources<'_> {
    /// Gets the Dockerfile.
    pub(super) fn definition(&self) -> Result<Definition, Status> {
        let filename = &self.asked.filename;
        let step = self
            .board
            .begin(&format!("[internal] load build definition from {filename}"));
        for warning in &self.asked.warnings {
            step.warn(warning);
        }
        match self.read_definition(&step) {
            Ok((inputs, name, text, ignore)) => Ok(Definition {
                step,
                name,
                text,
                ignore,
                inputs,
            }),
            Err(error) => {
                step.failed(&error.message);
                Err(error)
            }
        }
    }

    fn read_definition(
        &self,
        step: &Step,
    ) -> Result<(Option<Inputs>, String, String, Option<String>), Status> {
        let address = self.asked.remote.as_deref();
        match address.map(|address| self.remote(address)).transpose()? {
            Some(inputs) if !self.asked.is_dockerfile_local => {
                let (name, text) = (inputs.dockerfile_name.clone(), inputs.dockerfile.clone());
                Ok((Some(inputs), name, text, None))
            }
            inputs => {
                let (name, text, ignore) = self.local_dockerfile(step)?;
                Ok((inputs, name, text, ignore))
            }
        }
    }

    fn remote(&self, address: &str) -> Result<Inputs, Status> {
        let wanted = match self.asked.is_dockerfile_local {
            true => Wanted::Elsewhere,
            false => Wanted::InContext(Some(&self.asked.filename)),
        };
        match address.strip_prefix(UPLOAD) {
            None if address == super::classic::UPLOAD => {
                Inputs::of_archive((self.upload)()?, wanted, self.means)
            }
            Some(path) => {
                let archive = (self.client)(&self.asked.context)?.upload(&format!("/{path}"))?;
                Inputs::of_archive(archive, wanted, self.means)
            }
            None => Inputs::of_remote(address, wanted, self.means),
        }
        .map_err(refused)
    }

    /// The Dockerfile and its `.dockerignore` from the client.
    fn local_dockerfile(&self, step: &Step) -> Result<(String, String, Option<String>), Status> {
        let name = self.asked.filename.trim_start_matches('/');
        let ignore_name = format!("{name}.dockerignore");
        let mut follow = vec![name.to_owned(), ignore_name.clone()];
        // The name that is usual is found in small letters too.
        let lower = (Path::new(name).file_name() == Some("Dockerfile".as_ref()))
            .then(|| format!("{}dockerfile", name.trim_end_matches("Dockerfile")));
        follow.extend(lower.clone());
        let dir = self.means.directory().map_err(refused)?;
        let wanted = Files {
            follow,
            ..Files::default()
        };
        let local = &self.asked.dockerfile;
        (self.client)(local)?.receive(local, &wanted, dir.path(), step)?;
        let found = match read(dir.path(), name)? {
            Some(text) => Some(text),
            None => lower
                .map(|lower| read(dir.path(), &lower))
                .transpose()?
                .flatten(),
        };
        let text = found.ok_or_else(|| {
            let text = format!("failed to read dockerfile: open {name}: no such file or directory");
            Status::new(Code::NotFound, text)
        })?;
        Ok((name.to_owned(), text, read(dir.path(), &ignore_name)?))
    }

    /// Gets the context that the Dockerfile is about.
    pub(super) fn context(&self, definition: &mut Definition) -> Result<Inputs, Status> {
        if let Some(mut inputs) = definition.inputs.take() {
            inputs.dockerfile_name.clone_from(&definition.name);
            inputs.dockerfile.clone_from(&definition.text);
            if let Some(ignore) = definition.ignore.take() {
                inputs.ignore = ignore;
            }
            return Ok(inputs);
        }
        let local = &self.asked.context;
        let client = (self.client)(local)?;
        let ignore = match definition.ignore.take() {
            Some(ignore) => ignore,
            None => self.ignore_file(&client, local)?,
        };
        let dir = self.local(&client, local, &ignore, "[internal] load build context")?;
        let (name, text) = (definition.name.clone(), definition.text.clone());
        Ok(Inputs::new(dir, name, text, ignore))
    }

    fn ignore_file(&self, client: &Client, local: &str) -> Result<String, Status> {
        let step = self.board.begin("[internal] load .dockerignore");
        let dir = self.means.directory().map_err(refused)?;
        let wanted = Files {
            follow: vec![".dockerignore".to_owned()],
            ..Files::default()
        };
        client.receive(local, &wanted, dir.path(), &step)?;
        let text = read(dir.path(), ".dockerignore")?;
        step.done();
        Ok(text.unwrap_or_default())
    }

    fn local(
        &self,
        client: &Client,
        local: &str,
        ignore: &str,
        title: &str,
    ) -> Result<TempDir, Status> {
        let step = self.board.begin(title);
        let dir = self.means.directory().map_err(refused)?;
        let wanted = Files {
            exclude: patterns(ignore),
            ..Files::default()
        };
        match client.receive(local, &wanted, dir.path(), &step) {
            Ok(()) => step.done(),
            Err(error) => {
                step.failed(&error.message);
                return Err(error);
            }
        }
        Ok(dir)
    }

    /// Gets the further contexts.
    pub(super) fn contexts(&self) -> Result<Contexts, Status> {
        let mut all = Contexts::default();
        for (name, place) in &self.asked.contexts {
            let context = match place.split_once(':') {
                Some(("docker-image", image)) => {
                    NamedContext::Image(image.trim_start_matches("//").to_owned())
                }
                Some(("local", local)) => {
                    let dir = self.local_context(name, local)?;
                    let path = dir.path().to_path_buf();
                    all.1.push(dir);
                    NamedContext::Directory(path)
                }
                Some(("input" | "target" | "oci-layout", _)) => {
                    return Err(Status::unimplemented(format!(
                        "cannot use the context `{name}` of `{place}`: there are directories, images and repositories"
                    )));
                }
                _ => {
                    let (path, dir) = self.remote_context(place)?;
                    all.1.push(dir);
                    NamedContext::Directory(path)
                }
            };
            all.0.insert(name.clone(), context);
        }
        Ok(all)
    }

    fn local_context(&self, name: &str, local: &str) -> Result<TempDir, Status> {
        let client = (self.client)(local)?;
        let ignore = self.ignore_file(&client, local)?;
        let title = format!("[context {name}] load from client");
        self.local(&client, local, &ignore, &title)
    }

    fn remote_context(&self, address: &str) -> Result<(PathBuf, TempDir), Status> {
        let dir = self.means.directory().map_err(refused)?;
        let found = self.means.repository(address, dir.path());
        let found = found.map_err(refused)?.ok_or_else(|| {
            Status::unimplemented(format!(
                "cannot use `{address}` as a further context: it is no repository"
            ))
        })?;
        Ok((found, dir))
    }
}

fn read(dir: &Path, name: &str) -> Result<Option<String>, Status> {
    let bytes = builder::read_beneath(dir, Path::new(name), MAX_DOCKERFILE)
        .map_err(|error| failed(&format!("read `{name}` of the client"), &error))?;
    let text = bytes.map(|bytes| context::text(bytes, name)).transpose();
    text.map_err(refused)
}

/// The lines of a `.dockerignore` as clients take patterns: without comments, and relative.
fn patterns(ignore: &str) -> Vec<String> {
    let text = ignore.strip_prefix('\u{feff}').unwrap_or(ignore);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pattern = |line: &str| {
        let line = line.trim();
        let (bang, path) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if path.is_empty() {
            return None;
        }
        let clean = clean(path);
        (!clean.is_empty()).then(|| format!("{bang}{clean}"))
    };
    lines.filter_map(pattern).collect()
}

/// Without `.`, `..`, doubled slashes and the slash at the beginning.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_an_ignore_file_are_relative_and_clean() {
        let text = "\u{feff}# comment\n\n/target/\n !keep/./x \n../up\n*.log\n/\n!\na//b\n#x\n";
        assert_eq!(patterns(text), ["target", "!keep/x", "up", "*.log", "a/b"]);
    }
}
