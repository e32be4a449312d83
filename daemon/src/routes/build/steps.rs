//! The steps of a build in the words of Docker's classic builder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use builder::{Event, Progress, StepEnd, StepId};
use serde_json::json;

use crate::wire::progress::ProgressLines;

/// Writes a line for each step, and what its program prints.
pub(super) struct Steps {
    lines: Arc<ProgressLines>,
    total: usize,
    quiet: bool,
    /// The places of the steps in the order of their beginning.
    places: Mutex<BTreeMap<StepId, usize>>,
}

impl Steps {
    /// `total` is how many instructions there are.
    pub(super) fn new(lines: &Arc<ProgressLines>, total: usize, quiet: bool) -> Self {
        Self {
            lines: Arc::clone(lines),
            total,
            quiet,
            places: Mutex::default(),
        }
    }

    fn place(&self, step: StepId) -> usize {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let next = places.len() + 1;
        *places.entry(step).or_insert(next)
    }

    fn stream(&self, text: &str) {
        self.lines.line(&json!({ "stream": text }));
    }
}

/// `RUN make` of `[stage 2/5] RUN make`.
fn instruction(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, text)| text)
}

impl Progress for Steps {
    fn event(&self, event: &Event<'_>) {
        if self.quiet {
            return;
        }
        match event {
            Event::Begin { step, name } => {
                let place = self.place(*step);
                let total = self.total.max(place);
                let text = format!("Step {place}/{total} : {}\n", instruction(name));
                self.stream(&text);
            }
            Event::Output { line, .. } => self.stream(&format!("{line}\n")),
            Event::End { step, end, .. } => match end {
                StepEnd::Cached => self.stream(" ---> Using cache\n"),
                StepEnd::Done => {
                    let place = self.place(*step);
                    self.stream(&format!(" ---> Done with step {place}\n"));
                }
                _ => {}
            },
            Event::Finding(finding) => self.stream(&format!("[Warning] {finding}\n")),
            Event::Warning(text) => self.stream(&format!("[Warning] {text}\n")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_stands_without_its_stage() {
        assert_eq!(
            instruction("[a 2/5] RUN [ -e /x ] && y"),
            "RUN [ -e /x ] && y"
        );
        assert_eq!(instruction("FROM x"), "FROM x");
    }
}
