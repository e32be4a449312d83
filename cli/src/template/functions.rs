//! The functions of templates: Go's, and those that Docker adds.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::printf::printf;

const KNOWN: [&str; 24] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "urlquery",
    "eq", "ne", "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower", "upper",
    "truncate",
];

/// Of the longest text that `pad` makes.
const MAX_PAD: usize = 4096;

/// Whether a function has this name.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || name == "pad"
}

type Arguments<'a, 'b> = &'b [Cow<'a, Value>];

/// Calls a function; an error is what is wrong with its arguments.
pub(super) fn call(name: &str, arguments: Arguments<'_, '_>) -> Result<Value, String> {
    let wrong = |takes: &str| Err(format!("{name} takes {takes}"));
    Ok(match name {
        "not" => match arguments {
            [value] => Value::Bool(!is_true(value)),
            _ => return wrong("one value"),
        },
        "len" => match arguments {
            [value] => Value::from(length(value).ok_or("len takes a text, a list or a map")?),
            _ => return wrong("one value"),
        },
        "index" => match arguments.split_first() {
            Some((of, keys)) => {
                let mut value = of.clone().into_owned();
                for key in keys {
                    value = index(&value, key)?;
                }
                value
            }
            None => return wrong("a list or a map, and keys"),
        },
        "slice" => match arguments.split_first() {
            Some((of, bounds)) if bounds.len() <= 2 => slice(of, bounds)?,
            _ => return wrong("a text or a list, and at most two bounds"),
        },
        "print" => Value::String(print(arguments)),
        "println" => {
            let words: Vec<String> = arguments.iter().map(|value| plain(value)).collect();
            Value::String(words.join(" ") + "\n")
        }
        "printf" => match arguments.split_first() {
            Some((format, values)) => Value::String(printf(text(format)?, values)?),
            None => return wrong("a format"),
        },
        "html" => Value::String(html(&print(arguments))),
        "urlquery" => Value::String(urlquery(&print(arguments))),
        "eq" => match arguments.split_first() {
            Some((first, others)) if !others.is_empty() => {
                let mut equal = false;
                for other in others {
                    equal |= compare(first, other)? == Some(Ordering::Equal);
                }
                Value::Bool(equal)
            }
            _ => return wrong("two values or more"),
        },
        "ne" | "lt" | "le" | "gt" | "ge" => match arguments {
            [a, b] => Value::Bool(holds(name, compare(a, b)?)?),
            _ => return wrong("two values"),
        },
        "json" => match arguments {
            [value] => Value::String(value.to_string()),
            _ => return wrong("one value"),
        },
        "split" => match arguments {
            [whole, separator] => split(text(whole)?, text(separator)?),
            _ => return wrong("a text and a separator"),
        },
        "join" => match arguments {
            [list, separator] => join(list, text(separator)?)?,
            _ => return wrong("a list and a separator"),
        },
        "title" => match arguments {
            [value] => Value::String(title(text(value)?)),
            _ => return wrong("one text"),
        },
        "lower" => match arguments {
            [value] => Value::String(text(value)?.to_lowercase()),
            _ => return wrong("one text"),
        },
        "upper" => match arguments {
            [value] => Value::String(text(value)?.to_uppercase()),
            _ => return wrong("one text"),
        },
        "truncate" => match arguments {
            [value, length] => {
                let length = count(length).ok_or("truncate takes a length")?;
                Value::String(text(value)?.chars().take(length).collect())
            }
            _ => return wrong("a text and a length"),
        },
        "pad" => match arguments {
            [value, before, after] => pad(text(value)?, count(before), count(after))?,
            _ => return wrong("a text, and how many blanks before and after it"),
        },
        _ => return Err(format!("there is no function `{name}`")),
    })
}

/// A value as Go prints it. What is null in these records is an empty list.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "[]".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key}:{}", plain(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(float)) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        Value::Bool(value) => value.to_string(),
    }
}

/// What `if` takes for true.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn text<'b>(value: &'b Cow<'_, Value>) -> Result<&'b str, String> {
    match value.as_ref() {
        Value::String(text) => Ok(text),
        other => Err(format!("`{}` is no text", shortened(&plain(other)))),
    }
}

/// The beginning of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    text.chars().take(MOST).collect()
}

fn count(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

fn length(value: &Value) -> Option<usize> {
    Some(match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null => 0,
        _ => return None,
    })
}

fn index(of: &Value, key: &Value) -> Result<Value, String> {
    let out_of_range = || format!("there is no index {}", shortened(&plain(key)));
    match of {
        Value::Object(fields) => {
            let Value::String(key) = key else {
                return Err("the keys of a map are texts".to_owned());
            };
            // Go gives the empty value of what the map holds.
            let texts = fields.values().all(Value::is_string);
            let missing = if texts { Value::from("") } else { Value::Null };
            Ok(fields.get(key).cloned().unwrap_or(missing))
        }
        Value::Array(items) => {
            let at = count(key).ok_or_else(out_of_range)?;
            items.get(at).cloned().ok_or_else(out_of_range)
        }
        Value::String(text) => {
            let at = count(key).ok_or_else(out_of_range)?;
            let byte = text.as_bytes().get(at).ok_or_else(out_of_range)?;
            Ok(Value::from(*byte))
        }
        Value::Null => Err(out_of_range()),
        _ => Err("index takes a list or a map".to_owned()),
    }
}

fn slice(of: &Value, bounds: &[Cow<'_, Value>]) -> Result<Value, String> {
    let all = length(of).filter(|_| !of.is_object());
    let all = all.ok_or("slice takes a text or a list")?;
    let bound = |index: usize, otherwise: usize| match bounds.get(index) {
        None => Ok(otherwise),
        Some(value) => count(value).ok_or("a bound of slice is a number from 0 on"),
    };
    let (from, to) = (bound(0, 0)?, bound(1, all)?);
    let range = || format!("slice has no {from} to {to} of {all}");
    match of {
        Value::String(text) => {
            let part = text.get(from..to).ok_or_else(range)?;
            Ok(Value::from(part))
        }
        Value::Array(items) => {
            let part = items.get(from..to).ok_or_else(range)?;
            Ok(Value::Array(part.to_vec()))
        }
        _ if from == 0 && to == 0 => Ok(Value::Array(Vec::new())),
        _ => Err(range()),
    }
}

/// Go's `Sprint`: blanks stand between operands where neither is a text.
fn print(values: Arguments<'_, '_>) -> String {
    let mut printed = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        if before.is_some_and(|before| !before.is_string() && !value.is_string()) {
            printed.push(' ');
        }
        printed.push_str(&plain(value));
        before = Some(value.as_ref());
    }
    printed
}

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\0' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn urlquery(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// How two basic values of one kind stand to each other; `None` for booleans that differ.
fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(Some(a.as_bytes().cmp(b.as_bytes()))),
        (Value::Bool(a), Value::Bool(b)) => Ok((a == b).then_some(Ordering::Equal)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(Some(a.cmp(&b))),
            _ => Ok(a.as_f64().partial_cmp(&b.as_f64())),
        },
        (Value::Null, Value::Null) => Ok(Some(Ordering::Equal)),
        (Value::Null, _) | (_, Value::Null) => Ok(None),
        _ => Err("two values of different kinds cannot be compared".to_owned()),
    }
}

fn holds(name: &str, order: Option<Ordering>) -> Result<bool, String> {
    if name == "ne" {
        return Ok(order != Some(Ordering::Equal));
    }
    let order = order.ok_or("these values have no order")?;
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn split(whole: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return whole.chars().map(String::from).collect();
    }
    whole.split(separator).map(str::to_owned).collect()
}

fn join(list: &Value, separator: &str) -> Result<Value, String> {
    match list {
        Value::Null => Ok(Value::from("")),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            Ok(Value::String(items.join(separator)))
        }
        _ => Err("join takes a list".to_owned()),
    }
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut starts = true;
    for c in text.chars() {
        if starts {
            titled.extend(c.to_uppercase());
        } else {
            titled.push(c);
        }
        starts = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    titled
}

fn pad(text: &str, before: Option<usize>, after: Option<usize>) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::from(""));
    }
    match (before, after) {
        (Some(before), Some(after)) if before.max(after) <= MAX_PAD => {
            let blanks = |count| " ".repeat(count);
            Ok(Value::String(blanks(before) + text + &blanks(after)))
        }
        _ => Err(format!("pad takes at most {MAX_PAD} blanks")),
    }
}
