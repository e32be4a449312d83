//! Patterns for paths: of `.dockerignore`, of COPY's sources, of `--exclude`.
//!
//! `*` and `?` match within one name, `[a-z]` one character, a backslash takes the next character
//! literally; `**` stands for any number of names.

/// A pattern, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Component>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`.
    AnyNames,
    Name(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`.
    One,
    /// `*`.
    Any,
    /// `[…]`: ranges, and whether it is `[^…]`.
    Set(Vec<(char, char)>, bool),
}

impl Pattern {
    /// Compiles a pattern; names are separated by `/`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let names = text
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".");
        let components = names.map(|name| match name {
            "**" => Ok(Component::AnyNames),
            name => Ok(Component::Name(
                parts(name).ok_or_else(|| format!("`{text}` is no pattern"))?,
            )),
        });
        Ok(Self(components.collect::<Result<_, String>>()?))
    }

    /// Whether the pattern is a path: nothing in it has a meaning.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.iter().all(|component| match component {
            Component::AnyNames => false,
            Component::Name(parts) => parts.iter().all(|part| matches!(part, Part::Char(_))),
        })
    }

    /// The pattern as the path that it is, when it is plain.
    pub(crate) fn as_path(&self) -> String {
        let names = self.0.iter().map(|component| match component {
            Component::AnyNames => "**".to_owned(),
            Component::Name(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Char(c) => Some(*c),
                    _ => None,
                })
                .collect(),
        });
        names.collect::<Vec<_>>().join("/")
    }

    /// Whether the whole path matches. Names are separated by `/`.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.reach(path).0
    }

    /// Whether something below the directory `path` can match.
    pub(crate) fn may_match_below(&self, path: &str) -> bool {
        self.reach(path).1
    }

    /// Whether the path matches, and whether the pattern goes on behind it. One pass over the path,
    /// however many `**` there are.
    fn reach(&self, path: &str) -> (bool, bool) {
        let count = self.0.len();
        let mut states = vec![false; count + 1];
        states[0] = true;
        let spread = |states: &mut Vec<bool>| {
            for index in 0..count {
                if states[index] && self.0.get(index) == Some(&Component::AnyNames) {
                    states[index + 1] = true;
                }
            }
        };
        spread(&mut states);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let mut after = vec![false; count + 1];
            for (index, component) in self.0.iter().enumerate() {
                if !states[index] {
                    continue;
                }
                match component {
                    Component::AnyNames => after[index] = true,
                    Component::Name(parts) if matches(parts, name) => after[index + 1] = true,
                    Component::Name(_) => {}
                }
            }
            states = after;
            spread(&mut states);
        }
        let goes_on = states
            .get(..count)
            .unwrap_or_default()
            .iter()
            .any(|state| *state);
        (states[count], goes_on)
    }
}

fn parts(name: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '\\' => Part::Char(chars.next()?),
            '?' => Part::One,
            '*' => {
                if parts.last() == Some(&Part::Any) {
                    continue;
                }
                Part::Any
            }
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let mut next = || match chars.next()? {
                        '\\' => chars.next(),
                        c => Some(c),
                    };
                    let first = next()?;
                    let last = match chars.next_if_eq(&'-') {
                        Some(_) => match chars.next()? {
                            '\\' => chars.next()?,
                            c => c,
                        },
                        None => first,
                    };
                    ranges.push((first, last));
                    if chars.next_if_eq(&']').is_some() {
                        break;
                    }
                }
                Part::Set(ranges, negated)
            }
            c => Part::Char(c),
        });
    }
    Some(parts)
}

fn matches(parts: &[Part], name: &str) -> bool {
    let count = parts.len();
    let mut states = vec![false; count + 1];
    states[0] = true;
    let spread = |states: &mut Vec<bool>| {
        for index in 0..count {
            if states[index] && parts.get(index) == Some(&Part::Any) {
                states[index + 1] = true;
            }
        }
    };
    spread(&mut states);
    for c in name.chars() {
        let mut after = vec![false; count + 1];
        for (index, part) in parts.iter().enumerate() {
            if !states[index] {
                continue;
            }
            let fits = match part {
                Part::Any => {
                    after[index] = true;
                    continue;
                }
                Part::One => true,
                Part::Char(own) => *own == c,
                Part::Set(ranges, negated) => {
                    ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *negated
                }
            };
            if fits {
                after[index + 1] = true;
            }
        }
        states = after;
        spread(&mut states);
    }
    states[count]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        let table = [
            ("a", "a", true),
            ("a", "a/b", false),
            ("*", "a", true),
            ("*", "a/b", false),
            ("*.go", "x.go", true),
            ("*/*.go", "d/x.go", true),
            ("**/*.go", "x.go", true),
            ("**/*.go", "a/b/x.go", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/x/y", false),
            ("[a-c]?", "bx", true),
            ("[^a-c]?", "bx", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("a*b*c", "aXbYc", true),
            ("**", "anything/at/all", true),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(path),
                expected,
                "{pattern} {path}"
            );
        }
        for bad in ["[", "[a", "a\\", "[]"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        // Time is bounded by lengths, not by their powers.
        let nasty = Pattern::parse(&"*a".repeat(200)).unwrap();
        assert!(!nasty.matches(&"a".repeat(5000).replace("aa", "ab")[..4000].replace('a', "b")));
    }

    #[test]
    fn pattern_tells_what_lies_below() {
        let pattern = Pattern::parse("a/*/c").unwrap();
        assert!(pattern.may_match_below("a") && pattern.may_match_below("a/x"));
        assert!(!pattern.may_match_below("b") && !pattern.may_match_below("a/x/c"));
    }
}
