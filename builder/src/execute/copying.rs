//! COPY, and what ADD has in common with it.

use std::borrow::Cow;
use std::time::Instant;

use image::LayeredRoot;

use super::Execution;
use super::add::{Fetched, Remote, Trust};
use super::stage::{At, created};
use super::state::{Base, State};
use crate::cache::KeyBuilder;
use crate::copy::{Chmod, Picked, Placer, Refusal, Selection, content_digest, select};
use crate::dockerfile::{Copy, Kind, Source, expand};
use crate::error::BuildError;
use crate::ignore::Ignore;
use crate::options::NamedContext;
use crate::progress::StepEnd;
use crate::stages::Origin;
use crate::tree::Tree;

/// A COPY or ADD with everything replaced that can be.
pub(super) struct Order<'a> {
    pub(super) copy: &'a Copy,
    pub(super) is_add: bool,
    pub(super) paths: Vec<String>,
    pub(super) remotes: Vec<Remote>,
    /// Name and content.
    inline: Vec<(String, String)>,
    pub(super) destination: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<Chmod>,
    pub(super) checksum: Option<String>,
    exclude: Ignore,
}

impl Execution<'_> {
    /// Carries out COPY or ADD.
    pub(super) fn copy(
        &self,
        state: &mut State,
        at: At<'_>,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        let order = self.order(state, at, copy)?;
        let layer = self.step(&at.title(), |_| {
            let begin = Instant::now();
            let uses_cache = self.uses_cache(at.stage.index);
            let tree = self.tree(at, copy.from.as_deref())?;
            let mut key = self.order_key(state, &order);
            let mut keys = Vec::new();
            if let (Some(chain), true) = (&tree.chain, order.remotes.is_empty()) {
                // The source's layers say what is in it, without reading a file.
                let mut quick = key.clone();
                quick.add("source chain", chain);
                keys.push(quick.finish());
                if let Some(layer) = self.cached(&keys, uses_cache) {
                    return Ok((layer, StepEnd::Cached));
                }
            }
            let picked = self.pick(at, &tree.tree, &order)?;
            let stamps = match copy.from {
                None => self.stamps.as_ref(),
                Some(_) => None,
            };
            let digest = content_digest(&tree.tree, &picked, stamps)
                .map_err(|error| self.refused(at, error.into()))?;
            key.add("content", &digest.to_string());
            let mut whole = key.clone();
            let mut fetched = self.fetch_remotes(at, &order, Trust::Known, &mut whole)?;
            keys.push(whole.finish());
            if let Some(layer) = self.cached(&keys, uses_cache) {
                return Ok((layer, StepEnd::Cached));
            }
            if fetched.iter().any(|one| matches!(one, Fetched::Known)) {
                // Now their bytes are needed, and they are what counts.
                fetched = self.fetch_remotes(at, &order, Trust::Nothing, &mut key)?;
                keys.pop();
                keys.push(key.finish());
            }
            let below = match copy.link {
                true => None,
                false => Some(state.root(self.shared.engine)?),
            };
            let mut placer = Placer::new(self.shared.session, below, self.shared.epoch)
                .map_err(|refusal| self.refused(at, refusal))?;
            placer.owner = self.owner(state, at, &order, copy.from.is_none())?;
            placer.chmod.clone_from(&order.chmod);
            self.fill(&mut placer, &tree.tree, &picked, &order, at)?;
            self.place_remotes(&mut placer, &order, fetched, at)?;
            let built = placer
                .finish()
                .map_err(|refusal| self.refused(at, refusal))?;
            let kind = at.instruction.kind.name();
            Ok((
                self.keep_layer(built, &keys, kind, at.instruction, begin),
                StepEnd::Done,
            ))
        })?;
        state.own.push(layer);
        state.record(at.instruction, &created(self.shared.epoch), true);
        Ok(())
    }

    /// Replaces variables and checks what can be checked without looking at files.
    fn order<'c>(
        &self,
        state: &State,
        at: At<'_>,
        copy: &'c Copy,
    ) -> Result<Order<'c>, BuildError> {
        let is_add = matches!(at.instruction.kind, Kind::Add(_));
        let mut order = Order {
            copy,
            is_add,
            paths: Vec::new(),
            remotes: Vec::new(),
            inline: Vec::new(),
            destination: self.expand(state, at, &copy.destination)?,
            chown: copy
                .chown
                .as_deref()
                .map(|text| self.expand(state, at, text))
                .transpose()?,
            chmod: None,
            checksum: copy
                .checksum
                .as_deref()
                .map(|text| self.expand(state, at, text))
                .transpose()?,
            exclude: Ignore::default(),
        };
        let mut patterns = Vec::new();
        for text in &copy.exclude {
            patterns.push(self.expand(state, at, text)?);
        }
        order.exclude = Ignore::of(patterns.iter().map(String::as_str))
            .map_err(|what| at.fail("--exclude", what))?;
        if let Some(text) = &copy.chmod {
            let text = self.expand(state, at, text)?;
            let chmod = Chmod::parse(&text).ok_or_else(|| {
                at.fail(
                    "--chmod",
                    format!("`{text}` is no mode: write 755, or u=rwX,go=rX"),
                )
            })?;
            order.chmod = Some(chmod);
        }
        for source in &copy.sources {
            match source {
                Source::Inline(document) => {
                    let content = match document.expand {
                        false => document.content.clone(),
                        true => {
                            let lookup =
                                |name: &str| state.scope.lookup(&state.config.config, name);
                            let expanded =
                                expand::heredoc(&document.content, at.file.escape, &lookup)
                                    .map_err(|what| at.fail(&document.name, what))?;
                            self.note_unset(state, at, &expanded);
                            expanded.joined()
                        }
                    };
                    order.inline.push((document.name.clone(), content));
                }
                Source::Path(text) => {
                    let path = self.expand(state, at, text)?;
                    match Remote::parse(&path).map_err(|what| at.fail(text, what))? {
                        Some(remote) if is_add => order.remotes.push(remote),
                        Some(_) => {
                            return Err(at
                                .fail(text, "COPY takes files only")
                                .with_hint("ADD takes URLs and repositories"));
                        }
                        None => order.paths.push(path),
                    }
                }
            }
        }
        if order.checksum.is_some() && (order.remotes.len() != 1 || copy.sources.len() != 1) {
            return Err(at.fail("--checksum", "a checksum is for one URL or repository"));
        }
        let ends_as_dir = |text: &str| text.ends_with('/') || text == "." || text.ends_with("/.");
        if copy.sources.len() > 1 && !ends_as_dir(&order.destination) {
            return Err(at.fail(
                &copy.destination,
                format!(
                    "`{}` must end with `/`: it takes more than one source",
                    order.destination
                ),
            ));
        }
        let is_dir = ends_as_dir(&order.destination) || order.destination.ends_with("..");
        order.destination = state.absolute(&order.destination);
        if is_dir && !order.destination.ends_with('/') {
            order.destination.push('/');
        }
        Ok(order)
    }

    fn order_key(&self, state: &State, order: &Order<'_>) -> KeyBuilder {
        let copy = order.copy;
        let mut key = KeyBuilder::new(if order.is_add { "add" } else { "copy" });
        if !copy.link {
            key.add("chain", &state.chain());
        } else if order
            .chown
            .as_deref()
            .is_some_and(|owner| !is_numeric(owner))
        {
            // Names are looked up in the image.
            key.add("chain", &state.chain());
        }
        key.add("destination", &order.destination);
        key.add_all("paths", &order.paths);
        for (name, content) in &order.inline {
            key.add(name, content);
        }
        key.add("chown", order.chown.as_deref().unwrap_or("-"));
        key.add("chmod", &format!("{:?}", order.chmod));
        key.add("parents", &copy.parents.to_string());
        key.add("exclude", &format!("{:?}", order.exclude));
        key.add("unpack", &format!("{:?}", copy.unpack));
        key.add("keep git", &copy.keep_git_dir.to_string());
        key.add(
            "from",
            if copy.from.is_some() {
                "layers"
            } else {
                "context"
            },
        );
        key.add("epoch", &self.shared.epoch.to_string());
        key
    }

    fn pick(&self, at: At<'_>, tree: &Tree, order: &Order<'_>) -> Result<Vec<Picked>, BuildError> {
        let selection = Selection {
            sources: &order.paths,
            keep_parents: order.copy.parents,
            exclude: &order.exclude,
        };
        select(tree, &selection).map_err(|error| self.not_picked(at, tree, error))
    }

    pub(super) fn not_picked(
        &self,
        at: At<'_>,
        tree: &Tree,
        error: crate::copy::NotPicked,
    ) -> BuildError {
        use crate::copy::NotPicked;
        let place = match tree {
            Tree::Host(host) => format!("the build context `{}`", host.path.display()),
            Tree::Layers(_) => "the stage or image".to_owned(),
        };
        match error {
            NotPicked::Pattern(what) => at.fail("", what),
            NotPicked::Absent(path) => at.fail(&path, format!("`{path}` is not in {place}")),
            NotPicked::Ignored(path) => at
                .fail(
                    &path,
                    format!("`{path}` is left out of {place} by .dockerignore"),
                )
                .with_hint("take its pattern away, or add a line that begins with `!`"),
            NotPicked::Io(error) => self.refused(at, error.into()),
        }
    }

    pub(super) fn refused(&self, at: At<'_>, refusal: Refusal) -> BuildError {
        let place = Box::new(at.place(""));
        match refusal {
            Refusal::Rule(what) => BuildError::at(*place, what),
            Refusal::Failed(source) => BuildError::At {
                place,
                what: format!("cannot carry out {}", at.instruction.kind.name()),
                hint: None,
                source: Some(source),
            },
        }
    }

    /// Whose the files will be; `None` leaves them whose they are.
    fn owner(
        &self,
        state: &State,
        at: At<'_>,
        order: &Order<'_>,
        is_context: bool,
    ) -> Result<Option<(u32, u32)>, BuildError> {
        let Some(text) = &order.chown else {
            return Ok(is_context.then_some((0, 0)));
        };
        let root = state.root(self.shared.engine)?;
        let owner = self.shared.engine.owner_of(text, &root);
        owner.map(Some).map_err(|error| {
            BuildError::from(error).or_at(&at.place("--chown"), "cannot find the owner")
        })
    }

    /// Places files, archives and inline documents.
    fn fill(
        &self,
        placer: &mut Placer<'_>,
        tree: &Tree,
        picked: &[Picked],
        order: &Order<'_>,
        at: At<'_>,
    ) -> Result<(), BuildError> {
        let refused = |refusal| self.refused(at, refusal);
        let (archives, files): (Vec<&Picked>, Vec<&Picked>) = picked.iter().partition(|one| {
            order.is_add
                && order.copy.unpack != Some(false)
                && !one.is_dir
                && super::archive::is_archive(tree, one)
        });
        let files: Vec<Picked> = files.into_iter().cloned().collect();
        let destination = self.destination(order, files.len() + archives.len());
        if !files.is_empty() {
            placer.place(tree, &files, &destination).map_err(refused)?;
        }
        let owner = order.chown.as_ref().and(placer.owner);
        for archive in archives {
            for item in &archive.items {
                let file = tree
                    .open(&item.source)
                    .map_err(|error| refused(error.into()))?;
                super::archive::unpack(placer, file, &order.destination, owner).map_err(refused)?;
            }
        }
        for (name, content) in &order.inline {
            let path = match order.destination.strip_suffix('/') {
                Some(dir) => format!("{dir}/{name}"),
                None => order.destination.clone(),
            };
            placer
                .bytes(&path, 0o644, content.as_bytes())
                .map_err(refused)?;
        }
        if picked.is_empty() && order.inline.is_empty() && order.destination.ends_with('/') {
            placer
                .directory(order.destination.as_bytes())
                .map_err(refused)?;
        }
        Ok(())
    }

    fn destination<'o>(&self, order: &'o Order<'_>, count: usize) -> Cow<'o, str> {
        if count > 1 && !order.destination.ends_with('/') {
            // A pattern that matched several files.
            return Cow::Owned(format!("{}/", order.destination));
        }
        Cow::Borrowed(&order.destination)
    }

    /// What `from` means, as files.
    pub(super) fn tree(
        &self,
        at: At<'_>,
        from: Option<&str>,
    ) -> Result<SourceTree<'_>, BuildError> {
        let Some(from) = from else {
            return match &self.context {
                Some(tree) => Ok(SourceTree {
                    tree: Cowed::Borrowed(tree),
                    chain: None,
                }),
                None => Ok(SourceTree {
                    tree: Cowed::Owned(Tree::Layers(LayeredRoot::new(vec![
                        self.shared.engine.store().empty_root()?,
                    ]))),
                    chain: None,
                }),
            };
        };
        let contexts = &self.shared.options.contexts;
        let of_state = |state: &State| -> Result<SourceTree<'_>, BuildError> {
            Ok(SourceTree {
                tree: Cowed::Owned(Tree::Layers(state.root(self.shared.engine)?)),
                chain: Some(state.chain()),
            })
        };
        match self.graph.origin(from, at.stage.index, false, contexts) {
            // Of a trigger's `from` nobody knew before: only stages that stand before can be meant.
            Origin::Stage(other)
                if other < at.stage.index
                    || (self.graph.needed.contains(&other) && other != at.stage.index) =>
            {
                of_state(&*self.stage(other)?)
            }
            Origin::Stage(_) => Err(at.fail(
                from,
                format!("the stage `{from}` cannot be copied from here"),
            )),
            Origin::Context(name) => match contexts.get(&name) {
                Some(NamedContext::Image(image)) if image == "scratch" => {
                    Err(at.fail(from, "scratch holds no files"))
                }
                Some(NamedContext::Image(image)) => {
                    of_state(&State::of_image(self.source_image(at, image)?))
                }
                Some(NamedContext::Layout(dir, reference)) => {
                    let place = at.place(from);
                    let base = self.layout_image(dir, reference, &self.platform, &place)?;
                    of_state(&State::of_image(base))
                }
                _ => match self.contexts.get(&name) {
                    Some(tree) => Ok(SourceTree {
                        tree: Cowed::Borrowed(tree),
                        chain: None,
                    }),
                    None => Err(at.fail(from, format!("there is no context `{name}`"))),
                },
            },
            Origin::Scratch => Err(at.fail(from, "scratch holds no files")),
            Origin::Image(name) => of_state(&State::of_image(self.source_image(at, &name)?)),
        }
    }

    fn source_image(&self, at: At<'_>, name: &str) -> Result<std::sync::Arc<Base>, BuildError> {
        self.image(name, &self.platform, &at.place(name))
    }
}

/// Files to copy from, and for layers what tells them apart.
pub(super) struct SourceTree<'a> {
    pub(super) tree: Cowed<'a>,
    pub(super) chain: Option<String>,
}

/// A tree that is ours or somebody's.
pub(super) enum Cowed<'a> {
    Borrowed(&'a Tree),
    Owned(Tree),
}

impl std::ops::Deref for Cowed<'_> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        match self {
            Self::Borrowed(tree) => tree,
            Self::Owned(tree) => tree,
        }
    }
}

fn is_numeric(owner: &str) -> bool {
    owner
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b':')
}
