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

/// A heredoc that a line announces.
pub(super) struct Announced {
    pub(super) heredoc: Heredoc,
    /// A blank stands before its name: in `$((1 << 2))` it is none, which its missing end tells.
    pub(super) is_loose: bool,
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
pub(super) fn announced(text: &str, escape: char) -> Vec<Announced> {
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
    let mut words = raw_words(rest, escape).into_iter().peekable();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if is_bare(&word)
            && let Some(name) = words.peek()
            && let Some(heredoc) = parse(&format!("{word}{name}"))
        {
            words.next();
            found.push(Announced {
                heredoc,
                is_loose: true,
            });
        } else if let Some(heredoc) = parse(&word) {
            found.push(Announced {
                heredoc,
                is_loose: false,
            });
        }
    }
    found
}

/// Whether a line is the announcement of one heredoc and nothing else.
pub(crate) fn is_announcement(line: &str) -> bool {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(word), None, None) => parse(word).is_some(),
        (Some(word), Some(name), None) => {
            is_bare(word) && parse(&format!("{word}{name}")).is_some()
        }
        _ => false,
    }
}

/// `<<` or `<<-` without a name.
fn is_bare(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
    matches!(word, "<<" | "<<-")
}

fn next_word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
}
