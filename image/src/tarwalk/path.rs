//! Paths of archive entries: bytes, relative, normalised, bounded.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path that is accepted (`PATH_MAX` without the final NUL).
const MAX_LENGTH: usize = 4095;

/// The longest name in a directory (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// How deep a path may go. Deep trees cost a descriptor a level when they are removed.
const MAX_DEPTH: usize = 256;

/// A path inside a layer: components without `.`, `..` and empty ones, joined by `/`. Empty is the
/// layer's root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Normalises a path as it stands in an archive: a leading `/` is dropped, `a/../b` is `b`.
    ///
    /// # Errors
    /// With the rule that it breaks: a `..` that leaves the root, a NUL, too long, too deep.
    pub fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        if raw.contains(&0) {
            return Err("its path holds a NUL");
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    components.pop().ok_or("its path leaves the root by `..`")?;
                }
                name if name.len() > MAX_NAME => return Err("a name in its path is too long"),
                name => components.push(name),
            }
        }
        if components.len() > MAX_DEPTH {
            return Err("its path is too deep");
        }
        let joined = components.join(&b'/');
        if joined.len() > MAX_LENGTH {
            return Err("its path is too long");
        }
        Ok(Self(joined))
    }

    /// Whether it is the layer's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without a leading or trailing `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for a system call relative to the root: `.` for the root itself.
    #[must_use]
    pub fn as_relative(&self) -> &[u8] {
        if self.0.is_empty() { b"." } else { &self.0 }
    }

    /// Parent and name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => {
                let (parent, name) = self.0.split_at(at);
                Some((Self(parent.to_vec()), name.get(1..).unwrap_or_default()))
            }
            None => Some((Self::default(), &self.0)),
        }
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The path of `name` in this directory. `name` holds no `/`.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Whether it is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(other.0.as_slice())
                .is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
    }
}

/// In records a path is text: what is no plain character in UTF-8 stands as `%XX`.
impl Serialize for EntryPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '%' || c.is_control() {
                    escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
                } else {
                    text.push(c);
                }
            }
            escape(&mut text, chunk.invalid());
        }
        serializer.serialize_str(&text)
    }
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push('%');
        text.push_str(&hex::encode_upper([*byte]));
    }
}

impl<'de> Deserialize<'de> for EntryPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((byte, tail)) = rest.split_first() {
            rest = tail;
            if *byte != b'%' {
                bytes.push(*byte);
                continue;
            }
            let mut escaped = [0];
            let digits = rest.get(..2).unwrap_or_default();
            hex::decode_to_slice(digits, &mut escaped).map_err(serde::de::Error::custom)?;
            bytes.extend(escaped);
            rest = rest.get(2..).unwrap_or_default();
        }
        Self::parse(&bytes).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.as_relative()))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A name from an archive as a message may show it: no control characters, not endless.
pub(crate) fn printable(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw)
        .chars()
        .take(200)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_normalises_or_refuses() {
        let good: [(&[u8], &[u8]); 9] = [
            (b"", b""),
            (b".", b""),
            (b"/", b""),
            (b"./", b""),
            (b"/etc/passwd", b"etc/passwd"),
            (b"./a//b/", b"a/b"),
            (b"a/../b", b"b"),
            (b"a/b/../..", b""),
            (b"a\xff/b", b"a\xff/b"),
        ];
        for (raw, expected) in good {
            assert_eq!(EntryPath::parse(raw).unwrap().as_bytes(), expected);
        }
        let long = vec![b'a'; 256];
        let deep = b"a/".repeat(257);
        for bad in [
            &b".."[..],
            b"../a",
            b"a/../../b",
            b"/..",
            b"a\0b",
            &long,
            &deep,
        ] {
            assert!(EntryPath::parse(bad).is_err());
        }
    }

    #[test]
    fn path_in_a_record_comes_back() {
        for raw in [
            &b"plain/path"[..],
            b"with %41 and\n",
            b"latin\xe9/x",
            "ü/ö".as_bytes(),
        ] {
            let path = EntryPath::parse(raw).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<EntryPath>(&json).unwrap(), path);
        }
        assert!(serde_json::from_str::<EntryPath>("\"../x\"").is_err());
        assert!(serde_json::from_str::<EntryPath>("\"a%4\"").is_err());
    }

    #[test]
    fn is_within_compares_whole_components() {
        let path = |raw: &[u8]| EntryPath::parse(raw).unwrap();
        assert!(path(b"a/b").is_within(&path(b"a")));
        assert!(path(b"a").is_within(&path(b"a")));
        assert!(path(b"a").is_within(&path(b"")));
        assert!(!path(b"ab").is_within(&path(b"a")));
    }
}
