//! The mounts of a RUN: what is mounted where, and what it counts for in the cache.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use engine::{StepMount, StepSource};
use image::{BuiltLayer, Store};

use super::cache_mount::{self, CacheMount, Look};
use super::stage::At;
use super::state::State;
use super::stubs::Point;
use super::{Execution, lock};
use crate::cache::KeyBuilder;
use crate::copy::{Placer, Selection, content_digest, select};
use crate::dockerfile::{MountKind, Run, expand};
use crate::error::BuildError;
use crate::ignore::{Ignore, clean};
use crate::options::SecretSource;
use crate::tree::Tree;

/// A mount with its variables replaced.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    target: String,
    /// The target stands in the file.
    is_given: bool,
    kind: MountKind,
}

/// Everything that must stay until the step has ended.
#[derive(Default)]
pub(super) struct Mounted<'a> {
    pub(super) mounts: Vec<StepMount>,
    pub(super) points: Vec<(String, Point)>,
    /// Variables that secrets and agents bring.
    pub(super) env: Vec<String>,
    caches: Vec<CacheMount>,
    files: Vec<tempfile::TempDir>,
    copies: Vec<BuiltLayer>,
    overlays: Vec<Overlay<'a>>,
}

/// A stage's files, mounted on the host for one step.
struct Overlay<'a> {
    store: &'a Store,
    target: PathBuf,
}

impl Drop for Overlay<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.store.unmount_layers(&self.target) {
            tracing::warn!(%error, "a stage stays mounted");
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Before the directories that they lie in go.
        self.overlays.clear();
    }
}

impl<'a> Execution<'a> {
    /// Replaces variables and gives every mount its target.
    pub(super) fn plan_mounts(
        &self,
        state: &State,
        at: At<'_>,
        run: &Run,
    ) -> Result<Vec<Planned>, BuildError> {
        let mut planned: Vec<Planned> = Vec::new();
        let mut agents = 0;
        let lookup = |name: &str| state.scope.lookup(&state.config.config, name);
        let replace = |text: &str| -> Result<String, String> {
            let expanded = expand::word(text, at.file.escape, &lookup)?;
            self.note_unset(state, at, &expanded);
            Ok(expanded.joined())
        };
        for mount in &run.mounts {
            let mount = mount
                .resolved(&replace)
                .map_err(|what| at.fail("--mount", what))?;
            let (given, kind) = (mount.target, mount.kind);
            let is_given = given.is_some();
            let target = match (given, &kind) {
                (Some(target), _) => state.absolute(&target),
                (None, MountKind::Secret { id, .. }) => {
                    format!("/run/secrets/{}", id.as_deref().unwrap_or_default())
                }
                (None, _) => format!("/run/buildkit/ssh_agent.{agents}"),
            };
            agents += usize::from(matches!(kind, MountKind::Ssh { .. }));
            let target = format!("/{}", clean(&target));
            if target == "/" {
                return Err(at.fail("--mount", "nothing can be mounted over the root"));
            }
            planned.push(Planned {
                target,
                is_given,
                kind,
            });
        }
        Ok(planned)
    }

    /// Adds to the key what a mount is. Never what a secret or a cache holds.
    pub(super) fn mount_key(
        &self,
        at: At<'_>,
        planned: &[Planned],
        key: &mut KeyBuilder,
    ) -> Result<(), BuildError> {
        for mount in planned {
            key.add("mount", &mount.target);
            match &mount.kind {
                MountKind::Bind {
                    from,
                    source,
                    writable,
                } => {
                    key.add("bind", &format!("{writable}"));
                    let tree = self.tree(at, from.as_deref())?;
                    match &tree.chain {
                        Some(chain) => {
                            key.add("chain", chain);
                            key.add("source", source);
                        }
                        None => {
                            let picked = self.pick_one(at, &tree.tree, source)?;
                            let stamps = if from.is_none() {
                                self.stamps.as_ref()
                            } else {
                                None
                            };
                            let digest = content_digest(&tree.tree, &picked, stamps)
                                .map_err(|error| self.refused(at, error.into()))?;
                            key.add("content", &digest.to_string());
                        }
                    }
                }
                MountKind::Cache { id, readonly, .. } => {
                    let id = id.as_deref().unwrap_or(&mount.target);
                    key.add("cache", &self.shared.switches.cache_id(id));
                    key.add("readonly", &readonly.to_string());
                }
                MountKind::Tmpfs { size } => key.add("tmpfs", &format!("{size:?}")),
                MountKind::Secret {
                    id,
                    env,
                    mode,
                    uid,
                    gid,
                    ..
                } => {
                    key.add("secret", &format!("{id:?} {env:?} {mode:o} {uid} {gid}"));
                }
                MountKind::Ssh {
                    id, mode, uid, gid, ..
                } => key.add("ssh", &format!("{id:?} {mode:o} {uid} {gid}")),
            }
        }
        Ok(())
    }

    fn pick_one(
        &self,
        at: At<'_>,
        tree: &Tree,
        source: &str,
    ) -> Result<Vec<crate::copy::Picked>, BuildError> {
        // A path, whatever characters are in it.
        let escaped: String = clean(source)
            .chars()
            .flat_map(|c| {
                ['\\']
                    .into_iter()
                    .filter(move |_| "*?[\\".contains(c))
                    .chain([c])
            })
            .collect();
        let selection = Selection {
            sources: &[escaped],
            keep_parents: false,
            exclude: &Ignore::default(),
        };
        select(tree, &selection).map_err(|error| self.not_picked(at, tree, error))
    }

    /// Gets everything ready that is mounted.
    pub(super) fn mount(&self, at: At<'_>, planned: &[Planned]) -> Result<Mounted<'a>, BuildError> {
        let mut mounted = Mounted::default();
        for mount in planned {
            match &mount.kind {
                MountKind::Bind {
                    from,
                    source,
                    writable,
                } => {
                    self.bind(
                        &mut mounted,
                        at,
                        &mount.target,
                        from.as_deref(),
                        source,
                        *writable,
                    )?;
                }
                MountKind::Cache { .. } => self.cache_mount(&mut mounted, at, mount)?,
                MountKind::Tmpfs { size } => {
                    let options = size
                        .map(|size| format!("size={size}"))
                        .into_iter()
                        .collect();
                    mounted.add(
                        &mount.target,
                        StepSource::Memory(options),
                        false,
                        Point::Directory,
                    );
                }
                MountKind::Secret { .. } => self.secret(&mut mounted, at, mount)?,
                MountKind::Ssh { id, required, .. } => {
                    let id = id.as_deref().unwrap_or("default");
                    match self.agent(at, id)? {
                        Some(socket) => {
                            mounted.add(
                                &mount.target,
                                StepSource::Path(socket),
                                false,
                                Point::File,
                            );
                            mounted.env.push(format!("SSH_AUTH_SOCK={}", mount.target));
                        }
                        None if *required => {
                            return Err(at
                                .fail("--mount", format!("there is no SSH agent `{id}`"))
                                .with_hint(format!("give one with `--ssh {id}`")));
                        }
                        None => {}
                    }
                }
            }
        }
        Ok(mounted)
    }

    fn bind(
        &self,
        mounted: &mut Mounted<'a>,
        at: At<'_>,
        target: &str,
        from: Option<&str>,
        source: &str,
        writable: bool,
    ) -> Result<(), BuildError> {
        let tree = self.tree(at, from)?;
        let failed = BuildError::io("prepare a mount");
        let (path, point) = match &*tree.tree {
            // Files of the host are copied: who edits them while the step runs edits others, and what
            // .dockerignore hides is not there.
            Tree::Host(_) => {
                let picked = self.pick_one(at, &tree.tree, source)?;
                let is_dir = picked.iter().any(|one| one.is_dir);
                let refused = |refusal| self.refused(at, refusal);
                let mut placer =
                    Placer::new(self.shared.session, None, self.shared.epoch).map_err(refused)?;
                placer.place(&tree.tree, &picked, "/").map_err(refused)?;
                let copy = placer.finish().map_err(refused)?;
                let name = picked
                    .first()
                    .map(|one| String::from_utf8_lossy(&one.name).into_owned())
                    .unwrap_or_default();
                let path = if is_dir {
                    copy.root()
                } else {
                    copy.root().join(name)
                };
                mounted.copies.push(copy);
                (
                    path,
                    if is_dir {
                        Point::Directory
                    } else {
                        Point::File
                    },
                )
            }
            Tree::Layers(root) => {
                let found = root
                    .lookup(Path::new(&format!("/{}", clean(source))))
                    .map_err(|error| {
                        BuildError::from(error)
                            .or_at(&at.place("--mount"), &format!("cannot mount `{source}`"))
                    })?;
                let point = if found.is_dir() {
                    Point::Directory
                } else {
                    Point::File
                };
                let store = self.shared.engine.store();
                let base = self.shared.engine.layout().run().join("build");
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&base)
                    .map_err(&failed)?;
                let dir = tempfile::Builder::new()
                    .prefix("mount-")
                    .tempdir_in(&base)
                    .map_err(&failed)?;
                let place = dir.path().join("root");
                fs::create_dir(&place).map_err(&failed)?;
                let scratch = self.shared.session.temporary("mount-")?;
                let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
                fs::create_dir(&upper)
                    .and_then(|()| fs::create_dir(&work))
                    .map_err(&failed)?;
                let over = writable.then_some((upper.as_path(), work.as_path()));
                store.mount_layers(root.dirs(), over, &place)?;
                mounted.overlays.push(Overlay {
                    store,
                    target: place.clone(),
                });
                mounted.files.extend([dir, scratch]);
                // The path has no links any more, and nobody can change the layers.
                let below = found.path.strip_prefix("/").unwrap_or(&found.path);
                (place.join(below), point)
            }
        };
        mounted.add(target, StepSource::Path(path), !writable, point);
        Ok(())
    }

    fn cache_mount(
        &self,
        mounted: &mut Mounted<'a>,
        at: At<'_>,
        mount: &Planned,
    ) -> Result<(), BuildError> {
        let MountKind::Cache {
            id,
            from,
            source,
            readonly,
            sharing,
            mode,
            uid,
            gid,
        } = &mount.kind
        else {
            return Ok(());
        };
        let id = id.as_deref().unwrap_or(&mount.target);
        let id = self.shared.switches.cache_id(id);
        // What is mounted of a source is a cache of its own.
        let name = match (from, source.as_str()) {
            (None, "/") => id,
            (from, source) => format!(
                "{id}\n{}\n{}",
                from.as_deref().unwrap_or_default(),
                clean(source)
            ),
        };
        let look = Look {
            mode: *mode,
            uid: *uid,
            gid: *gid,
        };
        let fill = |root: &Path| -> Result<(), BuildError> {
            if let Some(dir) = &self.shared.options.cache_mounts_from
                && crate::exchange::import_mount(self.shared.engine, dir, &name, root)?
            {
                return Ok(());
            }
            let Some(from) = from else { return Ok(()) };
            let tree = self.tree(at, Some(from))?;
            let picked = self.pick_one(at, &tree.tree, source)?;
            let refused = |refusal| self.refused(at, refusal);
            let mut placer =
                Placer::new(self.shared.session, None, self.shared.epoch).map_err(refused)?;
            placer.place(&tree.tree, &picked, "/").map_err(refused)?;
            let copy = placer.finish().map_err(refused)?;
            sys::durable::publish(&copy.root(), root, sys::durable::Durability::Atomic)
                .map_err(BuildError::io("fill the cache of a mount"))
        };
        let cache = cache_mount::take(self.shared.engine, &name, *sharing, look, fill, || {
            self.is_stopped()
        })?;
        mounted.add(
            &mount.target,
            StepSource::Path(cache.dir.clone()),
            *readonly,
            Point::Directory,
        );
        lock(&self.used_mounts).insert(name, cache.dir.clone());
        mounted.caches.push(cache);
        Ok(())
    }

    /// An SSH agent: of the options, or of who is asked.
    pub(super) fn agent(&self, at: At<'_>, id: &str) -> Result<Option<PathBuf>, BuildError> {
        let options = self.shared.options;
        match (options.ssh.get(id), &options.ask) {
            (Some(socket), _) => Ok(Some(socket.clone())),
            (None, Some(ask)) => (ask.agent)(id).map_err(|why| {
                at.fail(
                    "--mount",
                    format!("the SSH agent `{id}` cannot be used: {why}"),
                )
            }),
            (None, None) => Ok(None),
        }
    }

    /// A secret: of the options, or of who is asked.
    fn secret_source(&self, at: At<'_>, id: &str) -> Result<Option<SecretSource>, BuildError> {
        let options = self.shared.options;
        match (options.secrets.get(id), &options.ask) {
            (Some(source), _) => Ok(Some(source.clone())),
            (None, Some(ask)) => (ask.secret)(id)
                .map(|value| value.map(SecretSource::Value))
                .map_err(|why| {
                    at.fail(
                        "--mount",
                        format!("the secret `{id}` cannot be read: {why}"),
                    )
                }),
            (None, None) => Ok(None),
        }
    }

    fn secret(
        &self,
        mounted: &mut Mounted<'a>,
        at: At<'_>,
        mount: &Planned,
    ) -> Result<(), BuildError> {
        let MountKind::Secret {
            id,
            env,
            required,
            mode,
            uid,
            gid,
        } = &mount.kind
        else {
            return Ok(());
        };
        let name = mount.target.rsplit('/').next().unwrap_or_default();
        let id = id.as_deref().or(env.as_deref()).unwrap_or(name);
        let value = match self.secret_source(at, id)? {
            None if *required => {
                return Err(at.fail("--mount", format!("there is no secret `{id}`")).with_hint(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`")));
            }
            None => return Ok(()),
            Some(SecretSource::Value(value)) => value,
            Some(SecretSource::File(path)) => {
                fs::read(&path).map_err(|source| BuildError::Read { path, source })?
            }
        };
        if let Some(env) = env {
            let text = String::from_utf8(value.clone())
                .ok()
                .filter(|text| !text.contains('\0'))
                .ok_or_else(|| {
                    at.fail(
                        "--mount",
                        format!("the secret `{id}` is no text, so no variable can hold it"),
                    )
                })?;
            mounted.env.push(format!("{env}={text}"));
            // A variable alone, unless a file is asked for too.
            if !mount.is_given {
                return Ok(());
            }
        }
        let failed = BuildError::io("write a secret for a step");
        // Below the run directory: it is gone after a reboot, and in no image.
        let base = self.shared.engine.layout().run().join("build");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&base)
            .map_err(&failed)?;
        let dir = tempfile::Builder::new()
            .prefix("secret-")
            .tempdir_in(&base)
            .map_err(&failed)?;
        let path = dir.path().join("secret");
        File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&value))
            .map_err(&failed)?;
        chown(&path, Some(*uid), Some(*gid)).map_err(&failed)?;
        fs::set_permissions(&path, Permissions::from_mode(*mode)).map_err(&failed)?;
        mounted.add(&mount.target, StepSource::Path(path), true, Point::File);
        mounted.files.push(dir);
        Ok(())
    }
}

impl Mounted<'_> {
    fn add(&mut self, target: &str, source: StepSource, readonly: bool, point: Point) {
        self.points.push((target.to_owned(), point));
        self.mounts.push(StepMount {
            target: PathBuf::from(target),
            source,
            readonly,
        });
    }

    /// Mounts the text of a heredoc as a program.
    pub(super) fn script(&mut self, dir: tempfile::TempDir, target: &str) {
        let path = dir.path().join("script");
        self.add(target, StepSource::Path(path), true, Point::File);
        self.files.push(dir);
    }
}
