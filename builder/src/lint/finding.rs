//! What a rule found, and which rules a file does not want to hear of.

use std::fmt;

use crate::dockerfile::Dockerfile;
use crate::error::Place;

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// Where.
    pub place: Place,
    /// The last line that it is about.
    pub end: usize,
    /// What.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule, self.text)
    }
}

/// Whether the file says that it does not want to hear of a rule.
#[must_use]
pub(crate) fn is_skipped(file: &Dockerfile, rule: &str) -> bool {
    let mut skip = file.check.skip.iter();
    skip.any(|name| name == "all" || name.eq_ignore_ascii_case(rule))
}
