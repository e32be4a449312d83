//! `--chmod`: a number in octal, or letters as chmod(1) has them.

/// A change of modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    Octal(u32),
    Letters(Vec<Change>),
}

/// `ugo` as a mask, what is done, and the letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    who: u32,
    operation: char,
    letters: String,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .map(Self::Octal);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '='])?;
            let (who, rest) = clause.split_at(at);
            let mut mask = 0;
            for letter in who.chars() {
                mask |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return None,
                };
            }
            if who.is_empty() {
                mask = 0o7777;
            }
            let mut rest = rest.chars();
            while let Some(operation) = rest.next() {
                if !"+-=".contains(operation) {
                    return None;
                }
                let letters: String = rest.clone().take_while(|c| !"+-=".contains(*c)).collect();
                if !letters.chars().all(|c| "rwxXst".contains(c)) {
                    return None;
                }
                for _ in letters.chars() {
                    rest.next();
                }
                changes.push(Change {
                    who: mask,
                    operation,
                    letters,
                });
            }
        }
        Some(Self::Letters(changes))
    }

    /// The mode of something that has `mode`.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Letters(changes) => changes,
        };
        let mut mode = mode;
        for change in changes {
            let mut bits = 0;
            for letter in change.letters.chars() {
                bits |= match letter {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if is_dir || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                };
            }
            bits &= change.who;
            mode = match change.operation {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !(change.who & 0o777)) | bits,
            };
        }
        mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_chmod() {
        let table = [
            ("755", 0o600, false, 0o755),
            ("0644", 0o7777, false, 0o644),
            ("u+x", 0o644, false, 0o744),
            ("go-w", 0o666, false, 0o644),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, true, 0o555),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go=rX", 0o640, false, 0o644),
            ("u+s", 0o755, false, 0o4755),
            ("u-x+w", 0o500, false, 0o600),
        ];
        for (text, before, is_dir, after) in table {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(chmod.apply(before, is_dir), after, "{text}");
        }
        for bad in ["", "8", "99999", "u", "u+q", "z+x", "rwx"] {
            assert_eq!(Chmod::parse(bad), None, "{bad}");
        }
    }
}
