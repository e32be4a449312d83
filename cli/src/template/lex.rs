//! A template's text, cut into plain text and actions, and actions into tokens.

use serde_json::{Number, Value};

use super::Fault;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// A part of a template.
#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    /// What stands between the braces, which begin at `at`.
    Action {
        at: usize,
        tokens: Vec<Token>,
    },
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    /// Nothing stands between it and the one before.
    pub(super) joined: bool,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// `.` alone.
    Dot,
    /// `.Name`.
    Field(String),
    /// `$name`, without the sign.
    Variable(String),
    /// A function or a keyword.
    Word(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Declare,
    Assign,
    Comma,
}

/// Cuts a template into its parts. Comments are left out.
pub(super) fn split(text: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_left = false;
    while let Some(found) = text[at..].find(OPEN) {
        let open = at + found;
        let mut inner = open + OPEN.len();
        let trim_right = has_trim_mark(&text[inner..]);
        push_text(&mut pieces, &text[at..open], trim_left, trim_right);
        if trim_right {
            inner += 1;
        }
        let comment = inner + blanks(&text[inner..]);
        let end = if text[comment..].starts_with("/*") {
            end_of_comment(text, open, comment)?
        } else {
            let mut lexer = Lexer { text, at: inner };
            let tokens = lexer.tokens(open)?;
            pieces.push(Piece::Action { at: open, tokens });
            lexer.at
        };
        trim_left = text[end..].starts_with('-');
        at = end + usize::from(trim_left) + CLOSE.len();
    }
    push_text(&mut pieces, &text[at..], trim_left, false);
    Ok(pieces)
}

/// `{{- ` eats the blanks before it.
fn has_trim_mark(inner: &str) -> bool {
    let mut chars = inner.chars();
    chars.next() == Some('-') && chars.next().is_some_and(is_blank)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_blank).len()
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_left: bool, trim_right: bool) {
    let mut text = text;
    if trim_left {
        text = text.trim_start_matches(is_blank);
    }
    if trim_right {
        text = text.trim_end_matches(is_blank);
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Where the closing braces of a comment are, or the trim mark before them.
fn end_of_comment(text: &str, open: usize, comment: usize) -> Result<usize, Fault> {
    let unclosed = || Fault::new(open, "the comment is not closed");
    let length = text[comment..].find("*/").ok_or_else(unclosed)?;
    let end = comment + length + "*/".len();
    let rest = &text[end..];
    if rest.starts_with(CLOSE) {
        return Ok(end);
    }
    let trimmed = end + blanks(rest);
    if trimmed > end && text[trimmed..].starts_with("-}}") {
        return Ok(trimmed);
    }
    Err(Fault::new(end, "a comment ends its action"))
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The tokens up to the closing braces, or to the trim mark before them.
    fn tokens(&mut self, open: usize) -> Result<Vec<Token>, Fault> {
        let mut tokens = Vec::new();
        loop {
            let skipped = blanks(self.rest());
            self.at += skipped;
            let rest = self.rest();
            if rest.starts_with(CLOSE) || (skipped > 0 && rest.starts_with("-}}")) {
                return Ok(tokens);
            }
            let Some(first) = rest.chars().next() else {
                return Err(Fault::new(
                    open,
                    "the action is not closed: a }} is missing",
                ));
            };
            let (at, joined) = (self.at, skipped == 0 && !tokens.is_empty());
            let kind = self.token(first)?;
            tokens.push(Token { at, joined, kind });
        }
    }

    fn token(&mut self, first: char) -> Result<Kind, Fault> {
        let after = self.rest().chars().nth(1);
        let is_number = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        match first {
            '(' => Ok(self.take(1, Kind::Open)),
            ')' => Ok(self.take(1, Kind::Close)),
            '|' => Ok(self.take(1, Kind::Pipe)),
            ',' => Ok(self.take(1, Kind::Comma)),
            '=' => Ok(self.take(1, Kind::Assign)),
            ':' if after == Some('=') => Ok(self.take(2, Kind::Declare)),
            '"' | '\'' => self.quoted(first),
            '`' => self.raw(),
            '.' if is_number(after) => self.number(),
            '.' => {
                self.at += 1;
                let name = self.word();
                Ok(if name.is_empty() {
                    Kind::Dot
                } else {
                    Kind::Field(name)
                })
            }
            '$' => {
                self.at += 1;
                Ok(Kind::Variable(self.word()))
            }
            '+' | '-' if is_number(after) || after == Some('.') => self.number(),
            '0'..='9' => self.number(),
            c if c == '_' || c.is_alphabetic() => Ok(match self.word().as_str() {
                "true" => Kind::Literal(Value::Bool(true)),
                "false" => Kind::Literal(Value::Bool(false)),
                "nil" => Kind::Literal(Value::Null),
                word => Kind::Word(word.to_owned()),
            }),
            other => Err(Fault::new(self.at, format!("`{other}` means nothing here"))),
        }
    }

    fn take(&mut self, length: usize, kind: Kind) -> Kind {
        self.at += length;
        kind
    }

    fn word(&mut self) -> String {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        word
    }

    fn raw(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        let rest = &self.rest()[1..];
        let end = rest
            .find('`')
            .ok_or_else(|| Fault::new(start, "the string is not closed"))?;
        let text = rest[..end].replace('\r', "");
        self.at += end + 2;
        Ok(Kind::Literal(Value::String(text)))
    }

    /// A string, or a character, which is a number.
    fn quoted(&mut self, quote: char) -> Result<Kind, Fault> {
        let start = self.at;
        let unclosed = || Fault::new(start, "the string is not closed");
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.rest().chars().next().ok_or_else(unclosed)?;
            self.at += c.len_utf8();
            match c {
                '\n' => return Err(unclosed()),
                c if c == quote => break,
                '\\' => text.push(self.escape(quote)?),
                c => text.push(c),
            }
        }
        if quote == '"' {
            return Ok(Kind::Literal(Value::String(text)));
        }
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(Kind::Literal(Value::from(u32::from(c)))),
            _ => Err(Fault::new(start, "single quotes hold one character")),
        }
    }

    fn escape(&mut self, quote: char) -> Result<char, Fault> {
        let at = self.at;
        let wrong = || Fault::new(at, "this escape is not known");
        let c = self.rest().chars().next().ok_or_else(wrong)?;
        self.at += c.len_utf8();
        let digits = match c {
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            '\\' => return Ok('\\'),
            c if c == quote => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(wrong()),
        };
        let hex = self.rest().get(..digits).ok_or_else(wrong)?;
        let code = u32::from_str_radix(hex, 16).map_err(|_| wrong())?;
        self.at += digits;
        char::from_u32(code).ok_or_else(wrong)
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        let rest = self.rest();
        let is_part = |(at, c): (usize, char)| {
            let before = rest[..at].chars().next_back();
            let signed = at == 0 || matches!(before, Some('e' | 'E'));
            c.is_ascii_alphanumeric() || c == '_' || c == '.' || (signed && "+-".contains(c))
        };
        let end = rest
            .char_indices()
            .find(|&part| !is_part(part))
            .map_or(rest.len(), |(at, _)| at);
        let text = rest[..end].to_owned();
        self.at += end;
        number(&text)
            .map(Kind::Literal)
            .ok_or_else(|| Fault::new(start, format!("`{text}` is no number")))
    }
}

fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            let value = i64::from_str_radix(digits, radix).ok()?;
            return Some(Value::from(if negative { -value } else { value }));
        }
    }
    if digits.starts_with(['+', '-']) {
        return None;
    }
    if let Ok(value) = plain.trim_start_matches('+').parse::<i64>() {
        return Some(Value::from(value));
    }
    let value = plain.parse::<f64>().ok()?;
    Number::from_f64(value).map(Value::Number)
}
