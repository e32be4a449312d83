//! The keys that leave a container's terminal and let it go on.

use std::str::FromStr;

/// Docker's keys.
pub const DEFAULT_DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// A text that names no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot use the detach keys `{0}`: keys are letters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas between"
)]
pub struct BadDetachKeys(String);

/// A sequence of keys, and how much of it was typed.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl FromStr for DetachKeys {
    type Err = BadDetachKeys;

    fn from_str(text: &str) -> Result<Self, BadDetachKeys> {
        let keys: Option<Vec<u8>> = match text {
            // No keys: nothing that is typed leaves it.
            "" => Some(Vec::new()),
            _ => text.split(',').map(key).collect(),
        };
        let keys = keys.ok_or_else(|| BadDetachKeys(text.to_owned()))?;
        Ok(Self { keys, matched: 0 })
    }
}

/// The byte that a terminal sends for a key.
fn key(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [single] if single.is_ascii_graphic() => Some(*single),
        _ => match text.strip_prefix("ctrl-")?.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'@'),
            _ => None,
        },
    }
}

impl DetachKeys {
    /// Takes what was typed: what of it goes to the program is left in `bytes`. `true` when the keys
    /// are complete; what comes after them is lost.
    pub fn scan(&mut self, bytes: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            return false;
        }
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes.iter() {
            if self.keys.get(self.matched) != Some(&byte) {
                // It was something else all the time.
                passed.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
                self.matched = 0;
            }
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    *bytes = passed;
                    return true;
                }
            } else {
                passed.push(byte);
            }
        }
        *bytes = passed;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys: DetachKeys = keys.parse().unwrap();
        let mut passed = Vec::new();
        for piece in pieces {
            let mut bytes = piece.to_vec();
            let done = keys.scan(&mut bytes);
            passed.extend(bytes);
            if done {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[test]
    fn keys_are_found_over_pieces_and_the_rest_passes() {
        assert_eq!(
            typed(DEFAULT_DETACH_KEYS, &[b"ab\x10", b"\x11cd"]),
            (b"ab".to_vec(), true)
        );
        assert_eq!(
            typed(DEFAULT_DETACH_KEYS, &[b"\x10x\x11"]),
            (b"\x10x\x11".to_vec(), false)
        );
        assert_eq!(
            typed(DEFAULT_DETACH_KEYS, &[b"\x10\x10\x11"]),
            (b"\x10".to_vec(), true)
        );
        assert_eq!(typed("a,b,c", &[b"aab", b"abc"]), (b"aab".to_vec(), true));
        assert_eq!(typed("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(
            "ctrl-@,ctrl-_,x".parse::<DetachKeys>().unwrap().keys,
            [0, 31, b'x']
        );
        for bad in ["ctrl-", "ctrl-A", "alt-x", "a,,b", "ab", "ctrl-1"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }
}
