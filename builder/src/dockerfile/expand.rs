//! Variables in words: `$name`, `${name}` and the forms of the shell that Dockerfiles have.

use std::collections::BTreeSet;

/// How deep words may stand in words: `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 32;

/// What variables are looked up in, and what was found out on the way.
pub(crate) trait Lookup {
    /// The value of a variable.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// What an expansion gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The words.
    pub(crate) words: Vec<String>,
    /// Variables that have no value and no default.
    pub(crate) unset: BTreeSet<String>,
    /// Variables that were used.
    pub(crate) used: BTreeSet<String>,
}

impl Expanded {
    /// All words as one.
    pub(crate) fn joined(self) -> String {
        self.words.join(" ")
    }
}

/// Expands a text to one word: blanks stay.
pub(crate) fn word(text: &str, escape: char, env: &dyn Lookup) -> Result<Expanded, String> {
    Expander::new(text, escape, env, Mode::Word).run()
}

/// Expands a text to words: blanks outside of quotes separate them.
pub(crate) fn words(text: &str, escape: char, env: &dyn Lookup) -> Result<Expanded, String> {
    Expander::new(text, escape, env, Mode::Words).run()
}

/// Expands the text of a heredoc: quotes are text.
pub(crate) fn heredoc(text: &str, escape: char, env: &dyn Lookup) -> Result<Expanded, String> {
    Expander::new(text, escape, env, Mode::Heredoc).run()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Word,
    Words,
    Heredoc,
}

struct Expander<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    env: &'a dyn Lookup,
    mode: Mode,
    depth: usize,
    out: Expanded,
    /// The word that is being made.
    word: Option<String>,
}

impl<'a> Expander<'a> {
    fn new(text: &str, escape: char, env: &'a dyn Lookup, mode: Mode) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            escape,
            env,
            mode,
            depth: 0,
            out: Expanded::default(),
            word: (mode != Mode::Words).then(String::new),
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn push(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn push_char(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn run(mut self) -> Result<Expanded, String> {
        while let Some(c) = self.next() {
            match c {
                '\'' if self.mode != Mode::Heredoc => self.single_quoted()?,
                '"' if self.mode != Mode::Heredoc => self.double_quoted()?,
                '$' => {
                    let value = self.dollar()?;
                    match self.mode {
                        Mode::Words => value.chars().for_each(|c| self.plain(c)),
                        Mode::Word | Mode::Heredoc => self.push(&value),
                    }
                }
                c if c == self.escape => self.escaped(),
                c => self.plain(c),
            }
        }
        self.out.words.extend(self.word.take());
        Ok(self.out)
    }

    /// A character that is in no quotes: a blank ends a word, where there are several.
    fn plain(&mut self, c: char) {
        if self.mode == Mode::Words && c.is_whitespace() {
            self.out.words.extend(self.word.take());
        } else {
            self.push_char(c);
        }
    }

    /// The character after the escape character stands for itself.
    fn escaped(&mut self) {
        // Also in heredocs, where a shell would keep most of them: other builders do the same.
        if let Some(c) = self.next() {
            self.push_char(c);
        }
    }

    fn single_quoted(&mut self) -> Result<(), String> {
        self.push("");
        loop {
            match self.next() {
                None => return Err("a single quote is not closed".to_owned()),
                Some('\'') => return Ok(()),
                Some(c) => self.push_char(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        self.push("");
        loop {
            match self.next() {
                None => return Err("a double quote is not closed".to_owned()),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar()?;
                    self.push(&value);
                }
                Some(c) if c == self.escape => match self.next() {
                    None => return Err("a double quote is not closed".to_owned()),
                    // As in a shell, the escape character stays before what needs none.
                    Some(c) if c == '"' || c == '$' || c == self.escape => self.push_char(c),
                    Some(c) => {
                        self.push_char(self.escape);
                        self.push_char(c);
                    }
                },
                Some(c) => self.push_char(c),
            }
        }
    }

    /// What a `$` stands for; it was taken already.
    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.value_or_unset(&name))
    }

    fn value_or_unset(&mut self, name: &str) -> String {
        self.out.used.insert(name.to_owned());
        match self.env.get(name) {
            Some(value) => value,
            None => {
                self.out.unset.insert(name.to_owned());
                String::new()
            }
        }
    }

    /// A name, or one of the shell's parameters of one character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let fits = match name.is_empty() {
                true => c.is_ascii_alphabetic() || c == '_',
                false => c.is_ascii_alphanumeric() || c == '_',
            };
            if !fits {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        if name.is_empty()
            && let Some(c) = self.peek()
            && (c.is_ascii_digit() || "@*#?-$!".contains(c))
        {
            self.at += 1;
            name.push(c);
        }
        name
    }

    /// `${…}`, after the brace.
    fn braced(&mut self) -> Result<String, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("variables stand too deep in each other".to_owned());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("`${` is not followed by a name".to_owned());
        }
        let unclosed = || format!("`${{{name}` is not closed");
        let result = match self.next() {
            None => return Err(unclosed()),
            Some('}') => Ok(self.value_or_unset(&name)),
            Some(':') => match self.next() {
                Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, true),
                Some(c) => Err(format!("`${{{name}:{c}` is no form of a variable")),
                None => return Err(unclosed()),
            },
            Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, false),
            Some(c @ ('#' | '%')) => {
                let longest = self.peek() == Some(c);
                if longest {
                    self.at += 1;
                }
                let pattern = self.pattern(&name, &['}'])?;
                self.at += 1;
                let value = self.value_or_unset(&name);
                Ok(match c {
                    '#' => pattern.without_prefix(&value, longest),
                    _ => pattern.without_suffix(&value, longest),
                })
            }
            Some('/') => {
                let all = self.peek() == Some('/');
                if all {
                    self.at += 1;
                }
                let pattern = self.pattern(&name, &['/', '}'])?;
                let replacement = match self.next() {
                    Some('/') => {
                        let text = self.inner(&name, &['}'])?;
                        self.at += 1;
                        text
                    }
                    _ => String::new(),
                };
                let value = self.value_or_unset(&name);
                Ok(pattern.replace(&value, &replacement, all))
            }
            Some(c) => Err(format!("`${{{name}{c}` is no form of a variable")),
        };
        self.depth -= 1;
        result
    }

    /// `-`, `+` and `?`, with or without the colon that counts empty values as unset.
    fn conditional(&mut self, name: &str, kind: char, colon: bool) -> Result<String, String> {
        let text = self.inner(name, &['}'])?;
        self.at += 1;
        self.out.used.insert(name.to_owned());
        let value = self.env.get(name);
        let given = value
            .as_ref()
            .is_some_and(|value| !(colon && value.is_empty()));
        match kind {
            '-' if given => Ok(value.unwrap_or_default()),
            '-' => Ok(text),
            '+' if given => Ok(text),
            '+' => Ok(String::new()),
            _ if given => Ok(value.unwrap_or_default()),
            _ if text.is_empty() => Err(format!("the variable `{name}` is not set")),
            _ => Err(format!("the variable `{name}` is not set: {text}")),
        }
    }

    /// The text up to one of `ends`, with its variables replaced; the end is not taken.
    fn inner(&mut self, name: &str, ends: &[char]) -> Result<String, String> {
        let outer = self.word.replace(String::new());
        loop {
            match self.peek() {
                None => return Err(format!("`${{{name}` is not closed")),
                Some(c) if ends.contains(&c) => break,
                Some('\'') if self.mode != Mode::Heredoc => {
                    self.at += 1;
                    self.single_quoted()?;
                }
                Some('"') if self.mode != Mode::Heredoc => {
                    self.at += 1;
                    self.double_quoted()?;
                }
                Some('$') => {
                    self.at += 1;
                    let value = self.dollar()?;
                    self.push(&value);
                }
                Some(c) if c == self.escape => {
                    self.at += 1;
                    if let Some(c) = self.next() {
                        self.push_char(c);
                    }
                }
                Some(c) => {
                    self.at += 1;
                    self.push_char(c);
                }
            }
        }
        Ok(std::mem::replace(&mut self.word, outer).unwrap_or_default())
    }

    /// A pattern up to one of `ends`: the escape character takes the meaning of the next one.
    fn pattern(&mut self, name: &str, ends: &[char]) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        loop {
            match self.peek() {
                None => return Err(format!("`${{{name}` is not closed")),
                Some(c) if ends.contains(&c) => return Ok(Pattern(parts)),
                Some('$') => {
                    self.at += 1;
                    let value = self.dollar()?;
                    parts.extend(value.chars().map(Part::Char));
                }
                Some('*') => {
                    self.at += 1;
                    parts.push(Part::Any);
                }
                Some('?') => {
                    self.at += 1;
                    parts.push(Part::One);
                }
                Some(c) if c == self.escape => {
                    self.at += 1;
                    parts.extend(self.next().map(Part::Char));
                }
                Some(c) => {
                    self.at += 1;
                    parts.push(Part::Char(c));
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Char(char),
    One,
    Any,
}

/// A pattern of the shell: `*`, `?` and characters.
struct Pattern(Vec<Part>);

impl Pattern {
    /// How many characters of the beginning of `text` match, for each that does: one pass, whatever
    /// the pattern is.
    fn lengths(&self, text: &[char]) -> Vec<usize> {
        let parts = self.0.len();
        // Which positions of the pattern the text can have brought us to.
        let mut states = vec![false; parts + 1];
        states[0] = true;
        let mut found = Vec::new();
        for at in 0..=text.len() {
            for index in 0..parts {
                if states[index] && self.0.get(index) == Some(&Part::Any) {
                    states[index + 1] = true;
                }
            }
            if states[parts] {
                found.push(at);
            }
            let Some(c) = text.get(at) else { break };
            let mut after = vec![false; parts + 1];
            for (index, part) in self.0.iter().enumerate() {
                if !states[index] {
                    continue;
                }
                match part {
                    Part::Any => after[index] = true,
                    Part::One => after[index + 1] = true,
                    Part::Char(own) if own == c => after[index + 1] = true,
                    Part::Char(_) => {}
                }
            }
            states = after;
        }
        found
    }

    fn without_prefix(&self, value: &str, longest: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        let lengths = self.lengths(&text);
        let length = if longest {
            lengths.last()
        } else {
            lengths.first()
        };
        text.iter().skip(length.copied().unwrap_or(0)).collect()
    }

    fn without_suffix(&self, value: &str, longest: bool) -> String {
        let text: Vec<char> = value.chars().rev().collect();
        let reversed = Self(self.0.iter().rev().copied().collect());
        let lengths = reversed.lengths(&text);
        let length = if longest {
            lengths.last()
        } else {
            lengths.first()
        };
        let kept: Vec<char> = text
            .into_iter()
            .skip(length.copied().unwrap_or(0))
            .collect();
        kept.into_iter().rev().collect()
    }

    fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut done = false;
        while at < text.len() {
            let rest = text.get(at..).unwrap_or_default();
            let length = match done && !all {
                true => 0,
                false => self.lengths(rest).last().copied().unwrap_or(0),
            };
            if length == 0 {
                out.extend(rest.first());
                at += 1;
            } else {
                out.push_str(replacement);
                at += length;
                done = true;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "A" => "one",
            "EMPTY" => "",
            "PATHLIKE" => "/usr/local/lib.tar.gz",
            "SPACED" => "x y",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn word_knows_every_form() {
        let table = [
            ("plain", "plain"),
            ("$A", "one"),
            ("${A}s", "ones"),
            ("$As", ""),
            (r"\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A b\"", "one b"),
            (r#""a\"b""#, "a\"b"),
            (r#""a\nb""#, r"a\nb"),
            ("${NONE:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NONE-d}", "d"),
            ("${A:+p}", "p"),
            ("${EMPTY:+p}", ""),
            ("${EMPTY+p}", "p"),
            ("${NONE+p}", ""),
            ("${A:?no}", "one"),
            ("${NONE:-${A}-${B:-c}}", "one-c"),
            ("${PATHLIKE#*/}", "usr/local/lib.tar.gz"),
            ("${PATHLIKE##*/}", "lib.tar.gz"),
            ("${PATHLIKE%.*}", "/usr/local/lib.tar"),
            ("${PATHLIKE%%.*}", "/usr/local/lib"),
            ("${PATHLIKE/l/L}", "/usr/Local/lib.tar.gz"),
            ("${PATHLIKE//l/L}", "/usr/LocaL/Lib.tar.gz"),
            (r"${PATHLIKE//\//_}", "_usr_local_lib.tar.gz"),
            ("${PATHLIKE/.*}", "/usr/local/lib"),
            ("$", "$"),
            ("a$", "a$"),
            ("$5x", "x"),
        ];
        for (text, expected) in table {
            assert_eq!(word(text, '\\', &env).unwrap().joined(), expected, "{text}");
        }
        assert_eq!(word("`$A", '`', &env).unwrap().joined(), "$A");
        assert_eq!(word(r"c:\$A", '`', &env).unwrap().joined(), r"c:\one");
    }

    #[test]
    fn word_refuses_what_is_no_form() {
        for text in [
            "${",
            "${}",
            "${A",
            "${A:x}",
            "${A^}",
            "'a",
            "\"a",
            "${NONE:?}",
            "${NONE?why}",
            "${A:-",
        ] {
            assert!(word(text, '\\', &env).is_err(), "{text}");
        }
        let deep = "${X:-".repeat(100) + &"}".repeat(100);
        assert!(word(&deep, '\\', &env).is_err());
    }

    #[test]
    fn words_are_split_at_blanks_outside_of_quotes() {
        let text = r#"a "b c"  $SPACED \ d "$SPACED"$SPACED$EMPTY $NONE "#;
        let expanded = words(text, '\\', &env).unwrap();
        assert_eq!(expanded.words, ["a", "b c", "x", "y", " d", "x yx", "y"]);
        assert!(words("", '\\', &env).unwrap().words.is_empty());
    }

    #[test]
    fn heredoc_keeps_quotes_and_drops_escapes() {
        let table = [
            ("'$A' \"x\" \\$A\n", "'one' \"x\" $A\n"),
            ("\\\n", "\n"),
            ("a\\\\b \\.c\n", "a\\b .c\n"),
            ("it's ${NONE:-'q'}\n", "it's 'q'\n"),
        ];
        for (text, expected) in table {
            assert_eq!(
                heredoc(text, '\\', &env).unwrap().joined(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn unset_variables_are_told() {
        let expanded = word("$A $B ${C:-d}", '\\', &env).unwrap();
        assert_eq!(expanded.unset.into_iter().collect::<Vec<_>>(), ["B"]);
        assert_eq!(expanded.used.len(), 3);
    }
}
