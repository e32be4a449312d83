//! The files of a result for `--output type=local` and `type=tar`: an image's root, without its config.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use image::LayeredRoot;
use sys::durable;

use crate::error::BuildError;
use crate::tree::{MAX_DEPTH, NodeKind, Tree, join};

/// Writes the files of stacked layers into a directory, which is made when it is missing. Files that are
/// there are replaced, others stay. They belong to who builds.
///
/// # Errors
/// When something cannot be written, or a directory of the result lies where something else is.
pub fn export_directory(layers: &[PathBuf], target: &Path) -> Result<(), BuildError> {
    let failed = |source| BuildError::Output {
        path: target.to_path_buf(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(target)
        .map_err(failed)?;
    let tree = Tree::Layers(LayeredRoot::new(layers.to_vec()));
    // Through no link that lies in the target: the walk makes each directory, or finds it as one.
    write_directory(&tree, b"", target, 0).map_err(failed)
}

fn write_directory(tree: &Tree, dir: &[u8], target: &Path, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the files lie too deep"));
    }
    for name in tree.names(dir)? {
        let path = join(dir, &name);
        let Some(node) = tree.node(&path)? else {
            continue;
        };
        let own = target.join(std::ffi::OsStr::from_bytes(&name));
        let there = fs::symlink_metadata(&own).ok();
        if node.kind == NodeKind::Directory {
            match there {
                Some(meta) if meta.is_dir() => {}
                Some(_) => {
                    return Err(io::Error::other(format!(
                        "`{}` is no directory",
                        own.display()
                    )));
                }
                None => DirBuilder::new().mode(0o755).create(&own)?,
            }
            write_directory(tree, &path, &own, depth + 1)?;
            fs::set_permissions(&own, Permissions::from_mode(node.mode | 0o700))?;
            continue;
        }
        match there {
            Some(meta) if meta.is_dir() => {
                return Err(io::Error::other(format!(
                    "`{}` is a directory",
                    own.display()
                )));
            }
            Some(_) => durable::remove_tree(&own)?,
            None => {}
        }
        match &node.kind {
            NodeKind::File => {
                let mut file = File::options().write(true).create_new(true).open(&own)?;
                io::copy(&mut tree.open(&path)?, &mut file)?;
                // Set-user-ID bits are for the image's users, not for the host's.
                file.set_permissions(Permissions::from_mode(node.mode & 0o777))?;
            }
            NodeKind::Symlink(link) => symlink(std::ffi::OsStr::from_bytes(link), &own)?,
            // Devices, pipes and sockets are nothing for a directory of files.
            _ => {}
        }
    }
    Ok(())
}

/// Writes the files of stacked layers as a tar archive.
///
/// # Errors
/// When the archive cannot be written.
pub fn export_tar(layers: &[PathBuf], out: impl Write) -> Result<(), BuildError> {
    let failed = BuildError::io("write the archive of the result");
    let tree = Tree::Layers(LayeredRoot::new(layers.to_vec()));
    let mut archive = tar::Builder::new(out);
    write_entries(&tree, b"", &mut archive, 0).map_err(&failed)?;
    archive
        .into_inner()
        .and_then(|mut out| out.flush())
        .map_err(failed)
}

fn write_entries<W: Write>(
    tree: &Tree,
    dir: &[u8],
    archive: &mut tar::Builder<W>,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the files lie too deep"));
    }
    for name in tree.names(dir)? {
        let path = join(dir, &name);
        let Some(node) = tree.node(&path)? else {
            continue;
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(u64::try_from(node.mtime).unwrap_or(0));
        header.set_size(0);
        let own = Path::new(std::ffi::OsStr::from_bytes(&path));
        match &node.kind {
            NodeKind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, own.join(""), io::empty())?;
                write_entries(tree, &path, archive, depth + 1)?;
            }
            NodeKind::File => {
                let file = tree.open(&path)?;
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(file.metadata()?.len());
                archive.append_data(&mut header, own, file)?;
            }
            NodeKind::Symlink(link) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(
                    &mut header,
                    own,
                    Path::new(std::ffi::OsStr::from_bytes(link)),
                )?;
            }
            NodeKind::Device(block, major, minor) => {
                header.set_entry_type(if *block {
                    tar::EntryType::Block
                } else {
                    tar::EntryType::Char
                });
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                archive.append_data(&mut header, own, io::empty())?;
            }
            NodeKind::Fifo => {
                header.set_entry_type(tar::EntryType::Fifo);
                archive.append_data(&mut header, own, io::empty())?;
            }
            NodeKind::Socket => {}
        }
    }
    Ok(())
}
