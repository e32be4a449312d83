//! Absolute symbolic links of an image, made relative: a layer to lie above the image's own.
//!
//! A WASI guest resolves names beneath its root and may not follow an absolute link, because it
//! cannot be told from a way out. In an image `/etc/alternatives/vi -> /usr/bin/vim` means a file
//! of the image; `../../usr/bin/vim` says the same and can be followed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::fixup::Plan;
use crate::lookup::{LastLink, LayeredRoot};
use crate::store::Store;
use crate::tarwalk::{Entry, EntryKind, EntryPath};

/// The directory with the relative links of an image, made when it is missing. `None` for an image
/// that has no absolute ones.
pub(crate) fn ensure(
    store: &Store,
    image: &Digest,
    dirs: &[PathBuf],
) -> Result<Option<PathBuf>, ImageError> {
    let suffix = store.layers.suffix();
    let target = store.records.dir(image).join(format!("links{suffix}"));
    if !target.is_dir() {
        let plan = plan(dirs)?;
        plan.build(store, dirs, &target, make_relative)?;
    }
    // An empty directory remembers that there are none.
    let mut entries = fs::read_dir(&target).map_err(|source| failed(&target, source))?;
    Ok(entries.next().is_some().then_some(target))
}

fn plan(dirs: &[PathBuf]) -> Result<Plan, ImageError> {
    let root = LayeredRoot::new(dirs.to_vec());
    let mut links = BTreeMap::new();
    for (layer, dir) in dirs.iter().enumerate() {
        let mut open = vec![dir.clone()];
        while let Some(current) = open.pop() {
            for entry in fs::read_dir(&current).map_err(|source| failed(&current, source))? {
                let entry = entry.map_err(|source| failed(&current, source))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(|source| failed(&path, source))?;
                if kind.is_dir() {
                    open.push(path);
                } else if kind.is_symlink() && is_absolute(&path)? {
                    let inside = path.strip_prefix(dir).unwrap_or(&path);
                    if shows(&root, layer, inside) {
                        let parsed = parse(inside)?;
                        links.insert(parsed.clone(), (layer, parsed));
                    }
                }
            }
        }
    }
    Plan(links).with_parents(&root)
}

fn is_absolute(link: &Path) -> Result<bool, ImageError> {
    let target = fs::read_link(link).map_err(|source| failed(link, source))?;
    Ok(target.is_absolute())
}

/// Whether what this layer has at `path` is what the image has there.
fn shows(root: &LayeredRoot, layer: usize, path: &Path) -> bool {
    let found = root.find(path, LastLink::Keep);
    found.is_ok_and(|found| found.layer == layer)
}

fn make_relative(entry: &mut Entry) {
    let depth = entry.path.iter().filter(|byte| **byte == b'/').count();
    let EntryKind::Symlink(target) = &mut entry.kind else {
        return;
    };
    let Some(first) = target.iter().position(|byte| *byte != b'/') else {
        // The root itself.
        *target = [b"../".repeat(depth), b".".to_vec()].concat();
        return;
    };
    if first > 0 {
        let rest = target.split_off(first);
        *target = [b"../".repeat(depth), rest].concat();
    }
}

fn parse(path: &Path) -> Result<EntryPath, ImageError> {
    EntryPath::parse(path.as_os_str().as_bytes()).map_err(|reason| ImageError::Entry {
        entry: path.display().to_string(),
        reason,
    })
}

fn failed(path: &Path, source: std::io::Error) -> ImageError {
    ImageError::Lookup {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(path: &str, target: &str) -> String {
        let mut entry = Entry {
            path: path.as_bytes().to_vec(),
            kind: EntryKind::Symlink(target.as_bytes().to_vec()),
            mode: 0o777,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
        };
        make_relative(&mut entry);
        match entry.kind {
            EntryKind::Symlink(target) => String::from_utf8(target).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn absolute_links_become_relative_and_others_stay() {
        let rows = [
            ("bin", "/usr/bin", "usr/bin"),
            ("etc/alternatives/vi", "/usr/bin/vim", "../../usr/bin/vim"),
            ("a/b/root", "/", "../../."),
            ("a/twice", "//usr", "../usr"),
            ("a/b", "../c", "../c"),
            ("a", "b", "b"),
        ];
        for (path, target, expected) in rows {
            assert_eq!(relative(path, target), expected, "{path} -> {target}");
        }
    }
}
