//! ADD of what is elsewhere: files of URLs and git repositories.

use std::fs::File;
use std::io::Seek;

use image::{Asked, Digest, RemoteFile, fetch_changed, fetch_url, name_of_url};

use super::Execution;
use super::copying::Order;
use super::stage::At;
use crate::cache::KeyBuilder;
use crate::copy::{Attributes, Placer, Refusal, Selection, select};
use crate::error::BuildError;
use crate::git::{CheckOutError, Repository};
use crate::ignore::{Ignore, clean};
use crate::stamps::hash;
use crate::tree::{HostTree, Tree};
use crate::urls::KnownFile;

/// The largest file of a URL.
const MAX_REMOTE: u64 = 16 << 30;

/// How many digits of a commit a checksum has at least.
const MIN_COMMIT: usize = 7;

/// Something that ADD fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    Url(String),
    Git(Repository),
}

/// What was fetched.
pub(super) enum Fetched {
    File(RemoteFile),
    Checkout(tempfile::TempDir),
    /// It is known what the file is, and nobody has needed its bytes yet.
    Known,
}

/// Whether what a file of a URL was before may stand for what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// When its checksum is given, or its server says that it is the same.
    Known,
    /// Never: its bytes are needed.
    Nothing,
}

impl Remote {
    /// Reads a source of ADD: a path is none of these.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let body = text.split('#').next().unwrap_or(text);
        let is_http = body.starts_with("http://") || body.starts_with("https://");
        if body.starts_with("file://") {
            return Err("a URL of the host's own files is no source".to_owned());
        }
        if let Some(repository) = Repository::parse(text)? {
            return Ok(Some(Self::Git(repository)));
        }
        Ok(is_http.then(|| Self::Url(text.to_owned())))
    }
}

impl Execution<'_> {
    /// Fetches what an ADD names, as far as it must be, and adds what it is to the key.
    pub(super) fn fetch_remotes(
        &self,
        at: At<'_>,
        order: &Order<'_>,
        trust: Trust,
        key: &mut KeyBuilder,
    ) -> Result<Vec<Fetched>, BuildError> {
        let mut all = Vec::new();
        for remote in &order.remotes {
            match remote {
                Remote::Url(url) => {
                    let (digest, modified, fetched) = self.find_file(at, order, trust, url)?;
                    key.add("url", &digest.to_string());
                    key.add("name", &name_of_url(url));
                    // Who says what the file is has said enough.
                    if order.checksum.is_none() {
                        let modified = modified.map(|modified| modified.min(self.shared.epoch));
                        key.add("modified", &format!("{modified:?}"));
                    }
                    all.push(fetched);
                }
                Remote::Git(repository) => {
                    let (dir, commit) = self.clone_repository(at, order, repository)?;
                    key.add("commit", &commit);
                    key.add("dir", repository.dir.as_deref().unwrap_or("-"));
                    key.add("submodules", &(!repository.no_submodules).to_string());
                    all.push(Fetched::Checkout(dir));
                }
            }
        }
        Ok(all)
    }

    /// What the file of a URL is, and when it was changed.
    fn find_file(
        &self,
        at: At<'_>,
        order: &Order<'_>,
        trust: Trust,
        url: &str,
    ) -> Result<(Digest, Option<i64>, Fetched), BuildError> {
        let expected = order.checksum.as_deref().map(|text| {
            Digest::parse(text).map_err(|_| {
                let what = format!("`{text}` is no checksum: write `sha256:` and 64 digits");
                at.fail("--checksum", what)
            })
        });
        let expected = expected.transpose()?;
        if let (Some(expected), Trust::Known) = (expected, trust) {
            return Ok((expected, None, Fetched::Known));
        }
        let (engine, http) = (self.shared.engine, &self.shared.options.http);
        let tmp = engine.layout().tmp();
        let what = format!("cannot fetch `{url}`");
        let failed =
            |error: image::ImageError| BuildError::from(error).or_at(&at.place(url), &what);
        let known = match trust {
            Trust::Known => KnownFile::read(engine, url),
            Trust::Nothing => None,
        };
        let mut file = match known {
            Some(known) => {
                let asked = fetch_changed(url, &known.validator, &tmp, MAX_REMOTE, http);
                match asked.map_err(failed)? {
                    Asked::Same => return Ok((known.digest, known.modified, Fetched::Known)),
                    Asked::Fetched(file) => file,
                }
            }
            None => fetch_url(url, &tmp, MAX_REMOTE, http).map_err(failed)?,
        };
        let digest = file
            .file
            .rewind()
            .and_then(|()| hash(&file.file))
            .map_err(|error| self.refused(at, error.into()))?;
        if expected.is_some_and(|expected| expected != digest) {
            let what = format!("the file of `{url}` has the checksum {digest}");
            return Err(at.fail("--checksum", what));
        }
        if let Some(validator) = file.validator.take() {
            let known = KnownFile::new(validator, digest, file.modified);
            if let Err(error) = known.write(engine, url) {
                tracing::debug!(%error, "what a file of a URL is was not written down");
            }
        }
        Ok((digest, file.modified, Fetched::File(file)))
    }

    fn clone_repository(
        &self,
        at: At<'_>,
        order: &Order<'_>,
        repository: &Repository,
    ) -> Result<(tempfile::TempDir, String), BuildError> {
        let dir = self.shared.session.temporary("git-")?;
        let agent = self.agent(at, "default")?;
        let commit = repository
            .check_out(dir.path(), agent.as_deref(), &|| self.is_stopped())
            .map_err(|failure| match failure {
                CheckOutError::Stopped => BuildError::Stopped,
                failure => at.fail(&repository.url, failure.to_string()),
            })?;
        if let Some(expected) = &order.checksum
            && (expected.len() < MIN_COMMIT || !commit.starts_with(expected.as_str()))
        {
            return Err(at.fail(
                "--checksum",
                format!("the commit of `{}` is {commit}", repository.url),
            ));
        }
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
                    if repository.keep_git_dir.unwrap_or(order.copy.keep_git_dir) {
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
                (Fetched::Checkout(_), None) | (Fetched::Known, _) => {}
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
        Some(dir) => format!("{dir}/{}", remote.name),
        None => order.destination.clone(),
    };
    let attributes = Attributes {
        // Nobody but its owner may read it, as everywhere.
        mode: 0o600,
        size: file.metadata()?.len(),
        modified: remote.modified,
    };
    placer.content(&path, &attributes, &mut file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_paths_urls_and_repositories() {
        assert_eq!(Remote::parse("a/b"), Ok(None));
        assert_eq!(
            Remote::parse("https://h/x.tgz"),
            Ok(Some(Remote::Url("https://h/x.tgz".to_owned())))
        );
        let git = Remote::parse("https://h/x.git#v1:sub");
        assert!(matches!(git, Ok(Some(Remote::Git(_)))));
        for bad in ["file:///etc/passwd", "https://h/x.git#--upload-pack=x"] {
            assert!(Remote::parse(bad).is_err(), "{bad}");
        }
    }
}
