//! Git repositories as sources: of ADD, and as contexts.
//!
//! The installed `git` fetches them. What a repository brings is data: no hook and no filter of it runs,
//! no submodule is taken from the host's own files, and the user's configuration plays no part.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::ignore::clean;

/// Where the files are, in the directory that was given.
pub const CHECKOUT: &str = "checkout";

/// How often a `git` that runs is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// How much of what `git` prints is read.
const MAX_OUTPUT: u64 = 64 * 1024;

/// A git repository, a reference of it, and a directory in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repository {
    /// Where it is fetched from.
    pub url: String,
    /// A branch, a tag or a commit; the default branch when absent.
    pub reference: Option<String>,
    /// The directory in it that is meant.
    pub dir: Option<String>,
    /// What its commit must begin with.
    pub checksum: Option<String>,
    /// Whether its `.git` stays; when absent, whoever asks decides.
    pub keep_git_dir: Option<bool>,
    /// Its submodules are left out.
    pub no_submodules: bool,
}

/// Why a repository could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckOutError {
    /// The build is to end.
    #[error("the build was stopped")]
    Stopped,
    /// `git` is not there or cannot be started.
    #[error("cannot run `git`: {0}")]
    Start(io::Error),
    /// `git` failed.
    #[error("cannot get `{url}`: {said}")]
    Failed {
        /// The repository.
        url: String,
        /// Its last words.
        said: String,
    },
}

impl Repository {
    /// Reads `URL[#reference[:directory]]` or `URL?ref=…&subdir=…`; `None` for what is no repository.
    ///
    /// # Errors
    /// Says what of it cannot be meant.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let (body, fragment) = match text.split_once('#') {
            Some((body, fragment)) => (body, Some(fragment)),
            None => (text, None),
        };
        let (path, query) = match body.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (body, None),
        };
        let is_http = path.starts_with("http://") || path.starts_with("https://");
        let is_git = path.starts_with("git://")
            || path.starts_with("ssh://")
            || path.starts_with("git@")
            || (is_http && path.ends_with(".git"));
        if !is_git {
            return Ok(None);
        }
        let mut repository = Self {
            url: path.to_owned(),
            ..Self::default()
        };
        if let Some(fragment) = fragment {
            let (reference, dir) = fragment.split_once(':').unwrap_or((fragment, ""));
            repository.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
            repository.dir = Some(dir.to_owned()).filter(|text| !text.is_empty());
        }
        for pair in query.map(|query| query.split('&')).into_iter().flatten() {
            match pair.split_once('=') {
                Some((kind @ ("ref" | "branch" | "tag"), value)) if !value.is_empty() => {
                    let prefix = match kind {
                        "branch" => "refs/heads/",
                        "tag" => "refs/tags/",
                        _ => "",
                    };
                    let name = value.strip_prefix(prefix).unwrap_or(value);
                    let reference = Some(format!("{prefix}{name}"));
                    if repository.reference.is_some() && repository.reference != reference {
                        return Err(format!("`{pair}` contradicts another reference"));
                    }
                    repository.reference = reference;
                }
                Some(("subdir", value)) if !value.is_empty() => {
                    repository.dir = Some(value.to_owned());
                }
                Some(("checksum" | "commit", value)) if is_commit(value) => {
                    repository.checksum = Some(value.to_ascii_lowercase());
                }
                Some(("keep-git-dir", value)) => repository.keep_git_dir = Some(flag(pair, value)?),
                Some(("submodules", value)) => repository.no_submodules = !flag(pair, value)?,
                // As it is always done.
                Some(("mtime", "checkout")) => {}
                None if pair == "keep-git-dir" => repository.keep_git_dir = Some(true),
                None if pair == "submodules" => repository.no_submodules = false,
                _ => {
                    return Err(format!(
                        "`{pair}` is nothing that a repository is asked for"
                    ));
                }
            }
        }
        if !repository.reference.as_deref().is_none_or(is_reference) {
            return Err("the reference of the repository is malformed".to_owned());
        }
        repository.dir = repository.dir.map(|dir| clean(&dir));
        Ok(Some(repository))
    }

    /// Fetches the repository into [`CHECKOUT`] below the empty directory `dir`, and gives the commit.
    /// `agent` is the socket of an SSH agent.
    ///
    /// # Errors
    /// When `git` cannot, with its last words.
    pub fn check_out(
        &self,
        dir: &Path,
        agent: Option<&Path>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<String, CheckOutError> {
        let git = Git {
            dir,
            agent,
            url: &self.url,
            is_stopped,
        };
        git.run(&["init", "--quiet", CHECKOUT])?;
        let reference = self.reference.as_ref().or(self.checksum.as_ref());
        let reference = reference.map_or("HEAD", String::as_str);
        let commit = match git.fetch(&["--depth=1"], &[reference]) {
            Ok(()) => git.commit("FETCH_HEAD")?,
            Err(CheckOutError::Failed { .. }) if is_commit(reference) => {
                // Not every server gives a commit that is no branch's newest, nor knows short names.
                git.fetch(&["--tags"], &["+refs/heads/*:refs/remotes/all/*"])?;
                git.commit(reference)?
            }
            // A server that only serves files knows no depth.
            Err(CheckOutError::Failed { said, .. }) if said.contains("shallow") => {
                git.fetch(&[], &[reference])?;
                git.commit("FETCH_HEAD")?
            }
            Err(error) => return Err(error),
        };
        if let Some(checksum) = &self.checksum
            && !commit.starts_with(checksum.as_str())
        {
            return Err(CheckOutError::Failed {
                url: self.url.clone(),
                said: format!("its commit is {commit} and not {checksum}"),
            });
        }
        git.inside(&["checkout", "--quiet", "--detach", &commit])?;
        if !self.no_submodules {
            let submodules = ["update", "--init", "--recursive", "--depth=1"];
            git.inside(&[["submodule", "--quiet"].as_slice(), &submodules].concat())?;
        }
        Ok(commit)
    }
}

/// What may be a reference: nothing that `git` takes for an option or a range.
fn is_reference(text: &str) -> bool {
    !text.starts_with('-')
        && !text.contains("..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/+@".contains(&byte))
}

fn flag(pair: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("`{pair}` is neither true nor false")),
    }
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Git<'a> {
    dir: &'a Path,
    agent: Option<&'a Path>,
    url: &'a str,
    is_stopped: &'a dyn Fn() -> bool,
}

impl Git<'_> {
    fn fetch(&self, options: &[&str], references: &[&str]) -> Result<(), CheckOutError> {
        let mut args = vec!["fetch", "--quiet"];
        args.extend(options);
        args.extend(["--", self.url]);
        args.extend(references);
        self.inside(&args).map(drop)
    }

    fn commit(&self, name: &str) -> Result<String, CheckOutError> {
        self.inside(&["rev-parse", "--verify", &format!("{name}^{{commit}}")])
    }

    fn inside(&self, args: &[&str]) -> Result<String, CheckOutError> {
        self.run(&[["-C", CHECKOUT].as_slice(), args].concat())
    }

    /// Runs `git` and gives what it prints.
    fn run(&self, args: &[&str]) -> Result<String, CheckOutError> {
        let (mut out, mut err) = (self.file()?, self.file()?);
        let mut command = Command::new("git");
        command
            .current_dir(self.dir)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.symlinks=true",
                "-c",
                "protocol.file.allow=never",
                "-c",
                "core.fsmonitor=false",
                "-c",
                "advice.detachedHead=false",
            ])
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(CheckOutError::Start)?)
            .stderr(err.try_clone().map_err(CheckOutError::Start)?);
        if let Some(socket) = self.agent {
            command.env("SSH_AUTH_SOCK", socket);
        }
        let mut child = command.spawn().map_err(CheckOutError::Start)?;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if (self.is_stopped)() => {
                    // It may have ended just now.
                    drop(child.kill());
                    drop(child.wait());
                    return Err(CheckOutError::Stopped);
                }
                Ok(None) => std::thread::sleep(PAUSE),
                Err(error) => return Err(CheckOutError::Start(error)),
            }
        };
        if status.success() {
            return Ok(text(&mut out).trim().to_owned());
        }
        let text = text(&mut err);
        // The first complaint is the cause; what follows it are consequences.
        let fatal = text.lines().find_map(|line| line.strip_prefix("fatal: "));
        let said = fatal
            .or_else(|| text.trim().lines().next_back())
            .unwrap_or("git failed");
        Err(CheckOutError::Failed {
            url: self.url.to_owned(),
            said: said.to_owned(),
        })
    }

    /// A file for output: a pipe that nobody reads would stop `git`.
    fn file(&self) -> Result<File, CheckOutError> {
        tempfile::tempfile_in(self.dir).map_err(CheckOutError::Start)
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(MAX_OUTPUT).read_to_end(&mut bytes));
    // What cannot be read was only going to be shown.
    drop(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_references_and_directories() {
        let git = |url: &str, reference: Option<&str>, dir: Option<&str>| {
            Ok(Some(Repository {
                url: url.to_owned(),
                reference: reference.map(str::to_owned),
                dir: dir.map(str::to_owned),
                ..Repository::default()
            }))
        };
        assert_eq!(Repository::parse("a/b"), Ok(None));
        assert_eq!(Repository::parse("https://h/x.tgz"), Ok(None));
        assert_eq!(
            Repository::parse("https://h/x.git"),
            git("https://h/x.git", None, None)
        );
        assert_eq!(
            Repository::parse("https://h/x.git#v1:../sub/"),
            git("https://h/x.git", Some("v1"), Some("sub"))
        );
        assert_eq!(
            Repository::parse("https://h/x.git?ref=v1&subdir=s"),
            git("https://h/x.git", Some("v1"), Some("s"))
        );
        assert_eq!(
            Repository::parse("git@h:x/y.git#:sub"),
            git("git@h:x/y.git", None, Some("sub"))
        );
        assert_eq!(
            Repository::parse("https://h/x.git?tag=v1"),
            git("https://h/x.git", Some("refs/tags/v1"), None)
        );
        let asked = "git@h:x?branch=b&commit=0123ABCD&keep-git-dir&submodules=false&mtime=checkout";
        let expected = Repository {
            url: "git@h:x".to_owned(),
            reference: Some("refs/heads/b".to_owned()),
            checksum: Some("0123abcd".to_owned()),
            keep_git_dir: Some(true),
            no_submodules: true,
            ..Repository::default()
        };
        assert_eq!(Repository::parse(asked), Ok(Some(expected)));
        for bad in [
            "https://h/x.git?ref=a&tag=b",
            "https://h/x.git?commit=xyz",
            "https://h/x.git?mtime=commit",
            "https://h/x.git?submodules=2",
            "https://h/x.git#--upload-pack=x",
            "https://h/x.git#a..b",
            "git://h/x?x=1",
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad}");
        }
    }
}
