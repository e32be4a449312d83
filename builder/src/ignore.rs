//! `.dockerignore`: what of a context a build does not see.

use crate::pattern::Pattern;

/// The rules of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    /// `!`: what matches is seen after all.
    keeps: bool,
}

impl Ignore {
    /// Reads the text of a `.dockerignore`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self::of(lines)
    }

    /// The rules of these patterns, the last that matches decides.
    pub(crate) fn of<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut rules = Vec::new();
        for line in patterns {
            let line = line.trim();
            let (keeps, text) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if text.is_empty() {
                if keeps {
                    return Err("`!` stands without a pattern".to_owned());
                }
                continue;
            }
            let text = clean(text);
            if text.is_empty() {
                continue;
            }
            let pattern = Pattern::parse(&text)?;
            rules.push(Rule { pattern, keeps });
        }
        Ok(Self { rules })
    }

    /// Whether there are no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the path is left out: by the last rule that matches it or a directory that it is in.
    pub(crate) fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            if rule.keeps == ignored && prefixes(path).any(|prefix| rule.pattern.matches(prefix)) {
                ignored = !rule.keeps;
            }
        }
        ignored
    }

    /// Whether a directory that is left out has to be looked into: a rule may keep something of it.
    pub(crate) fn may_keep_below(&self, path: &str) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.keeps && rule.pattern.may_match_below(path))
    }
}

/// The path and the directories that it is in.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .filter_map(|(at, _)| path.get(..at))
        .chain(std::iter::once(path))
}

/// The path without `.`, `..` and a leading `/`.
pub(crate) fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_dockers() {
        let ignore = Ignore::parse(
            "\u{feff}# comment\n*.md\n!README.md\n/build\n**/*.tmp\n  docs  \n!docs/keep/*.txt\na/../b\n",
        )
        .unwrap();
        let table = [
            ("x.md", true),
            ("README.md", false),
            ("sub/x.md", false),
            ("build", true),
            ("build/deep/file", true),
            ("sub/build", false),
            ("a.tmp", true),
            ("x/y/a.tmp", true),
            ("docs/other", true),
            ("docs/keep/a.txt", false),
            ("docs/keep/a.bin", true),
            ("b", true),
            ("a", false),
        ];
        for (path, expected) in table {
            assert_eq!(ignore.ignores(path), expected, "{path}");
        }
        assert!(ignore.may_keep_below("docs") && ignore.may_keep_below("docs/keep"));
        assert!(!ignore.may_keep_below("build"));
    }

    #[test]
    fn all_but_some_is_written_with_exceptions() {
        let ignore = Ignore::parse("*\n!*/*.txt\n").unwrap();
        assert!(ignore.ignores("a.txt") && ignore.ignores("d/x.bin"));
        assert!(!ignore.ignores("d/x.txt"));
        assert!(Ignore::parse("!\n").is_err());
    }
}
