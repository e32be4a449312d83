//! Paths of `cp`, and what they say besides their names: a slash at the end means a directory, `/.`
//! what is in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyPath {
    /// The path without what stands at its end.
    pub(super) path: PathBuf,
    /// Its last name; none for the root and for what ends with `..`.
    pub(super) name: Option<Vec<u8>>,
    /// It must be a directory.
    pub(super) is_directory: bool,
    /// What is in the directory is meant, not itself.
    pub(super) contents: bool,
}

impl CopyPath {
    pub(super) fn parse(text: &Path) -> Self {
        let bytes = text.as_os_str().as_bytes();
        let (rest, contents) = match bytes.strip_suffix(b"/.") {
            Some(rest) => (rest, true),
            None => (bytes, bytes == b"."),
        };
        let trimmed = match rest.iter().rposition(|byte| *byte != b'/') {
            Some(last) => rest.get(..=last).unwrap_or_default(),
            None if rest.is_empty() && !contents => b"",
            None => b"/",
        };
        let is_directory = contents || bytes.ends_with(b"/") || trimmed == b"/";
        let path = PathBuf::from(OsStr::from_bytes(trimmed));
        let name = path.file_name().map(|name| name.as_bytes().to_vec());
        let name = name.filter(|_| !contents || bytes != b".");
        Self {
            contents: contents || name.is_none(),
            path,
            name,
            is_directory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_says_what_it_means_at_its_end() {
        let table: [(&str, &str, Option<&str>, bool, bool); 9] = [
            ("/a/b", "/a/b", Some("b"), false, false),
            ("/a/b/", "/a/b", Some("b"), true, false),
            ("/a/b/.", "/a/b", Some("b"), true, true),
            ("a//", "a", Some("a"), true, false),
            ("/", "/", None, true, true),
            ("/.", "/", None, true, true),
            (".", ".", None, true, true),
            ("a/..", "a/..", None, false, true),
            ("./x", "./x", Some("x"), false, false),
        ];
        for (text, path, name, is_directory, contents) in table {
            let expected = CopyPath {
                path: PathBuf::from(path),
                name: name.map(|name| name.as_bytes().to_vec()),
                is_directory,
                contents,
            };
            assert_eq!(CopyPath::parse(Path::new(text)), expected, "{text}");
        }
    }
}
