//! Where files go: a destination is resolved in the layers below and in what was placed before, links are
//! followed inside the root, and what is missing on the way is made.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read};

use image::{BuildSession, BuiltLayer, Entry, EntryKind, LayerDraft, LayeredRoot, Xattrs};

use super::mode::Chmod;
use super::select::Picked;
use crate::error::Cause;
use crate::tree::{NodeKind, Tree, join, names_of, split};

/// How many links one destination may go through.
const MAX_LINKS: u32 = 40;

/// Why something cannot be placed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Rule(String),
    #[error("cannot write the layer")]
    Failed(#[source] Cause),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<image::ImageError> for Refusal {
    fn from(error: image::ImageError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// What is at a path of the image that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum There {
    Directory,
    Link(Vec<u8>),
    Other,
}

/// What a file is like that comes from no tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// When it was changed, in seconds; with the epoch when absent.
    pub(crate) modified: Option<i64>,
}

/// A layer that is filled.
pub(crate) struct Placer<'a> {
    session: &'a BuildSession,
    draft: LayerDraft,
    /// What it lies upon; nothing for `--link`.
    below: Option<Tree>,
    placed: HashMap<Vec<u8>, There>,
    /// Directories that the layers below do not have: nothing is in them but what was placed.
    fresh: HashSet<Vec<u8>>,
    /// Destinations of directories, with the links on the way resolved.
    resolved: HashMap<Vec<u8>, Vec<u8>>,
    /// Whose everything is that is placed; who has it in its source when absent.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) chmod: Option<Chmod>,
    epoch: i64,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(
        session: &'a BuildSession,
        below: Option<LayeredRoot>,
        epoch: i64,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            draft: session.draft()?,
            session,
            below: below.map(Tree::Layers),
            placed: HashMap::new(),
            fresh: HashSet::new(),
            resolved: HashMap::new(),
            owner: None,
            chmod: None,
            epoch,
        })
    }

    /// Completes the layer.
    pub(crate) fn finish(self) -> Result<BuiltLayer, Refusal> {
        Ok(self.session.finish(self.draft, self.epoch)?)
    }

    /// Places what was picked at `destination`, which is absolute; one that ends with `/` is a directory.
    pub(crate) fn place(
        &mut self,
        tree: &Tree,
        picked: &[Picked],
        destination: &str,
    ) -> Result<(), Refusal> {
        let destination_is_dir = destination.ends_with('/')
            || picked.len() > 1
            || picked
                .iter()
                .any(|one| one.is_dir || !one.prefix.is_empty());
        let base = destination.as_bytes();
        let is_dir = destination_is_dir || self.is_directory(base)?;
        for one in picked {
            if one.is_dir || !one.parents.is_empty() {
                self.directory(base)?;
            }
            for (path, node) in &one.parents {
                self.put(tree, &join(base, path), node, b"")?;
            }
            let root = match (one.is_dir, is_dir) {
                (true, _) => match (one.parents.last(), one.name.is_empty()) {
                    (Some((path, _)), _) => join(base, path),
                    (None, _) => base.to_vec(),
                },
                (false, true) => join(&join(base, &one.prefix), &one.name),
                (false, false) => base.to_vec(),
            };
            for item in &one.items {
                let path = join(&root, &item.relative);
                self.put(tree, &path, &item.node, &item.source)?;
            }
        }
        Ok(())
    }

    /// Places one file of a tree at an absolute path.
    fn put(
        &mut self,
        tree: &Tree,
        path: &[u8],
        node: &crate::tree::Node,
        source: &[u8],
    ) -> Result<(), Refusal> {
        let (uid, gid) = self.owner.unwrap_or((node.uid, node.gid));
        let is_dir = node.kind == NodeKind::Directory;
        let mode = match (&self.chmod, &node.kind) {
            (Some(chmod), NodeKind::File | NodeKind::Directory) => chmod.apply(node.mode, is_dir),
            _ => node.mode,
        };
        let mtime = match tree {
            Tree::Host(_) => self.epoch,
            Tree::Layers(_) => node.mtime,
        };
        let mut file = None;
        let kind = match &node.kind {
            NodeKind::Directory => EntryKind::Directory,
            NodeKind::Symlink(target) => EntryKind::Symlink(target.clone()),
            NodeKind::Fifo => EntryKind::Fifo,
            NodeKind::Device(false, major, minor) => EntryKind::CharDevice(*major, *minor),
            NodeKind::Device(true, major, minor) => EntryKind::BlockDevice(*major, *minor),
            // A socket means nothing without the program that made it.
            NodeKind::Socket => return Ok(()),
            NodeKind::File => {
                let opened = tree
                    .open(source)
                    .map_err(|error| super::about(source, &error))?;
                let size = opened.metadata()?.len();
                file = Some(opened);
                EntryKind::File { size, sparse: None }
            }
        };
        let xattrs = match &file {
            Some(file) => tree.xattrs(file)?,
            None => Vec::new(),
        };
        let entry = Entry {
            path: path.to_vec(),
            kind,
            mode,
            uid,
            gid,
            mtime: (mtime, 0),
            xattrs,
        };
        match file {
            Some(mut file) => self.entry(entry, &mut file),
            None => self.entry(entry, &mut io::empty()),
        }
    }

    /// Places a file with this content.
    pub(crate) fn bytes(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let attributes = Attributes {
            mode,
            size: bytes.len() as u64,
            modified: None,
        };
        self.content(path, &attributes, &mut &*bytes)
    }

    /// Places a file of so many bytes.
    pub(crate) fn content(
        &mut self,
        path: &str,
        attributes: &Attributes,
        body: &mut impl Read,
    ) -> Result<(), Refusal> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let chmod = self.chmod.as_ref();
        let mode = chmod.map_or(attributes.mode, |chmod| chmod.apply(attributes.mode, false));
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind: EntryKind::File {
                size: attributes.size,
                sparse: None,
            },
            mode,
            uid,
            gid,
            mtime: (attributes.modified.unwrap_or(self.epoch), 0),
            xattrs: Xattrs::new(),
        };
        self.entry(entry, body)
    }

    /// Places an entry whose path is where it is to be.
    pub(crate) fn entry(&mut self, mut entry: Entry, body: &mut impl Read) -> Result<(), Refusal> {
        let path: Vec<Vec<u8>> = names_of(&entry.path).collect();
        let Some((name, parents)) = path.split_last() else {
            // The root is there.
            return Ok(());
        };
        let parent = self.directory(&parents.join(&b'/'))?;
        let real = join(&parent, name);
        let there = self.look(&real)?;
        let is_dir = entry.kind == EntryKind::Directory;
        let show = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
        match (&there, is_dir) {
            (Some(There::Directory), false) => {
                return Err(Refusal::Rule(format!(
                    "cannot put a file at `{}`: it is a directory",
                    show(&real)
                )));
            }
            (Some(There::Link(_) | There::Other), true) => {
                return Err(Refusal::Rule(format!(
                    "cannot put a directory at `{}`: it is a {} in the layers below",
                    show(&real),
                    if matches!(there, Some(There::Link(_))) {
                        "symbolic link"
                    } else {
                        "file"
                    }
                )));
            }
            _ => {}
        }
        let now = match &entry.kind {
            EntryKind::Directory => There::Directory,
            EntryKind::Symlink(target) => There::Link(target.clone()),
            _ => There::Other,
        };
        if let EntryKind::Hardlink(target) = &entry.kind {
            let target: Vec<Vec<u8>> = names_of(target).collect();
            if let Some((name, parents)) = target.split_last() {
                // The way to the other name may go through links too.
                let parent = self.directory(&parents.join(&b'/'))?;
                let real = join(&parent, name);
                if !self.placed.contains_key(&real) {
                    return Err(Refusal::Rule(format!(
                        "`{}` is a hard link to `{}`, which is not among the files that are added",
                        show(&entry.path),
                        show(&real)
                    )));
                }
                entry.kind = EntryKind::Hardlink(real);
            }
        }
        entry.path.clone_from(&real);
        self.draft.put(&entry, body)?;
        if is_dir && there.is_none() {
            self.fresh.insert(real.clone());
        }
        if there.is_some_and(|there| there != now) {
            self.resolved.clear();
        }
        self.placed.insert(real, now);
        Ok(())
    }

    /// What is at a path without links on the way.
    fn look(&self, path: &[u8]) -> Result<Option<There>, Refusal> {
        if path.is_empty() {
            return Ok(Some(There::Directory));
        }
        if let Some(there) = self.placed.get(path) {
            return Ok(Some(there.clone()));
        }
        let Some(below) = &self.below else {
            return Ok(None);
        };
        if self.fresh.contains(split(path).0) {
            return Ok(None);
        }
        Ok(below.node(path)?.map(|node| match node.kind {
            NodeKind::Directory => There::Directory,
            NodeKind::Symlink(target) => There::Link(target),
            _ => There::Other,
        }))
    }

    /// Whether a path leads to a directory that is there.
    fn is_directory(&mut self, path: &[u8]) -> Result<bool, Refusal> {
        let mut at = Vec::new();
        let mut todo: VecDeque<Vec<u8>> = names_of(path).collect();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &name);
            match self.look(&next)? {
                Some(There::Directory) => at = next,
                Some(There::Link(target)) => follow(&mut at, &mut todo, &target, &mut links)?,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The directory that a path leads to, without links; made where it is missing.
    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<Vec<u8>, Refusal> {
        if let Some(known) = self.resolved.get(path) {
            return Ok(known.clone());
        }
        let mut at = Vec::new();
        let mut todo: VecDeque<Vec<u8>> = names_of(path).collect();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &name);
            match self.look(&next)? {
                Some(There::Directory) => {
                    self.describe(&next)?;
                    at = next;
                }
                Some(There::Link(target)) => follow(&mut at, &mut todo, &target, &mut links)?,
                Some(There::Other) => {
                    let text = String::from_utf8_lossy(&next).into_owned();
                    return Err(Refusal::Rule(format!("`/{text}` is no directory")));
                }
                None => {
                    self.make(&next)?;
                    at = next;
                }
            }
        }
        self.resolved.insert(path.to_vec(), at.clone());
        Ok(at)
    }

    fn make(&mut self, path: &[u8]) -> Result<(), Refusal> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let mtime = (self.epoch, 0);
        // As with other builders, a number holds for directories on the way too; letters change a mode,
        // and these had none.
        let mode = match self.chmod {
            Some(Chmod::Octal(mode)) => mode,
            Some(Chmod::Letters(_)) | None => 0o755,
        };
        self.fresh.insert(path.to_vec());
        self.put_directory(path, mode, (uid, gid), mtime)
    }

    /// A directory of a layer below looks as it does there.
    fn describe(&mut self, path: &[u8]) -> Result<(), Refusal> {
        if self.placed.contains_key(path) {
            return Ok(());
        }
        let Some(below) = &self.below else {
            return Ok(());
        };
        match below.node(path)? {
            Some(node) => {
                self.put_directory(path, node.mode, (node.uid, node.gid), (node.mtime, 0))
            }
            None => Ok(()),
        }
    }

    fn put_directory(
        &mut self,
        path: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
        mtime: (i64, u32),
    ) -> Result<(), Refusal> {
        let entry = Entry {
            path: path.to_vec(),
            kind: EntryKind::Directory,
            mode,
            uid,
            gid,
            mtime,
            xattrs: Xattrs::new(),
        };
        self.draft.put(&entry, &mut io::empty())?;
        self.placed.insert(path.to_vec(), There::Directory);
        Ok(())
    }
}

fn follow(
    at: &mut Vec<u8>,
    todo: &mut VecDeque<Vec<u8>>,
    target: &[u8],
    links: &mut u32,
) -> Result<(), Refusal> {
    *links += 1;
    if *links > MAX_LINKS {
        return Err(Refusal::Rule(
            "the destination goes through too many links".to_owned(),
        ));
    }
    if target.starts_with(b"/") {
        at.clear();
    }
    for name in names_of(target).collect::<Vec<_>>().into_iter().rev() {
        todo.push_front(name);
    }
    Ok(())
}
