//! From the index to the structures on disk (kernel `fs/erofs/erofs_fs.h`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::index::{Content, LayerIndex, Node, NodeId, ROOT};
use crate::tarwalk::Segment;

const BLOCK: u64 = 512;
/// `EROFS_SUPER_MAGIC_V1`, and where the superblock is.
const MAGIC: u32 = 0xE0F5_E1E2;
const SUPER_OFFSET: u64 = 1024;
/// log2 of the block size.
const BLOCK_BITS: u8 = 9;
/// Inodes are numbered by slots of so many bytes.
const SLOT: u64 = 32;
/// An extended inode (`erofs_inode_extended`) with its data in blocks of its own.
const INODE: usize = 64;
const EXTENDED: u16 = 1;
/// `erofs_dirent`.
const DIRENT: usize = 12;
/// `erofs_xattr_ibody_header`.
const XATTR_HEADER: usize = 12;
/// The names that attributes begin with, as numbers.
const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];

const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

const FIFO: u32 = 0o010_000;
const CHARACTER: u32 = 0o020_000;
const DIRECTORY: u32 = 0o040_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Where things go.
struct Plan<'a> {
    index: &'a LayerIndex,
    /// The nodes that names lead to, with how many do.
    links: BTreeMap<NodeId, u32>,
    /// Parents of directories.
    parents: BTreeMap<NodeId, NodeId>,
    /// Where the data of links, sparse files and directories begins.
    data: BTreeMap<NodeId, u64>,
    /// Slots of inodes.
    nids: BTreeMap<NodeId, u64>,
    meta: u64,
    end: u64,
}

/// Appends the index to a file that has the tar stream, up to `tar_end`.
pub(super) fn write(index: &LayerIndex, file: &File, tar_end: u64) -> io::Result<()> {
    let plan = Plan::new(index, tar_end)?;
    let mut file = file;
    file.set_len(plan.end)?;
    let mut out = BufWriter::with_capacity(super::BUFFER, &mut file);
    for (node, offset) in &plan.data {
        plan.write_data(*node, *offset, &mut out)?;
    }
    let mut by_slot: Vec<_> = plan.nids.iter().map(|(node, nid)| (*nid, *node)).collect();
    by_slot.sort_unstable();
    for (nid, node) in by_slot {
        out.seek(SeekFrom::Start(plan.meta + nid * SLOT))?;
        out.write_all(&plan.inode(node)?)?;
    }
    out.seek(SeekFrom::Start(SUPER_OFFSET))?;
    out.write_all(&plan.superblock()?)?;
    out.flush()
}

fn align(offset: u64, unit: u64) -> u64 {
    offset.next_multiple_of(unit)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        "the layer is too large for its form",
    )
}

fn block_of(offset: u64) -> io::Result<u32> {
    u32::try_from(offset / BLOCK).map_err(|_| too_large())
}

impl<'a> Plan<'a> {
    fn new(index: &'a LayerIndex, tar_end: u64) -> io::Result<Self> {
        let mut plan = Self {
            index,
            links: BTreeMap::from([(ROOT, 2)]),
            parents: BTreeMap::from([(ROOT, ROOT)]),
            data: BTreeMap::new(),
            nids: BTreeMap::new(),
            meta: 0,
            end: 0,
        };
        plan.count();
        let mut offset = align(tar_end, BLOCK);
        for node in plan.links.keys() {
            let size = plan.stored_size(*node);
            if size > 0 {
                plan.data.insert(*node, offset);
                offset = align(offset.checked_add(size).ok_or_else(too_large)?, BLOCK);
            }
        }
        plan.meta = offset;
        // The root comes first: its slot has 16 bits in the superblock.
        let mut slot = 0;
        for node in plan.links.keys() {
            plan.nids.insert(*node, slot);
            let bytes = INODE + plan.xattrs(*node).len();
            slot += align(bytes as u64, SLOT) / SLOT;
        }
        plan.end = align(plan.meta + slot * SLOT, BLOCK);
        Ok(plan)
    }

    /// Walks the tree: what was replaced is no longer part of it.
    fn count(&mut self) {
        let mut todo = vec![ROOT];
        while let Some(node) = todo.pop() {
            let Some(Node {
                content: Content::Directory { entries, .. },
                ..
            }) = self.index.nodes.get(node)
            else {
                continue;
            };
            for child in entries.values() {
                let is_directory = matches!(
                    self.index.nodes.get(*child).map(|child| &child.content),
                    Some(Content::Directory { .. })
                );
                if is_directory {
                    *self.links.entry(node).or_default() += 1;
                    *self.links.entry(*child).or_default() += 2;
                    self.parents.insert(*child, node);
                    todo.push(*child);
                } else {
                    *self.links.entry(*child).or_default() += 1;
                }
            }
        }
    }

    fn content(&self, node: NodeId) -> Option<&Content> {
        self.index.nodes.get(node).map(|node| &node.content)
    }

    /// The bytes that a node has outside the tar stream.
    fn stored_size(&self, node: NodeId) -> u64 {
        match self.content(node) {
            Some(Content::Directory { .. }) => self.directory(node, &BTreeMap::new()).len() as u64,
            Some(Content::Symlink(target)) => target.len() as u64,
            Some(Content::Sparse { size, .. }) => *size,
            _ => 0,
        }
    }

    /// The blocks of a directory: in each, entries and then their names, sorted over all blocks.
    /// The size does not depend on the numbers of the inodes.
    fn directory(&self, node: NodeId, nids: &BTreeMap<NodeId, u64>) -> Vec<u8> {
        let Some(Content::Directory { entries, .. }) = self.content(node) else {
            return Vec::new();
        };
        let parent = self.parents.get(&node).copied().unwrap_or(ROOT);
        let mut lines: BTreeMap<&[u8], NodeId> = entries
            .iter()
            .map(|(name, child)| (name.as_slice(), *child))
            .collect();
        lines.insert(b".", node);
        lines.insert(b"..", parent);
        let block = usize::try_from(BLOCK).unwrap_or_default();
        let mut out = Vec::new();
        let mut group: Vec<(&[u8], NodeId)> = Vec::new();
        let mut used = 0;
        for (name, child) in lines {
            if used + DIRENT + name.len() > block {
                self.directory_block(&group, nids, &mut out);
                out.resize(out.len().next_multiple_of(block), 0);
                group.clear();
                used = 0;
            }
            used += DIRENT + name.len();
            group.push((name, child));
        }
        self.directory_block(&group, nids, &mut out);
        out
    }

    fn directory_block(
        &self,
        group: &[(&[u8], NodeId)],
        nids: &BTreeMap<NodeId, u64>,
        out: &mut Vec<u8>,
    ) {
        let mut name_offset = group.len() * DIRENT;
        for (name, child) in group {
            let nid = nids.get(child).copied().unwrap_or_default();
            out.extend(nid.to_le_bytes());
            // A block has 512 bytes.
            out.extend(u16::try_from(name_offset).unwrap_or_default().to_le_bytes());
            out.push(self.file_type(*child));
            out.push(0);
            name_offset += name.len();
        }
        for (name, _) in group {
            out.extend(*name);
        }
    }

    /// `EROFS_FT_*`, which are those of ext2.
    fn file_type(&self, node: NodeId) -> u8 {
        match self.content(node) {
            Some(Content::File { .. } | Content::Sparse { .. }) => 1,
            Some(Content::Directory { .. }) => 2,
            Some(Content::CharDevice(..) | Content::Whiteout) => 3,
            Some(Content::BlockDevice(..)) => 4,
            Some(Content::Fifo) => 5,
            Some(Content::Symlink(_)) => 7,
            None => 0,
        }
    }

    fn write_data(
        &self,
        node: NodeId,
        offset: u64,
        out: &mut BufWriter<&mut &File>,
    ) -> io::Result<()> {
        match self.content(node) {
            Some(Content::Directory { .. }) => {
                out.seek(SeekFrom::Start(offset))?;
                out.write_all(&self.directory(node, &self.nids))
            }
            Some(Content::Symlink(target)) => {
                out.seek(SeekFrom::Start(offset))?;
                out.write_all(target)
            }
            Some(Content::Sparse {
                offset: stored,
                segments,
                ..
            }) => copy_sparse(*stored, segments, offset, out),
            _ => Ok(()),
        }
    }

    /// The attributes behind an inode; empty when there are none.
    fn xattrs(&self, node: NodeId) -> Vec<u8> {
        let Some(own) = self.index.nodes.get(node) else {
            return Vec::new();
        };
        let opaque = matches!(own.content, Content::Directory { opaque: true, .. });
        let kept = own.attributes.xattrs.iter();
        let mut body = Vec::new();
        for (name, value) in kept
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .chain(opaque.then_some(OPAQUE))
        {
            let found = PREFIXES
                .iter()
                .find_map(|(prefix, number)| Some((name.strip_prefix(*prefix)?, *number)));
            let Some((rest, number)) = found else {
                continue;
            };
            let (Ok(length), Ok(size)) = (u8::try_from(rest.len()), u16::try_from(value.len()))
            else {
                continue;
            };
            body.extend([length, number]);
            body.extend(size.to_le_bytes());
            body.extend(rest);
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        if body.is_empty() {
            return body;
        }
        let mut all = vec![0; XATTR_HEADER];
        all.extend(body);
        all
    }

    fn inode(&self, node: NodeId) -> io::Result<Vec<u8>> {
        let Some(own) = self.index.nodes.get(node) else {
            return Ok(Vec::new());
        };
        let attributes = &own.attributes;
        let data = || match self.data.get(&node) {
            Some(offset) => block_of(*offset),
            None => Ok(0),
        };
        let (format, size, place) = match &own.content {
            Content::Directory { .. } => (DIRECTORY, self.stored_size(node), data()?),
            Content::File { size, offset } => (REGULAR, *size, block_of(*offset)?),
            Content::Sparse { size, .. } => (REGULAR, *size, data()?),
            Content::Symlink(target) => (SYMLINK, target.len() as u64, data()?),
            Content::Fifo => (FIFO, 0, 0),
            Content::CharDevice(major, minor) => (CHARACTER, 0, device(*major, *minor)),
            Content::BlockDevice(major, minor) => (BLOCK_DEVICE, 0, device(*major, *minor)),
            Content::Whiteout => (CHARACTER, 0, 0),
        };
        let xattrs = self.xattrs(node);
        let xattr_count = match xattrs.len().checked_sub(XATTR_HEADER) {
            Some(body) => u16::try_from(body / 4 + 1).map_err(|_| too_large())?,
            None => 0,
        };
        // Symbolic links have all bits on every file system.
        let mode = match own.content {
            Content::Symlink(_) => 0o777,
            _ => attributes.mode & 0o7777,
        };
        let number = u32::try_from(node + 1).map_err(|_| too_large())?;
        let mut inode = Vec::with_capacity(INODE + xattrs.len());
        inode.extend(EXTENDED.to_le_bytes());
        inode.extend(xattr_count.to_le_bytes());
        inode.extend(
            u16::try_from(format | mode)
                .unwrap_or_default()
                .to_le_bytes(),
        );
        inode.extend([0; 2]);
        inode.extend(size.to_le_bytes());
        inode.extend(place.to_le_bytes());
        inode.extend(number.to_le_bytes());
        inode.extend(attributes.uid.to_le_bytes());
        inode.extend(attributes.gid.to_le_bytes());
        inode.extend(attributes.mtime.0.to_le_bytes());
        inode.extend(attributes.mtime.1.to_le_bytes());
        let links = self.links.get(&node).copied().unwrap_or(1);
        inode.extend(links.to_le_bytes());
        inode.extend([0; 16]);
        inode.extend(xattrs);
        Ok(inode)
    }

    fn superblock(&self) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(128);
        block.extend(MAGIC.to_le_bytes());
        // No checksum, no compatible features.
        block.extend([0; 8]);
        block.extend([BLOCK_BITS, 0]);
        let root = self.nids.get(&ROOT).copied().unwrap_or_default();
        block.extend(u16::try_from(root).map_err(|_| too_large())?.to_le_bytes());
        block.extend((self.nids.len() as u64).to_le_bytes());
        // No build time: the same layer gives the same file.
        block.extend([0; 12]);
        block.extend(block_of(self.end)?.to_le_bytes());
        block.extend(block_of(self.meta)?.to_le_bytes());
        block.resize(128, 0);
        Ok(block)
    }
}

/// `new_encode_dev` (kernel `include/linux/kdev_t.h`).
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Puts the stored parts of a sparse file where they belong; the holes are holes of the layer file.
fn copy_sparse(
    stored: u64,
    segments: &[Segment],
    target: u64,
    out: &mut BufWriter<&mut &File>,
) -> io::Result<()> {
    let mut from = stored;
    for segment in segments {
        out.seek(SeekFrom::Start(target + segment.offset))?;
        let source = out.get_ref().try_clone()?;
        let mut part = Part {
            file: source,
            position: from,
            left: segment.length,
        };
        let copied = io::copy(&mut part, out)?;
        if copied < segment.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        from += segment.length;
    }
    Ok(())
}

/// A part of a file, read without moving its position.
struct Part {
    file: File,
    position: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = self.file.read_at(part, self.position)?;
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
