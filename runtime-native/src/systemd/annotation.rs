//! Properties that a specification asks for by annotations, as runc's users write them:
//! `org.systemd.property.CollectMode: "'inactive-or-failed'"`, in GVariant's text form. The types
//! that properties of scopes have are read: booleans, numbers, strings and lists of strings.

use std::collections::HashMap;

use super::property::Property;
use super::wire::Value;
use crate::plan::PlanError;

const PREFIX: &str = "org.systemd.property.";

/// Microseconds in a second: `TimeoutStopSec` of units is `TimeoutStopUSec` on the bus.
const SECOND: u64 = 1_000_000;

/// The properties that annotations ask for, sorted by name.
pub(super) fn properties(
    annotations: &HashMap<String, String>,
) -> Result<Vec<Property>, PlanError> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let refuse = |rule| PlanError::Rule {
            path: format!("annotations.{key}"),
            rule,
        };
        if !is_property(name) {
            return Err(refuse("must name a property of systemd"));
        }
        let value = parse(text.trim()).ok_or_else(|| {
            refuse("must be a boolean, number, string or list of strings in GVariant's text form")
        })?;
        found.push(match name.strip_suffix("Sec") {
            Some(stem) if !name.ends_with("USec") => {
                let micros = micros(&value).ok_or_else(|| refuse("must be a number of seconds"))?;
                (format!("{stem}USec"), Value::U64(micros))
            }
            _ => (name.to_owned(), value),
        });
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

fn is_property(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_uppercase());
    first && name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn micros(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::I16(number) => u64::try_from(*number).ok()?,
        Value::U16(number) => u64::from(*number),
        Value::I32(number) => u64::try_from(*number).ok()?,
        Value::U32(number) => u64::from(*number),
        Value::I64(number) => u64::try_from(*number).ok()?,
        Value::U64(number) => *number,
        _ => return None,
    };
    seconds.checked_mul(SECOND)
}

fn parse(text: &str) -> Option<Value> {
    if let Some(list) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        let items: Option<Vec<Value>> = match list.trim() {
            "" => None,
            list => list.split(',').map(|item| string(item.trim())).collect(),
        };
        return Some(Value::Array("s".to_owned(), items?));
    }
    match text.split_once(' ') {
        None => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => string(text).or_else(|| text.parse().ok().map(Value::I32)),
        },
        Some((kind, number)) => {
            let number = number.trim();
            match kind {
                "byte" => number.parse().ok().map(Value::Byte),
                "int16" => number.parse().ok().map(Value::I16),
                "uint16" => number.parse().ok().map(Value::U16),
                "int32" => number.parse().ok().map(Value::I32),
                "uint32" => number.parse().ok().map(Value::U32),
                "int64" => number.parse().ok().map(Value::I64),
                "uint64" => number.parse().ok().map(Value::U64),
                "double" => number.parse().ok().map(Value::Double),
                _ => string(text),
            }
        }
    }
}

/// Text between quotes, without escapes.
fn string(text: &str) -> Option<Value> {
    ['\'', '"'].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        let is_plain = !inner.contains(*quote) && !inner.contains('\\');
        is_plain.then(|| Value::text(inner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<Vec<Property>, String> {
        let annotations = HashMap::from([
            (format!("{PREFIX}{name}"), text.to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ]);
        properties(&annotations).map_err(|error| error.to_string())
    }

    fn one(name: &str, value: Value) -> Result<Vec<Property>, String> {
        Ok(vec![(name.to_owned(), value)])
    }

    #[test]
    fn value_has_the_type_that_its_text_says() {
        let mode = of("CollectMode", "'inactive-or-failed'");
        assert_eq!(mode, one("CollectMode", Value::text("inactive-or-failed")));
        assert_eq!(of("TasksMax", "uint64 7"), one("TasksMax", Value::U64(7)));
        assert_eq!(of("Managed", "true"), one("Managed", Value::Bool(true)));
        assert_eq!(of("Number", "-7"), one("Number", Value::I32(-7)));
        let list = Value::Array(
            "s".to_owned(),
            vec![Value::text("a.service"), Value::text("b")],
        );
        assert_eq!(of("After", "['a.service', \"b\"]"), one("After", list));
        let text = of("Description", "'two words'");
        assert_eq!(text, one("Description", Value::text("two words")));
    }

    #[test]
    fn seconds_become_microseconds() {
        let stop = of("TimeoutStopSec", "uint64 3");
        assert_eq!(stop, one("TimeoutStopUSec", Value::U64(3_000_000)));
        let stop = of("TimeoutStopUSec", "uint64 3");
        assert_eq!(stop, one("TimeoutStopUSec", Value::U64(3)));
        assert!(of("TimeoutStopSec", "'3'").is_err());
        assert!(of("TimeoutStopSec", "-3").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_key() {
        for (name, text) in [
            ("lower", "true"),
            ("", "true"),
            ("Bad-Name", "true"),
            ("Tuple", "('a', 1)"),
            ("Open", "'a"),
            ("Escape", r"'a\n'"),
            ("Empty", "[]"),
            ("Byte", "byte 256"),
        ] {
            let error = of(name, text).unwrap_err();
            assert!(
                error.contains("annotations.org.systemd.property."),
                "{error}"
            );
        }
    }
}
