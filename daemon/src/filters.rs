//! Filters in both forms: `{"label":{"a=b":true}}` and `{"label":["a=b"]}`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::ApiError;
use crate::query::Query;

/// Values by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the parameter `filters`; keys other than `known` are refused.
    pub(crate) fn read(query: &Query, known: &[&str]) -> Result<Self, ApiError> {
        let filters = Self::of(query)?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(ApiError::bad(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// Reads the parameter `filters`, whatever its keys are.
    pub(crate) fn of(query: &Query) -> Result<Self, ApiError> {
        match query.get("filters") {
            Some(text) => Self::parse(text),
            None => Ok(Self::default()),
        }
    }

    /// The same filters as a parameter, with labels that everything must have.
    pub(crate) fn narrowed(&self, labels: &BTreeMap<String, String>) -> String {
        let mut all = self.0.clone();
        let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
        all.entry("label".to_owned()).or_default().extend(pairs);
        Value::from_iter(all).to_string()
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad(format!("invalid filter: `{text}`"));
        let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| bad())?;
        let mut all = BTreeMap::new();
        for (key, values) in parsed {
            let values = match values {
                Value::Object(set) => {
                    let wanted = set.into_iter().filter(|(_, is)| *is != Value::Bool(false));
                    wanted.map(|(value, _)| value).collect()
                }
                Value::Array(list) => list
                    .into_iter()
                    .map(|value| match value {
                        Value::String(text) => Ok(text),
                        Value::Bool(is) => Ok(is.to_string()),
                        Value::Number(number) => Ok(number.to_string()),
                        _ => Err(bad()),
                    })
                    .collect::<Result<Vec<_>, _>>()?,
                Value::Null => Vec::new(),
                _ => return Err(bad()),
            };
            all.insert(key, values);
        }
        Ok(Self(all))
    }

    /// As `KEY=VALUE`, the form of the command line.
    pub(crate) fn texts(&self) -> Vec<String> {
        let pairs = self.0.iter().flat_map(|(key, values)| {
            let text = move |value: &String| format!("{key}={value}");
            values.iter().map(text)
        });
        pairs.collect()
    }

    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether one of the values fits, or there is none.
    pub(crate) fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// A key that is `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.values(key) {
            [] => Ok(None),
            [one] => match one.as_str() {
                "true" | "1" | "True" | "t" => Ok(Some(true)),
                "false" | "0" | "False" | "f" => Ok(Some(false)),
                _ => Err(ApiError::bad(format!("invalid filter '{key}={one}'"))),
            },
            many => Err(ApiError::bad(format!("invalid filter '{key}={many:?}'"))),
        }
    }

    /// Whether labels are wanted: all of `label` are among them, none of `label!`.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_same() {
        let new = Filters::parse(r#"{"label":{"a=b":true,"c":true},"dangling":{"true":true}}"#);
        let old = Filters::parse(r#"{"label":["a=b","c"],"dangling":[true]}"#);
        assert_eq!(new.as_ref().unwrap(), old.as_ref().unwrap());
        assert_eq!(new.as_ref().unwrap().flag("dangling").unwrap(), Some(true));
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(!new.unwrap().labels(&labels));
    }

    #[test]
    fn narrowed_filters_want_the_labels_too() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for (text, wanted) in [
            ("{}", r#"{"label":["a=b"]}"#),
            (
                r#"{"label":["c"],"id":["1"]}"#,
                r#"{"id":["1"],"label":["c","a=b"]}"#,
            ),
        ] {
            assert_eq!(Filters::parse(text).unwrap().narrowed(&labels), wanted);
        }
    }

    #[test]
    fn unknown_key_and_malformed_text_are_refused() {
        let query = Query::parse("filters=%7B%22nope%22:[%22x%22]%7D");
        let error = Filters::read(&query, &["label"]).unwrap_err();
        assert_eq!(error.message, "invalid filter 'nope'");
        assert!(Filters::parse("[1]").is_err() && Filters::parse("{\"a\":7}").is_err());
    }
}
