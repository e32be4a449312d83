//! The flags of an instruction: `--name` and `--name=value` before its arguments.

/// A flag as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// Takes the flags off the beginning of `text` and gives the rest. `--` ends them.
pub(super) fn take(text: &str, escape: char) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = first_word(rest, escape);
        rest = after.trim_start();
        let Some(body) = word.strip_prefix("--").filter(|body| !body.is_empty()) else {
            break;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (body.to_owned(), None),
        };
        flags.push(Flag { name, value });
    }
    (flags, rest)
}

/// The first word without its quotes and escapes, and what follows it.
fn first_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                return (word, text.get(at..).unwrap_or_default());
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) if c == escape => word.extend(chars.next().map(|(_, next)| next)),
            (c, _) => word.push(c),
        }
    }
    (word, "")
}
