//! ADD of archives: what they hold goes where the destination is.

use std::fs::File;
use std::io::{Read, Seek};

use image::{Compression, EntryKind, EntryPath, TarWalk};

use crate::copy::{Picked, Placer, Refusal};
use crate::tree::{Tree, join};

/// Whether a file is a tar archive, by its bytes.
pub(super) fn is_archive(tree: &Tree, picked: &Picked) -> bool {
    let Some(item) = picked.items.first() else {
        return false;
    };
    tree.open(&item.source).is_ok_and(|file| is_tar(&file))
}

/// Whether an open file is a tar archive, plain or compressed. It is rewound.
pub(super) fn is_tar(mut file: &File) -> bool {
    let mut head = Vec::new();
    let read = file.take(6).read_to_end(&mut head).is_ok() && file.rewind().is_ok();
    let mut block = Vec::new();
    let opened = match Compression::detect(&head) {
        // A compressed file that is no archive is a file.
        Compression::None => file.take(512).read_to_end(&mut block).is_ok(),
        _ => image::decompressed(file)
            .is_ok_and(|inner| inner.take(512).read_to_end(&mut block).is_ok()),
    };
    let is_rewound = file.rewind().is_ok();
    read && opened && is_rewound && block.get(257..262).is_some_and(|mark| mark == b"ustar")
}

/// Unpacks an archive below `destination`. Without an owner the files keep theirs.
pub(super) fn unpack(
    placer: &mut Placer<'_>,
    file: impl Read,
    destination: &str,
    owner: Option<(u32, u32)>,
) -> Result<(), Refusal> {
    let mut walk = TarWalk::new(image::decompressed(file)?);
    // Modes are the archive's own.
    let chmod = placer.chmod.take();
    let base = placer.directory(destination.as_bytes())?;
    while let Some(mut entry) = walk.next_entry()? {
        let rule = |what| {
            Refusal::Rule(format!(
                "`{}` of the archive: {what}",
                String::from_utf8_lossy(&entry.path)
            ))
        };
        let path = EntryPath::parse(&entry.path).map_err(rule)?;
        if path.is_root() {
            continue;
        }
        if let EntryKind::Hardlink(target) = &entry.kind {
            let target = EntryPath::parse(target).map_err(rule)?;
            let target = join(&base, target.as_bytes());
            entry.kind = EntryKind::Hardlink(target);
        }
        let mut at = base.clone();
        for name in path.components() {
            at = join(&at, name);
        }
        entry.path = at;
        if let Some((uid, gid)) = owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        // Names that mean whiteouts in a layer are names of files here, which a layer cannot hold.
        let name = path
            .split()
            .map(|(_, name)| name.to_vec())
            .unwrap_or_default();
        if name.starts_with(b".wh.") {
            return Err(Refusal::Rule(format!(
                "a layer cannot hold the name `{}` of the archive",
                String::from_utf8_lossy(&name)
            )));
        }
        placer.entry(entry, &mut walk)?;
    }
    placer.chmod = chmod;
    Ok(())
}
