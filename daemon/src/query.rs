//! The query of a request.

/// Its parameters, in their order; a name may stand several times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key, Plus::Space), decode(value, Plus::Space))
        };
        let parts = text.split('&').filter(|part| !part.is_empty());
        Self {
            pairs: parts.map(pair).collect(),
        }
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let named = self.pairs.iter().filter(|(key, _)| key == name);
        let mut values = named.map(|(_, value)| value.as_str());
        values.find(|value| !value.is_empty())
    }

    /// Gives a parameter one value.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        self.pairs.retain(|(key, _)| key != name);
        self.pairs.push((name.to_owned(), value));
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.pairs.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Whether a parameter says yes, in the way in which Docker's daemon reads it.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(says_yes)
    }

    /// The same for one that means yes when it is absent.
    pub(crate) fn is_set_or_absent(&self, name: &str) -> bool {
        self.get(name).is_none_or(says_yes)
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

fn says_yes(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
}

/// What a plus sign stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// A space, in a query.
    Space,
    /// Itself, in a path.
    Itself,
}

/// Decodes `%41` (RFC 3986 section 2.1); what is no such sequence stays.
pub(crate) fn decode(text: &str, plus: Plus) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = || {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        rest = after;
        match byte {
            b'%' => match hex() {
                Some(value) => {
                    bytes.push(value);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => bytes.push(b'%'),
            },
            b'+' if plus == Plus::Space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_decoded_and_names_repeat() {
        let query = Query::parse("a=1&a=x%2Fy+z&b&c=%zz&all=True&q=0");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "x/y z"]);
        assert_eq!(query.get("c"), Some("%zz"));
        assert!(query.is_set("all") && !query.is_set("q") && !query.is_set("b"));
        assert!(query.is_set_or_absent("absent") && query.is_set_or_absent("b"));
        assert_eq!(decode("a+b", Plus::Itself), "a+b");
    }
}
