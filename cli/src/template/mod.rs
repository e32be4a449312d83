//! Go's templates (package `text/template`) with Docker's functions, as `--format` and `inspect -f`
//! take them, over JSON records.
//!
//! ```text
//! lex    text -> pieces and tokens, each with the column where it stands
//! parse  tokens -> nodes; what is wrong with a template is found here as far as it can be
//! eval   nodes and a record -> text
//! ```
//!
//! Known are fields, variables, pipes, literals, `if`, `with`, `range`, `break`, `continue` and the
//! functions of `functions`. Templates that define templates are refused by name. What a template
//! makes is bounded, so that none can take all memory or run for ever.
//!
//! The module uses nothing of this program: `fuzz/src/lib.rs` includes it as it is.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;

use serde_json::Value;

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the template: line {line}, column {column}: {reason}")]
pub(crate) struct TemplateError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// Counted from 1, in characters.
    pub(crate) column: usize,
    /// What is wrong there.
    pub(crate) reason: String,
}

/// What is wrong, and at which byte of the template.
#[derive(Debug)]
struct Fault {
    at: usize,
    reason: String,
}

impl Fault {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self {
            at,
            reason: reason.into(),
        }
    }

    fn locate(self, text: &str) -> TemplateError {
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        TemplateError {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            reason: self.reason,
        }
    }
}

/// What a template is filled in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filling {
    /// A record: functions do what they are for.
    Record,
    /// The names of columns: functions leave them as they are.
    Header,
}

/// A template.
#[derive(Debug)]
pub(crate) struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let nodes = lex::split(text)
            .and_then(parse::parse)
            .map_err(|fault| fault.locate(text))?;
        Ok(Self {
            text: text.to_owned(),
            nodes,
        })
    }

    /// Fills it in. `.Label "key"` is the one method: it looks `key` up in `labels`.
    pub(crate) fn fill(
        &self,
        record: &Value,
        labels: Option<&Value>,
        filling: Filling,
    ) -> Result<String, TemplateError> {
        eval::fill(&self.nodes, record, labels, filling).map_err(|fault| fault.locate(&self.text))
    }

    /// Fills it in with a record that has no methods.
    pub(crate) fn render(&self, record: &Value) -> Result<String, TemplateError> {
        self.fill(record, None, Filling::Record)
    }
}

#[cfg(test)]
mod tests;
