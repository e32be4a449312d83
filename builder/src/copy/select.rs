//! What a COPY picks: paths and patterns become files of a tree.

use std::io;

use crate::ignore::{Ignore, clean};
use crate::pattern::Pattern;
use crate::tree::{MAX_DEPTH, Missing, Node, NodeKind, Tree, join, split};

/// One source that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picked {
    /// Its own name, for a destination that is a directory.
    pub(crate) name: Vec<u8>,
    /// With `--parents`: the directories that it keeps.
    pub(crate) prefix: Vec<u8>,
    pub(crate) is_dir: bool,
    /// What it consists of: the file, or what is in the directory, parents first.
    pub(crate) items: Vec<Item>,
    /// With `--parents`: the directories on the way, the outermost first.
    pub(crate) parents: Vec<(Vec<u8>, Node)>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its path in the directory that was picked; empty for a file that was picked itself.
    pub(crate) relative: Vec<u8>,
    /// Its path in the tree.
    pub(crate) source: Vec<u8>,
    pub(crate) node: Node,
}

/// How to pick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub(crate) sources: &'a [String],
    pub(crate) keep_parents: bool,
    pub(crate) exclude: &'a Ignore,
}

/// Why nothing was picked.
#[derive(Debug)]
pub(crate) enum NotPicked {
    Pattern(String),
    Absent(String),
    Ignored(String),
    Io(io::Error),
}

impl From<io::Error> for NotPicked {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Finds everything that the sources name.
pub(crate) fn select(tree: &Tree, selection: &Selection<'_>) -> Result<Vec<Picked>, NotPicked> {
    let mut all = Vec::new();
    for text in selection.sources {
        let (pivot, _) = pivot_of(text);
        let path = clean(text);
        let pattern = Pattern::parse(&path).map_err(NotPicked::Pattern)?;
        if pattern.is_plain() {
            let path = pattern.as_path();
            all.push(pick(tree, selection, path.as_bytes(), pivot, text)?);
            continue;
        }
        let mut found = Vec::new();
        matching(tree, &pattern, b"", 0, &mut found)?;
        for path in found {
            all.push(pick(tree, selection, &path, pivot, text)?);
        }
    }
    Ok(all)
}

/// With `--parents`, what stands before `/./` is not kept: how many names that are.
fn pivot_of(text: &str) -> (usize, &str) {
    match text.find("/./") {
        Some(at) => {
            let (before, after) = text.split_at(at);
            let names = clean(before);
            (
                names.split('/').filter(|name| !name.is_empty()).count(),
                after,
            )
        }
        None => (0, text),
    }
}

fn matching(
    tree: &Tree,
    pattern: &Pattern,
    dir: &[u8],
    depth: usize,
    found: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for name in tree.names(dir)? {
        let path = join(dir, &name);
        let text = String::from_utf8_lossy(&path).into_owned();
        let hidden = tree.is_ignored(&path);
        if hidden && !tree.may_keep_below(&path) {
            continue;
        }
        if pattern.matches(&text) && !hidden {
            found.push(path);
            continue;
        }
        if pattern.may_match_below(&text)
            && tree
                .node(&path)?
                .is_some_and(|node| node.kind == NodeKind::Directory)
        {
            matching(tree, pattern, &path, depth + 1, found)?;
        }
    }
    Ok(())
}

fn pick(
    tree: &Tree,
    selection: &Selection<'_>,
    path: &[u8],
    pivot: usize,
    text: &str,
) -> Result<Picked, NotPicked> {
    let real = match tree.resolve(path)? {
        Ok(real) => real,
        Err(Missing::Absent) => return Err(NotPicked::Absent(text.to_owned())),
        Err(Missing::Ignored) => return Err(NotPicked::Ignored(text.to_owned())),
    };
    let node = tree
        .node(&real)?
        .ok_or_else(|| NotPicked::Absent(text.to_owned()))?;
    let is_dir = node.kind == NodeKind::Directory;
    if !is_dir && tree.is_ignored(&real) {
        return Err(NotPicked::Ignored(text.to_owned()));
    }
    let (parent, name) = split(path);
    let mut picked = Picked {
        name: name.to_vec(),
        prefix: Vec::new(),
        is_dir,
        items: Vec::new(),
        parents: Vec::new(),
    };
    if selection.keep_parents {
        let kept: Vec<&[u8]> = parent
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .skip(pivot)
            .collect();
        picked.prefix = kept.join(&b'/');
        let skipped: Vec<&[u8]> = parent
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .take(pivot)
            .collect();
        let mut at = skipped.join(&b'/');
        let mut upto = Vec::new();
        for name in kept {
            at = join(&at, name);
            upto = join(&upto, name);
            if let Ok(real) = tree.resolve(&at)?
                && let Some(node) = tree.node(&real)?
            {
                picked.parents.push((upto.clone(), node));
            }
        }
    }
    if is_dir {
        if selection.keep_parents && !name.is_empty() {
            picked.parents.push((join(&picked.prefix, name), node));
        }
        walk(tree, selection, &real, b"", 0, &mut picked.items)?;
        let hidden = tree.is_ignored(&real) && picked.items.is_empty();
        if hidden {
            return Err(NotPicked::Ignored(text.to_owned()));
        }
    } else if !selection.exclude.ignores(&String::from_utf8_lossy(name)) {
        picked.items.push(Item {
            relative: Vec::new(),
            source: real,
            node,
        });
    }
    Ok(picked)
}

/// Everything in a directory that is not left out.
fn walk(
    tree: &Tree,
    selection: &Selection<'_>,
    dir: &[u8],
    relative: &[u8],
    depth: usize,
    items: &mut Vec<Item>,
) -> Result<(), NotPicked> {
    if depth > MAX_DEPTH {
        let text = String::from_utf8_lossy(dir);
        return Err(io::Error::other(format!("`{text}` is too deep for a layer")).into());
    }
    let opened = tree.open_dir(dir)?;
    for name in opened.names()? {
        let source = join(dir, &name);
        let relative = join(relative, &name);
        let text = String::from_utf8_lossy(&relative);
        let hidden = tree.is_ignored(&source) || selection.exclude.ignores(&text);
        let below = tree.may_keep_below(&source) || selection.exclude.may_keep_below(&text);
        if hidden && !below {
            continue;
        }
        // It may have gone since the directory was read.
        let Some(node) = opened.node(&name)? else {
            continue;
        };
        let is_dir = node.kind == NodeKind::Directory;
        if hidden && !is_dir {
            continue;
        }
        let at = items.len();
        items.push(Item {
            relative: relative.clone(),
            source: source.clone(),
            node,
        });
        if is_dir {
            walk(tree, selection, &source, &relative, depth + 1, items)?;
            // A hidden directory is there for what is kept of it.
            if hidden && items.len() == at + 1 {
                items.truncate(at);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::HostTree;
    use std::fs::{self, File};

    fn context(ignore: &str) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.txt", "b.txt", "c.bin", "d/e/f.txt", "d/g.bin", "x/a.txt"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap();
        }
        let tree = Tree::Host(HostTree::open(dir.path(), Ignore::parse(ignore).unwrap()).unwrap());
        (dir, tree)
    }

    fn picked(
        tree: &Tree,
        sources: &[&str],
        exclude: &[&str],
        keep_parents: bool,
    ) -> Result<Vec<String>, NotPicked> {
        let exclude = Ignore::of(exclude.iter().copied()).unwrap();
        let sources: Vec<String> = sources.iter().map(|&source| source.to_owned()).collect();
        let selection = Selection {
            sources: &sources,
            keep_parents,
            exclude: &exclude,
        };
        let mut names = Vec::new();
        for one in select(tree, &selection)? {
            for item in &one.items {
                let name = join(
                    &one.prefix,
                    &if one.is_dir {
                        item.relative.clone()
                    } else {
                        one.name.clone()
                    },
                );
                names.push(String::from_utf8(name).unwrap());
            }
        }
        Ok(names)
    }

    #[test]
    fn sources_are_paths_and_patterns() {
        let (_dir, tree) = context("");
        assert_eq!(
            picked(&tree, &["*.txt"], &[], false).unwrap(),
            ["a.txt", "b.txt"]
        );
        assert_eq!(
            picked(&tree, &["d"], &[], false).unwrap(),
            ["e", "e/f.txt", "g.bin"]
        );
        assert_eq!(
            picked(&tree, &["/d/../../d/e/"], &[], false).unwrap(),
            ["f.txt"]
        );
        assert_eq!(
            picked(&tree, &["**/a.txt"], &[], true).unwrap(),
            ["a.txt", "x/a.txt"]
        );
        assert_eq!(
            picked(&tree, &["d/./e/f.txt"], &[], true).unwrap(),
            ["e/f.txt"]
        );
        assert_eq!(
            picked(&tree, &["d"], &["**/*.bin"], false).unwrap(),
            ["e", "e/f.txt"]
        );
        assert!(picked(&tree, &["none*"], &[], false).unwrap().is_empty());
        assert!(matches!(
            picked(&tree, &["none"], &[], false),
            Err(NotPicked::Absent(_))
        ));
        assert!(matches!(
            picked(&tree, &["[x"], &[], false),
            Err(NotPicked::Pattern(_))
        ));
    }

    #[test]
    fn ignored_files_are_not_there_and_it_is_said_why() {
        let (_dir, tree) = context("*.txt\nd\n!d/e\n");
        assert_eq!(
            picked(&tree, &["."], &[], false).unwrap(),
            ["c.bin", "d", "d/e", "d/e/f.txt", "x", "x/a.txt"]
        );
        assert!(matches!(
            picked(&tree, &["a.txt"], &[], false),
            Err(NotPicked::Ignored(_))
        ));
        assert!(matches!(
            picked(&tree, &["d/g.bin"], &[], false),
            Err(NotPicked::Ignored(_))
        ));
        assert!(picked(&tree, &["*.txt"], &[], false).unwrap().is_empty());
    }
}
