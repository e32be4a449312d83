//! From physical lines to logical ones: directives, comments, continuations, heredocs.

use super::Dockerfile;
use super::heredoc::{self, Heredoc};
use crate::error::BuildError;

/// `# check=`: which lint rules are left out, and whether a finding is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckDirective {
    /// Rules that are not checked; `all` stands for every one.
    pub skip: Vec<String>,
    /// Whether a finding ends the build.
    pub error: bool,
    /// Experimental rules that are checked; `all` stands for every one.
    pub experimental: Vec<String>,
}

/// An instruction as one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    /// Without line ends and comments.
    pub(super) text: String,
    /// Its first line, from 1 on.
    pub(super) line: usize,
    /// Its last line.
    pub(super) end: usize,
    pub(super) heredocs: Vec<Heredoc>,
}

/// Reads directives and logical lines.
pub(super) fn read(file: &mut Dockerfile) -> Result<Vec<Logical>, BuildError> {
    let mut at = directives(file)?;
    let mut all = Vec::new();
    while let Some(first) = file.lines.get(at) {
        if first.trim().is_empty() || is_comment(first) {
            at += 1;
            continue;
        }
        let line = at + 1;
        let mut text = String::new();
        let mut end = line;
        let mut piece = first.trim_start();
        loop {
            at += 1;
            let (own, goes_on) = continued(piece, file.escape);
            text.push_str(own);
            if !goes_on {
                break;
            }
            // Comments inside a continued instruction vanish, and so do empty lines.
            let mut next = None;
            while let Some(candidate) = file.lines.get(at) {
                if candidate.trim().is_empty() {
                    // The last line of the file is the empty one after its line end.
                    if at + 1 < file.lines.len() {
                        file.empty_continuations.push(at + 1);
                    }
                    at += 1;
                } else if is_comment(candidate) {
                    at += 1;
                } else {
                    next = Some(candidate);
                    break;
                }
            }
            let Some(next) = next else { break };
            end = at + 1;
            piece = next;
        }
        let mut heredocs = Vec::new();
        for announced in heredoc::announced(&text, file.escape) {
            let mut heredoc = announced.heredoc;
            let found = body(file, &heredoc, at);
            if found.is_none() && announced.is_loose {
                continue;
            }
            let (content, after) = found.ok_or_else(|| {
                let place = file.place_of(line, end, "<<");
                let what = format!("the heredoc `{}` is not ended", heredoc.name);
                BuildError::at(place, what).with_hint(format!(
                    "put a line with `{}` alone behind it",
                    heredoc.name
                ))
            })?;
            heredoc.content = content;
            at = after;
            end = at;
            heredocs.push(heredoc);
        }
        all.push(Logical {
            text: text.trim_end().to_owned(),
            line,
            end,
            heredocs,
        });
    }
    Ok(all)
}

/// The text of a heredoc from line `at` on, and the line after its end.
fn body(file: &Dockerfile, heredoc: &Heredoc, mut at: usize) -> Option<(String, usize)> {
    let mut content = String::new();
    loop {
        let line = file.lines.get(at)?;
        at += 1;
        let line = match heredoc.strip_tabs {
            true => line.trim_start_matches('\t'),
            false => line,
        };
        if line == heredoc.name {
            return Some((content, at));
        }
        content.push_str(line);
        content.push('\n');
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// A line without its end when it goes on in the next one.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // Two of them are one that is meant.
        Some(own) if !own.ends_with(escape) => (own, true),
        _ => (line, false),
    }
}

/// Reads the directives at the top and gives the line after them.
fn directives(file: &mut Dockerfile) -> Result<usize, BuildError> {
    let mut seen: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(line) = file.lines.get(at).cloned() {
        let Some((key, value)) = directive(&line) else {
            break;
        };
        let key = key.to_ascii_lowercase();
        if ["syntax", "escape", "check"].contains(&key.as_str()) {
            let fail = |what: String| {
                let place = file.place_of(at + 1, at + 1, value);
                Err(BuildError::at(place, what))
            };
            if seen.contains(&key) {
                return fail(format!("the directive `{key}` stands twice"));
            }
            match key.as_str() {
                "syntax" => file.syntax = Some(value.to_owned()),
                "escape" => match value {
                    "\\" => file.escape = '\\',
                    "`" => file.escape = '`',
                    _ => {
                        return fail(format!(
                            "`{value}` cannot be the escape character: it is \\ or `"
                        ));
                    }
                },
                _ => match check(value) {
                    Ok(check) => file.check = check,
                    Err(what) => return fail(what),
                },
            }
            seen.push(key);
        }
        at += 1;
    }
    Ok(at)
}

/// `# key=value`.
fn directive(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start();
    let (key, value) = rest.split_once('=')?;
    let (key, value) = (key.trim_end(), value.trim());
    let is_word = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_word && !value.is_empty()).then_some((key, value))
}

/// `skip=A,B;error=true`.
pub(crate) fn check(text: &str) -> Result<CheckDirective, String> {
    let mut check = CheckDirective::default();
    for part in text
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
        {
            Some(("skip", list)) => {
                let names = list.split(',').map(|name| name.trim().to_owned());
                check.skip.extend(names.filter(|name| !name.is_empty()));
            }
            Some(("error", "true")) => check.error = true,
            Some(("error", "false")) => check.error = false,
            Some(("experimental", list)) => {
                let names = list.split(',').map(|name| name.trim().to_owned());
                check
                    .experimental
                    .extend(names.filter(|name| !name.is_empty()));
            }
            _ => {
                return Err(format!(
                    "`{part}` is no setting of checks: there are skip, error and experimental"
                ));
            }
        }
    }
    Ok(check)
}
