//! `--filter KEY=VALUE`: values of one key are alternatives, keys restrict each other; labels all
//! have to be there.

use std::collections::BTreeMap;

use crate::EngineError;

/// Filters that were given, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    terms: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Reads filters of `what` (such as `containers`), which knows these keys.
    ///
    /// # Errors
    /// [`EngineError::BadFilter`] for a key that is not known and for what is not KEY=VALUE.
    pub fn parse(
        what: &'static str,
        texts: &[String],
        known: &[&str],
    ) -> Result<Self, EngineError> {
        let bad = |filter: &String, why: String| EngineError::BadFilter {
            what,
            filter: filter.clone(),
            why,
        };
        let mut terms: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                return Err(bad(text, "it is KEY=VALUE".to_owned()));
            };
            // Docker writes `label!=x`.
            let key = key.trim().to_lowercase();
            if !known.contains(&key.as_str()) {
                let known = known.join(", ");
                return Err(bad(text, format!("the keys are {known}")));
            }
            terms.entry(key).or_default().push(value.trim().to_owned());
        }
        Ok(Self { terms })
    }

    /// The values of a key.
    #[must_use]
    pub fn values(&self, key: &str) -> &[String] {
        self.terms.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key was given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.terms.contains_key(key)
    }

    /// Whether one of the key's values fits, or none was given.
    #[must_use]
    pub fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// Whether these labels are wanted: every `label=` is among them, no `label!=` is.
    #[must_use]
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }

    /// The value of a key that is `true` or `false`.
    ///
    /// # Errors
    /// [`EngineError::BadFilter`] for another value.
    pub fn flag(&self, what: &'static str, key: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.values(key).last() else {
            return Ok(None);
        };
        match value.as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(EngineError::BadFilter {
                what,
                filter: format!("{key}={value}"),
                why: "it is true or false".to_owned(),
            }),
        }
    }
}

/// Whether a name fits a filter: a part of it, from the beginning with `^`, to the end with `$`.
pub(crate) fn name_fits(name: &str, wanted: &str) -> bool {
    let (wanted, from_start) = match wanted.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (wanted, false),
    };
    let (wanted, to_end) = match wanted.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (wanted, false),
    };
    // Docker's names begin with a slash.
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    match (from_start, to_end) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Result<Filters, EngineError> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        Filters::parse(
            "containers",
            &texts,
            &["name", "label", "label!", "dangling"],
        )
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_labels_are_not() {
        let given = filters(&["name=a", "name=b", "label=x", "label=y=1", "label!=z"]).unwrap();
        assert!(given.any("name", |name| name == "b") && !given.any("name", |name| name == "c"));
        assert!(given.any("other", |_| false));
        let labels = |pairs: &[(&str, &str)]| {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            given.labels(&pairs.iter().map(owned).collect())
        };
        assert!(labels(&[("x", ""), ("y", "1")]));
        assert!(!labels(&[("x", "")]));
        assert!(!labels(&[("x", ""), ("y", "2")]));
        assert!(!labels(&[("x", ""), ("y", "1"), ("z", "")]));
    }

    #[test]
    fn unknown_key_and_bad_value_are_refused() {
        assert!(filters(&["nope=1"]).is_err() && filters(&["name"]).is_err());
        let given = filters(&["dangling=maybe"]).unwrap();
        assert!(given.flag("images", "dangling").is_err());
        assert_eq!(given.flag("images", "name").unwrap(), None);
    }

    #[test]
    fn name_fits_in_part_or_at_its_anchors() {
        for wanted in ["web", "eb", "^web", "b1$", "^/web1$", "/web"] {
            assert!(name_fits("web1", wanted), "{wanted}");
        }
        for wanted in ["^eb", "we$", "^web$", "x"] {
            assert!(!name_fits("web1", wanted), "{wanted}");
        }
    }
}
