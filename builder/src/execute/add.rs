//! ADD of what is elsewhere: files of URLs and git repositories.

use std::fs::File;
use std::io::Seek;
use std::process::{Command, Stdio};

use image::{Digest, RemoteFile, fetch_url};

use super::Execution;
use super::copying::Order;
use super::stage::At;
use crate::cache::KeyBuilder;
use crate::copy::{Placer, Refusal, Selection, select};
use crate::error::BuildError;
use crate::ignore::{Ignore, clean};
use crate::stamps::hash;
use crate::tree::{HostTree, Tree};

/// The largest file of a URL.
const MAX_REMOTE: u64 = 16 << 30;

/// Something that ADD fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    Url(String),
    Git(Repository),
}

/// A git repository, a reference of it, and a directory in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Repository {
    url: String,
    reference: Option<String>,
    dir: Option<String>,
}

/// What was fetched.
pub(super) enum Fetched {
    File(RemoteFile),
    Checkout(tempfile::TempDir),
}

impl Remote {
    /// Reads a source of ADD: a path is none of these.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let (body, fragment) = match text.split_once('#') {
            Some((body, fragment)) => (body, Some(fragment)),
            None => (text, None),
        };
        let is_http = body.starts_with("http://") || body.starts_with("https://");
        let path = body.split('?').next().unwrap_or(body);
        let is_git = body.starts_with("git://")
            || body.starts_with("ssh://")
            || body.starts_with("git@")
            || (is_http && path.ends_with(".git"));
        if body.starts_with("file://") {
            return Err("a URL of the host's own files is no source".to_owned());
        }
        if !is_git {
            return Ok(is_http.then(|| Self::Url(text.to_owned())));
        }
        let mut repository = Repository {
            url: path.to_owned(),
            ..Repository::default()
        };
        if let Some(fragment) = fragment {
            let (reference, dir) = match fragment.split_once(':') {
                Some((reference, dir)) => (reference, Some(dir)),
                None => (fragment, None),
            };
            repository.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
            repository.dir = dir.filter(|text| !text.is_empty()).map(str::to_owned);
        }
        for pair in body
            .split_once('?')
            .map(|(_, query)| query.split('&'))
            .into_iter()
            .flatten()
        {
            match pair.split_once('=') {
                Some(("ref" | "branch" | "tag", value)) => {
                    repository.reference = Some(value.to_owned());
                }
                Some(("subdir", value)) => repository.dir = Some(value.to_owned()),
                _ => {
                    return Err(format!(
                        "`{pair}` is nothing that a repository is asked for"
                    ));
                }
            }
        }
        let is_sane = |text: &String| {
            !text.starts_with('-')
                && !text.contains("..")
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-/+@".contains(&byte))
        };
        if repository
            .reference
            .as_ref()
            .is_some_and(|text| !is_sane(text))
        {
            return Err("the reference of the repository is malformed".to_owned());
        }
        Ok(Some(Self::Git(repository)))
    }
}

impl Execution<'_> {
    /// Fetches what an ADD names, and adds what it is to the key.
    pub(super) fn fetch_remotes(
        &self,
        at: At<'_>,
        order: &Order<'_>,
        key: &mut KeyBuilder,
    ) -> Result<Vec<Fetched>, BuildError> {
        let mut all = Vec::new();
        for remote in &order.remotes {
            match remote {
                Remote::Url(url) => {
                    let mut file = self.fetch_file(at, order, url)?;
                    let digest = file
                        .file
                        .rewind()
                        .and_then(|()| hash(&file.file))
                        .map_err(|error| self.refused(at, error.into()))?;
                    key.add("url", &digest.to_string());
                    key.add("name", &file.name);
                    all.push(Fetched::File(file));
                }
                Remote::Git(repository) => {
                    let (dir, commit) = self.clone_repository(at, order, repository)?;
                    key.add("commit", &commit);
                    key.add("dir", repository.dir.as_deref().unwrap_or("-"));
                    all.push(Fetched::Checkout(dir));
                }
            }
        }
        Ok(all)
    }

    fn fetch_file(
        &self,
        at: At<'_>,
        order: &Order<'_>,
        url: &str,
    ) -> Result<RemoteFile, BuildError> {
        let what = format!("cannot fetch `{url}`");
        let mut file = fetch_url(
            url,
            &self.shared.engine.layout().tmp(),
            MAX_REMOTE,
            &self.shared.options.http,
        )
        .map_err(|error| BuildError::from(error).or_at(&at.place(url), &what))?;
        if let Some(expected) = &order.checksum {
            let expected = Digest::parse(expected).map_err(|_| {
                at.fail(
                    "--checksum",
                    format!("`{expected}` is no checksum: write `sha256:` and 64 digits"),
                )
            })?;
            let actual = file
                .file
                .rewind()
                .and_then(|()| hash(&file.file))
                .map_err(|error| self.refused(at, error.into()))?;
            if actual != expected {
                return Err(at.fail(
                    "--checksum",
                    format!("the file of `{url}` has the checksum {actual}"),
                ));
            }
        }
        Ok(file)
    }

    /// Clones a repository. What it brings is data: no hook, no filter, no submodule of a strange kind
    /// runs, and no file of the host is read by it.
    fn clone_repository(
        &self,
        at: At<'_>,
        order: &Order<'_>,
        repository: &Repository,
    ) -> Result<(tempfile::TempDir, String), BuildError> {
        let dir = self.shared.session.temporary("git-")?;
        let git = |args: &[&str]| -> Result<String, BuildError> {
            let mut command = Command::new("git");
            command
                .current_dir(dir.path())
                .env_clear()
                .env("PATH", "/usr/local/bin:/usr/bin:/bin")
                .env("HOME", dir.path())
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
                ])
                .args(args)
                .stdin(Stdio::null());
            if let Some(socket) = self.shared.options.ssh.get("default") {
                command.env("SSH_AUTH_SOCK", socket);
            }
            let output = command
                .output()
                .map_err(|error| self.refused(at, error.into()))?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                let last = text
                    .trim()
                    .lines()
                    .next_back()
                    .unwrap_or("git failed")
                    .to_owned();
                return Err(at.fail(
                    &repository.url,
                    format!("cannot get `{}`: {last}", repository.url),
                ));
            }
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        git(&["init", "--quiet", "checkout"])?;
        let reference = repository.reference.as_deref().unwrap_or("HEAD");
        let fetch = [
            "-C",
            "checkout",
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--",
            repository.url.as_str(),
            reference,
        ];
        git(&fetch)?;
        let commit = git(&["-C", "checkout", "rev-parse", "FETCH_HEAD^{commit}"])?;
        if let Some(expected) = &order.checksum
            && *expected != commit
        {
            return Err(at.fail(
                "--checksum",
                format!("the commit of `{}` is {commit}", repository.url),
            ));
        }
        git(&["-C", "checkout", "checkout", "--quiet", "--detach", &commit])?;
        git(&[
            "-C",
            "checkout",
            "submodule",
            "--quiet",
            "update",
            "--init",
            "--recursive",
            "--depth=1",
        ])?;
        Ok((dir, commit))
    }

    /// Puts what was fetched in its place.
    pub(super) fn place_remotes(
        &self,
        placer: &mut Placer<'_>,
        order: &Order<'_>,
        fetched: Vec<Fetched>,
        at: At<'_>,
    ) -> Result<(), BuildError> {
        let refused = |refusal| self.refused(at, refusal);
        let repositories = order.remotes.iter().map(|remote| match remote {
            Remote::Git(repository) => Some(repository),
            Remote::Url(_) => None,
        });
        for (fetched, repository) in fetched.into_iter().zip(repositories) {
            match (fetched, repository) {
                (Fetched::File(file), _) => place_file(placer, order, &file).map_err(refused)?,
                (Fetched::Checkout(dir), Some(repository)) => {
                    let root = dir.path().join("checkout");
                    let mut patterns = vec![".git", "**/.git"];
                    if order.copy.keep_git_dir {
                        patterns.clear();
                    }
                    let exclude =
                        Ignore::of(patterns.into_iter()).map_err(|what| at.fail("", what))?;
                    let tree = HostTree::open(&root, Ignore::default())
                        .map(Tree::Host)
                        .map_err(|error| refused(error.into()))?;
                    let dir = [clean(repository.dir.as_deref().unwrap_or("."))];
                    let selection = Selection {
                        sources: &dir,
                        keep_parents: false,
                        exclude: &exclude,
                    };
                    let picked = select(&tree, &selection)
                        .map_err(|error| self.not_picked(at, &tree, error))?;
                    if picked.iter().any(|one| !one.is_dir) {
                        return Err(at.fail(
                            &repository.url,
                            "what is named of the repository is no directory",
                        ));
                    }
                    placer.owner.get_or_insert((0, 0));
                    placer
                        .place(
                            &tree,
                            &picked,
                            &format!("{}/", order.destination.trim_end_matches('/')),
                        )
                        .map_err(refused)?;
                }
                (Fetched::Checkout(_), None) => {}
            }
        }
        Ok(())
    }
}

fn place_file(
    placer: &mut Placer<'_>,
    order: &Order<'_>,
    remote: &RemoteFile,
) -> Result<(), Refusal> {
    let mut file: &File = &remote.file;
    file.rewind()?;
    if order.copy.unpack == Some(true) && super::archive::is_tar(file) {
        return super::archive::unpack(
            placer,
            file,
            &order.destination,
            order.chown.as_ref().and(placer.owner),
        );
    }
    let path = match order.destination.strip_suffix('/') {
        Some(_) if remote.name.is_empty() => {
            return Err(Refusal::Rule(
                "the URL names no file, so the destination must".to_owned(),
            ));
        }
        Some(dir) => format!("{dir}/{}", remote.name),
        None => order.destination.clone(),
    };
    // Nobody but its owner may read it, as everywhere.
    placer.content(&path, 0o600, file.metadata()?.len(), &mut file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_paths_urls_and_repositories() {
        let git = |url: &str, reference: Option<&str>, dir: Option<&str>| {
            Ok(Some(Remote::Git(Repository {
                url: url.to_owned(),
                reference: reference.map(str::to_owned),
                dir: dir.map(str::to_owned),
            })))
        };
        assert_eq!(Remote::parse("a/b"), Ok(None));
        assert_eq!(
            Remote::parse("https://h/x.tgz"),
            Ok(Some(Remote::Url("https://h/x.tgz".to_owned())))
        );
        assert_eq!(
            Remote::parse("https://h/x.git"),
            git("https://h/x.git", None, None)
        );
        assert_eq!(
            Remote::parse("https://h/x.git#v1:sub"),
            git("https://h/x.git", Some("v1"), Some("sub"))
        );
        assert_eq!(
            Remote::parse("https://h/x.git?ref=v1&subdir=s"),
            git("https://h/x.git", Some("v1"), Some("s"))
        );
        assert_eq!(
            Remote::parse("git@h:x/y.git#:sub"),
            git("git@h:x/y.git", None, Some("sub"))
        );
        for bad in [
            "file:///etc/passwd",
            "https://h/x.git#--upload-pack=x",
            "https://h/x.git#a..b",
            "https://h/x.git?x=1",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad}");
        }
    }
}
