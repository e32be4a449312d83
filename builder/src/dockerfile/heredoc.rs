//! Heredocs: `<<NAME` on the line of an instruction, its text below.

use super::words::raw_words;

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name, without quotes.
    pub name: String,
    /// Whether variables are replaced in it: not when its name is quoted.
    pub expand: bool,
    /// Whether tabs at the beginning of its lines are left out.
    pub strip_tabs: bool,
    /// The descriptor that a shell gives it to, as it is written.
    pub descriptor: String,
    /// Its text.
    pub content: String,
}

/// Reads a word as the announcement of a heredoc.
pub(super) fn parse(word: &str) -> Option<Heredoc> {
    let (descriptor, rest) = word.split_once("<<")?;
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let is_quoted = rest.contains(['"', '\'']);
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    // A name that ends nowhere or holds what only a shell understands is a shell's business.
    let is_name = !name.is_empty() && !name.contains(['(', ')', ';', '&', '|', '>', '$', '`']);
    is_name.then(|| Heredoc {
        name,
        expand: !is_quoted,
        strip_tabs,
        descriptor: descriptor.to_owned(),
        content: String::new(),
    })
}

/// The heredocs that an instruction announces: only some can have any.
pub(super) fn announced(text: &str, escape: char) -> Vec<Heredoc> {
    let mut rest = text.trim_start();
    let mut name = next_word(&mut rest);
    if name.eq_ignore_ascii_case("ONBUILD") {
        name = next_word(&mut rest);
    }
    if !["RUN", "COPY", "ADD"]
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one))
    {
        return Vec::new();
    }
    if !rest.contains("<<") {
        return Vec::new();
    }
    let words = raw_words(rest, escape);
    words.iter().filter_map(|word| parse(word)).collect()
}

fn next_word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
}
