//! Whiteouts: how an archive says that something below it is gone (image-spec v1.1.1
//! `layer.md#whiteouts`).

use crate::tarwalk::EntryPath;

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS kept its own files under this prefix; some old archives still carry them.
const AUFS: &[u8] = b".wh..wh.";

/// What a path of an archive says about whiteouts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: it is an ordinary entry.
    Entry,
    /// What the layers below have in this directory is gone.
    Opaque(EntryPath),
    /// What the layers below have at this path is gone.
    Whiteout(EntryPath),
    /// Nothing for us.
    Ignored,
}

/// Reads the meaning of a path; an error is the rule that it breaks.
pub(super) fn meaning(path: &EntryPath) -> Result<Meaning, &'static str> {
    let Some((parent, name)) = path.split() else {
        return Ok(Meaning::Entry);
    };
    let reserved = parent
        .components()
        .find(|component| component.starts_with(PREFIX));
    match reserved {
        Some(component) if component.starts_with(AUFS) => return Ok(Meaning::Ignored),
        Some(_) => return Err("its path goes through a whiteout"),
        None => {}
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque(parent));
    }
    if name.starts_with(AUFS) {
        return Ok(Meaning::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        Some(b"" | b"." | b"..") => Err("its whiteout names nothing"),
        Some(target) => Ok(Meaning::Whiteout(parent.child(target))),
        None => Ok(Meaning::Entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaning_of_every_form() {
        let path = |raw: &str| EntryPath::parse(raw.as_bytes()).unwrap();
        let table = [
            ("a/b", Ok(Meaning::Entry)),
            ("", Ok(Meaning::Entry)),
            (".wh.a", Ok(Meaning::Whiteout(path("a")))),
            ("d/.wh.a", Ok(Meaning::Whiteout(path("d/a")))),
            ("d/.wh..wh..opq", Ok(Meaning::Opaque(path("d")))),
            (".wh..wh..opq", Ok(Meaning::Opaque(path("")))),
            (".wh..wh.plnk", Ok(Meaning::Ignored)),
            (".wh..wh.plnk/1.2", Ok(Meaning::Ignored)),
            (".wh..hidden", Ok(Meaning::Whiteout(path(".hidden")))),
        ];
        for (raw, expected) in table {
            assert_eq!(meaning(&path(raw)), expected, "{raw}");
        }
        for raw in [".wh.", "d/.wh.", ".wh..", ".wh...", ".wh.d/x"] {
            assert!(meaning(&path(raw)).is_err(), "{raw}");
        }
    }
}
