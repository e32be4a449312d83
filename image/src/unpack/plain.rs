//! An archive into a directory that is no layer, such as a volume.

use std::io::Read;
use std::path::Path;

use super::stream::UnpackMode;
use super::tree::LayerTree;
use crate::decode::decoder;
use crate::error::ImageError;
use crate::tarwalk::TarWalk;

/// Unpacks an archive, plain or compressed, into a directory: over what is there, and nothing of it
/// outside. Gives what could not be kept, one line each.
///
/// # Errors
/// When the archive is malformed, or something of it cannot be written; what was written stays.
pub fn unpack_archive(
    archive: impl Read,
    dir: &Path,
    mode: UnpackMode,
) -> Result<Vec<String>, ImageError> {
    let (_, stream) = decoder(archive)?;
    let mut walk = TarWalk::new(stream);
    let mut tree = LayerTree::plain(dir, mode)?;
    while let Some(entry) = walk.next_entry()? {
        tree.put(&entry, &mut walk)?;
    }
    let unpacked = tree.finish()?;
    if let Some(link) = unpacked.links.first() {
        return Err(ImageError::Entry {
            entry: link.path.to_string(),
            reason: "it is a hard link to something that is not in the archive",
        });
    }
    let lost = |skipped: &super::tree::Skipped| format!("{} of {}", skipped.what, skipped.entry);
    Ok(unpacked.skipped.iter().map(lost).collect())
}
