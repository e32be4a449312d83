//! The tree that a layer's entries make, in memory: names, attributes and where the bytes are.

use std::collections::{BTreeMap, BTreeSet};

use super::super::attributes::is_allowed;
use super::super::layer::Unpacked;
use super::super::tree::{PendingLink, Skipped};
use super::super::whiteout::{Meaning, meaning};
use crate::tarwalk::{Entry, EntryKind, EntryPath, Segment, Xattrs, printable};

/// How much an index may take, so that a pull of two layers at once stays small: some seventy
/// thousand entries. Layers with more become directories.
const MAX_MEMORY: usize = 20 * 1024 * 1024;
/// What a node costs beside its name and its attributes, here and when it is written.
const NODE_COST: usize = 256;
/// The longest value of an extended attribute (`erofs_xattr_entry`).
const MAX_VALUE: usize = u16::MAX as usize;
/// How many skipped things a record lists.
const MAX_SKIPPED: usize = 100;

pub(super) type NodeId = usize;

/// The root of every index.
pub(super) const ROOT: NodeId = 0;

#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Xattrs,
}

#[derive(Debug)]
pub(super) enum Content {
    Directory {
        entries: BTreeMap<Vec<u8>, NodeId>,
        opaque: bool,
    },
    /// Where its bytes are in the file.
    File {
        size: u64,
        offset: u64,
    },
    /// Where its stored bytes are, and where they belong.
    Sparse {
        size: u64,
        offset: u64,
        segments: Vec<Segment>,
    },
    Symlink(Vec<u8>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    /// A character device 0:0: what the layers below have here is gone.
    Whiteout,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) struct LayerIndex {
    pub(super) nodes: Vec<Node>,
    implied: BTreeSet<EntryPath>,
    links: BTreeMap<EntryPath, EntryPath>,
    skipped: Vec<Skipped>,
    memory: usize,
    fits: bool,
}

fn directory(opaque: bool) -> Content {
    Content::Directory {
        entries: BTreeMap::new(),
        opaque,
    }
}

fn implied_attributes() -> Attributes {
    Attributes {
        mode: super::super::directories::IMPLIED.mode,
        mtime: super::super::directories::IMPLIED.mtime,
        ..Attributes::default()
    }
}

impl LayerIndex {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node {
                attributes: implied_attributes(),
                content: directory(false),
            }],
            implied: BTreeSet::new(),
            links: BTreeMap::new(),
            skipped: Vec::new(),
            memory: 0,
            fits: true,
        }
    }

    /// Whether everything so far can be said in this form, within its bounds.
    pub(super) fn fits(&self) -> bool {
        self.fits
    }

    /// Adds an entry whose stored bytes are at `offset`. An error is the rule that it breaks.
    pub(super) fn put(&mut self, entry: &Entry, offset: u64) -> Result<(), &'static str> {
        let path = EntryPath::parse(&entry.path)?;
        let may_be_whiteout = matches!(entry.kind, EntryKind::File { .. } | EntryKind::Hardlink(_));
        match meaning(&path)? {
            Meaning::Entry => self.put_entry(&path, entry, offset),
            Meaning::Ignored => Ok(()),
            Meaning::Opaque(_) | Meaning::Whiteout(_) if !may_be_whiteout => {
                Err("a whiteout must be a file")
            }
            Meaning::Opaque(dir) => {
                let dir = self.enter(&dir)?;
                self.set_opaque(dir);
                Ok(())
            }
            Meaning::Whiteout(target) => self.put_whiteout(&target),
        }
    }

    fn put_whiteout(&mut self, target: &EntryPath) -> Result<(), &'static str> {
        let (parent, name) = target.split().ok_or("its whiteout names nothing")?;
        let parent = self.enter(&parent)?;
        match self.child(parent, name) {
            // What this layer itself has at the path stays, whichever came first.
            Some(own) => self.set_opaque(own),
            None => {
                let node = self.add(Attributes::default(), Content::Whiteout, name);
                self.insert(parent, name, node);
            }
        }
        Ok(())
    }

    fn set_opaque(&mut self, node: NodeId) {
        if let Some(Node {
            content: Content::Directory { opaque, .. },
            ..
        }) = self.nodes.get_mut(node)
        {
            *opaque = true;
        }
    }

    fn put_entry(
        &mut self,
        path: &EntryPath,
        entry: &Entry,
        offset: u64,
    ) -> Result<(), &'static str> {
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                EntryKind::Directory => {
                    self.describe(ROOT, path, entry);
                    Ok(())
                }
                _ => Err("the root of a layer must be a directory"),
            };
        };
        let parent = self.enter(&parent)?;
        self.links.remove(path);
        let content = match &entry.kind {
            EntryKind::Directory => {
                let node = self.make_directory(parent, name, path);
                self.describe(node, path, entry);
                return Ok(());
            }
            EntryKind::Hardlink(target) => return self.put_hardlink(parent, name, path, target),
            EntryKind::File { size, sparse: None } => Content::File {
                size: *size,
                offset,
            },
            EntryKind::File {
                size,
                sparse: Some(segments),
            } => Content::Sparse {
                size: *size,
                offset,
                segments: segments.clone(),
            },
            EntryKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                return Err("its link target is empty or holds a NUL");
            }
            EntryKind::Symlink(target) => Content::Symlink(target.clone()),
            EntryKind::Fifo => Content::Fifo,
            EntryKind::CharDevice(0, 0) => {
                return Err("a character device 0:0 is a whiteout on disk");
            }
            EntryKind::CharDevice(major, minor) => Content::CharDevice(*major, *minor),
            EntryKind::BlockDevice(major, minor) => Content::BlockDevice(*major, *minor),
        };
        let attributes = self.attributes(path, entry);
        let node = self.add(attributes, content, name);
        self.clear(parent, name, path);
        self.insert(parent, name, node);
        Ok(())
    }

    fn put_hardlink(
        &mut self,
        parent: NodeId,
        name: &[u8],
        path: &EntryPath,
        target: &[u8],
    ) -> Result<(), &'static str> {
        let target = EntryPath::parse(target)
            .map_err(|_| "its link target leaves the root or is malformed")?;
        target.split().ok_or("it is a hard link to a directory")?;
        if target == *path {
            return Err("it is a hard link to itself");
        }
        let Some(node) = self.find(&target)? else {
            let target = self.links.get(&target).cloned().unwrap_or(target);
            self.clear(parent, name, path);
            self.remember(path.as_bytes().len());
            self.links.insert(path.clone(), target);
            return Ok(());
        };
        match self.nodes.get(node).map(|node| &node.content) {
            Some(Content::Directory { .. }) => Err("it is a hard link to a directory"),
            Some(Content::Whiteout) => Err("it is a hard link to a whiteout"),
            _ => {
                self.clear(parent, name, path);
                self.insert(parent, name, node);
                Ok(())
            }
        }
    }

    /// What is at `path`, without following links.
    fn find(&self, path: &EntryPath) -> Result<Option<NodeId>, &'static str> {
        let mut node = ROOT;
        for name in path.components() {
            match self.nodes.get(node).map(|node| &node.content) {
                Some(Content::Directory { entries, .. }) => match entries.get(name) {
                    Some(child) => node = *child,
                    None => return Ok(None),
                },
                _ => return Err("its link target goes through something that is no directory"),
            }
        }
        Ok(Some(node))
    }

    /// The directory at `path`, made with its parents where the archive did not describe it.
    fn enter(&mut self, path: &EntryPath) -> Result<NodeId, &'static str> {
        let mut node = ROOT;
        let mut upto = EntryPath::default();
        for name in path.components() {
            upto = upto.child(name);
            node = match self.child(node, name) {
                Some(child) if self.is_directory(child) => child,
                Some(child) if !self.is_whiteout(child) => {
                    return Err("its path goes through something that is no directory");
                }
                _ => {
                    let made = self.make_directory(node, name, &upto);
                    self.remember(upto.as_bytes().len());
                    self.implied.insert(upto.clone());
                    made
                }
            };
        }
        Ok(node)
    }

    /// Makes a directory, or leaves the one that is there. One that takes the place of a whiteout
    /// hides what the layers below have in theirs.
    fn make_directory(&mut self, parent: NodeId, name: &[u8], path: &EntryPath) -> NodeId {
        let there = self.child(parent, name);
        if let Some(there) = there
            && self.is_directory(there)
        {
            return there;
        }
        let opaque = there.is_some_and(|there| self.is_whiteout(there));
        let node = self.add(implied_attributes(), directory(opaque), name);
        self.clear(parent, name, path);
        self.insert(parent, name, node);
        node
    }

    /// Gives a directory the attributes of its entry.
    fn describe(&mut self, node: NodeId, path: &EntryPath, entry: &Entry) {
        self.implied.remove(path);
        let attributes = self.attributes(path, entry);
        self.remember(size_of_xattrs(&attributes.xattrs));
        if let Some(node) = self.nodes.get_mut(node) {
            node.attributes = attributes;
        }
    }

    fn attributes(&mut self, path: &EntryPath, entry: &Entry) -> Attributes {
        let (kept, dropped): (Xattrs, Xattrs) = entry
            .xattrs
            .iter()
            .cloned()
            .partition(|(name, _)| is_allowed(name));
        self.fits &= kept.iter().all(|(_, value)| value.len() <= MAX_VALUE);
        for (name, _) in dropped {
            if self.skipped.len() < MAX_SKIPPED {
                self.skipped.push(Skipped {
                    entry: path.to_string(),
                    what: format!("the extended attribute `{}`", printable(&name)),
                });
            }
        }
        Attributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: kept,
        }
    }

    fn add(&mut self, attributes: Attributes, content: Content, name: &[u8]) -> NodeId {
        let body = match &content {
            Content::Symlink(target) => target.len(),
            Content::Sparse { segments, .. } => size_of_val(segments.as_slice()),
            _ => 0,
        };
        self.remember(NODE_COST + name.len() + body + size_of_xattrs(&attributes.xattrs));
        self.nodes.push(Node {
            attributes,
            content,
        });
        self.nodes.len() - 1
    }

    fn remember(&mut self, bytes: usize) {
        self.memory += bytes;
        self.fits &= self.memory <= MAX_MEMORY;
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.nodes.get(parent)?.content {
            Content::Directory { entries, .. } => entries.get(name).copied(),
            _ => None,
        }
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], node: NodeId) {
        if let Some(Node {
            content: Content::Directory { entries, .. },
            ..
        }) = self.nodes.get_mut(parent)
        {
            entries.insert(name.to_vec(), node);
        }
    }

    /// Forgets what an earlier entry put at `path`, with everything below it.
    fn clear(&mut self, parent: NodeId, name: &[u8], path: &EntryPath) {
        let Some(there) = self.child(parent, name) else {
            return;
        };
        if self.is_directory(there) {
            self.implied.retain(|known| !known.is_within(path));
            self.links.retain(|known, _| !known.is_within(path));
        }
        if let Some(Node {
            content: Content::Directory { entries, .. },
            ..
        }) = self.nodes.get_mut(parent)
        {
            entries.remove(name);
        }
    }

    fn is_directory(&self, node: NodeId) -> bool {
        let content = self.nodes.get(node).map(|node| &node.content);
        matches!(content, Some(Content::Directory { .. }))
    }

    fn is_whiteout(&self, node: NodeId) -> bool {
        let content = self.nodes.get(node).map(|node| &node.content);
        matches!(content, Some(Content::Whiteout))
    }

    pub(super) fn into_unpacked(self) -> Unpacked {
        let links = self.links.into_iter();
        Unpacked {
            implied: self.implied.into_iter().collect(),
            links: links
                .map(|(path, target)| PendingLink { path, target })
                .collect(),
            skipped: self.skipped,
        }
    }
}

fn size_of_xattrs(xattrs: &Xattrs) -> usize {
    xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 48)
        .sum()
}
