//! Words of a line: split at blanks outside of quotes.

/// The words as they are written, quotes and escapes included. A quote that is not closed takes the
/// rest of the line.
pub(crate) fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The words of a list: as they are written, split at blanks. Quotes have no meaning here; in a
/// list with variables they get theirs when the words are expanded.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `name=value` pairs, or the old form `name value`, each as it is written.
///
/// The second part of the result says whether it was the old form.
pub(crate) fn pairs(text: &str, escape: char) -> Result<(Vec<(String, String)>, bool), String> {
    let words = raw_words(text, escape);
    let first = words.first().ok_or("it needs a name and a value")?;
    if !first.contains('=') {
        let (name, value) = text
            .trim_start()
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("`{first}` has no value: write `{first}=value`"))?;
        return Ok((vec![(name.to_owned(), value.trim().to_owned())], true));
    }
    let mut pairs = Vec::new();
    for word in &words {
        let (name, value) = word
            .split_once('=')
            .ok_or_else(|| format!("`{word}` has no value: write `{word}=value`"))?;
        if name.is_empty() {
            return Err(format!("`{word}` has no name"));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok((pairs, false))
}
