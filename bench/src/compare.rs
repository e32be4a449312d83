//! Two records against each other: what changed, and whether it matters.

use anyhow::{Context, bail};

use crate::measure::Better;
use crate::options::{LEVELS, is_within};
use crate::report::{Interval, Outcome, Report};
use crate::stats;
use crate::table::number;

/// One measure of one subject in both records.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The measure.
    pub measure: String,
    /// The subject.
    pub subject: String,
    /// Its unit.
    pub unit: String,
    /// The median before.
    pub before: f64,
    /// The median after.
    pub after: f64,
    /// How many times as much it costs now; for rates, how many times as slow it is.
    pub ratio: f64,
    /// Where that truly is, with 95 % confidence.
    pub interval: Option<Interval>,
}

impl Change {
    /// Whether the interval says that there is a change.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.interval.is_some_and(|interval| !interval.has(1.0))
    }
}

/// All changes.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What both records have.
    pub changes: Vec<Change>,
    /// What one of them lacks, and what else a reader must know.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Compares two records.
    #[must_use]
    pub fn of(before: &Report, after: &Report) -> Self {
        let mut changes = Vec::new();
        let mut notes = machine_notes(before, after);
        for measured in &before.measures {
            for old in &measured.outcomes {
                let new = after.outcome(&measured.name, &old.subject);
                let change = new.and_then(|new| change(measured.better, old, new));
                match change {
                    Some(change) => changes.push(Change {
                        measure: measured.name.clone(),
                        unit: measured.unit.clone(),
                        ..change
                    }),
                    None if old.summary.is_some() => notes.push(format!(
                        "`{}` of {} is in the first record only",
                        measured.name, old.subject
                    )),
                    None => {}
                }
            }
        }
        Self { changes, notes }
    }

    /// The comparison as text, the largest changes first.
    #[must_use]
    pub fn text(&self) -> String {
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        let size = |change: &Change| change.ratio.ln().abs();
        changes.sort_by(|a, b| {
            (b.is_significant(), size(b))
                .partial_cmp(&(a.is_significant(), size(a)))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let rows = changes.iter().map(|change| {
            let interval = change.interval.map_or_else(String::new, |interval| {
                format!("[{}, {}]", number(interval.low), number(interval.high))
            });
            let verdict = match (change.is_significant(), change.ratio > 1.0) {
                (false, _) => "not significant",
                (true, true) => "slower or larger",
                (true, false) => "faster or smaller",
            };
            format!(
                "{:<18} {:<10} {:>9} -> {:>9} {:<6} {:>7}x {interval:<17} {verdict}",
                change.measure,
                change.subject,
                number(change.before),
                number(change.after),
                change.unit,
                number(change.ratio),
            )
        });
        let notes = self.notes.iter().map(|note| format!("note: {note}"));
        let mut text = rows.chain(notes).collect::<Vec<_>>().join("\n");
        text.push('\n');
        text
    }
}

fn machine_notes(before: &Report, after: &Report) -> Vec<String> {
    let (old, new) = (&before.machine, &after.machine);
    let pairs = [
        ("processor", &old.processor, &new.processor),
        ("kernel", &old.kernel, &new.kernel),
        ("governor", &old.governor, &new.governor),
        ("file system", &old.file_system, &new.file_system),
    ];
    let differing = pairs.iter().filter(|(_, old, new)| old != new);
    let notes = differing.map(|(what, old, new)| format!("another {what}: `{old}`, then `{new}`"));
    notes.collect()
}

fn change(better: Better, old: &Outcome, new: &Outcome) -> Option<Change> {
    let (before, after) = (old.summary.as_ref()?.median, new.summary.as_ref()?.median);
    let (cost, base) = match better {
        Better::Lower => (&new.samples, &old.samples),
        Better::Higher => (&old.samples, &new.samples),
    };
    Some(Change {
        measure: String::new(),
        subject: old.subject.clone(),
        unit: String::new(),
        before,
        after,
        ratio: stats::median(cost) / stats::median(base),
        interval: stats::ratio_interval(cost, base),
    })
}

/// A change that is too much: `MEASURE[/SUBJECT] > FACTORx`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    measure: String,
    subject: Option<String>,
    factor: f64,
}

impl Limit {
    /// Reads one.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let form = || {
            format!(
                "cannot read the limit `{text}`: it looks like `start.cold > 1.2x` or `start.cold/linux > 1.2x`"
            )
        };
        let (what, factor) = text.split_once('>').with_context(form)?;
        let factor = factor.trim().strip_suffix('x').with_context(form)?;
        let factor: f64 = factor.trim().parse().with_context(form)?;
        let (measure, subject) = match what.trim().split_once('/') {
            Some((measure, subject)) => (measure, Some(subject.to_owned())),
            None => (what.trim(), None),
        };
        if measure.is_empty() || !factor.is_finite() || factor < 1.0 {
            bail!(form());
        }
        Ok(Self {
            measure: measure.to_owned(),
            subject,
            factor,
        })
    }

    /// The changes that are too much: beyond the factor, and significant. A limit without a subject is for ketch's own
    /// levels.
    ///
    /// # Errors
    /// When the comparison has nothing that the limit is about: a limit that holds for ever is no limit.
    pub fn broken_by<'a>(&self, comparison: &'a Comparison) -> anyhow::Result<Vec<&'a Change>> {
        let levels = || LEVELS.iter().skip(1);
        let about = |change: &&Change| {
            let subject = match &self.subject {
                Some(subject) => change.subject == *subject,
                None => levels().any(|level| change.subject == *level),
            };
            subject && is_within(&change.measure, &self.measure)
        };
        let changes: Vec<&Change> = comparison.changes.iter().filter(about).collect();
        if changes.is_empty() {
            let subject = self.subject.as_deref().unwrap_or("any of ketch's levels");
            bail!(
                "cannot check `{}`: the records have nothing of it for {subject} in common",
                self.measure
            );
        }
        let broken = |change: &&Change| change.ratio > self.factor && change.is_significant();
        Ok(changes.into_iter().filter(broken).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(ratio: f64, interval: Option<(f64, f64)>) -> Comparison {
        Comparison {
            changes: vec![Change {
                measure: "start.cold".to_owned(),
                subject: "linux".to_owned(),
                unit: "ms".to_owned(),
                before: 1.0,
                after: ratio,
                ratio,
                interval: interval.map(|(low, high)| Interval { low, high }),
            }],
            notes: Vec::new(),
        }
    }

    #[test]
    fn limit_is_broken_by_a_significant_change_beyond_it_only() {
        let limit = Limit::parse("start.cold > 1.2x").unwrap();
        let broken = |comparison: &Comparison| limit.broken_by(comparison).unwrap().len();

        assert_eq!(broken(&comparison(1.5, Some((1.3, 1.7)))), 1);
        assert_eq!(broken(&comparison(1.5, Some((0.9, 1.7)))), 0);
        assert_eq!(broken(&comparison(1.1, Some((1.05, 1.2)))), 0);
        assert_eq!(broken(&comparison(1.5, None)), 0);
    }

    #[test]
    fn limit_about_nothing_is_an_error() {
        let changes = comparison(1.5, None);
        for text in ["stop > 2x", "start.cold/podman > 2x"] {
            assert!(Limit::parse(text).unwrap().broken_by(&changes).is_err());
        }
    }

    #[test]
    fn limits_of_another_form_are_refused() {
        for text in [
            "start.cold",
            "start.cold > 2",
            "> 2x",
            "a > x",
            "a > 0.5x",
            "a < 2x",
        ] {
            assert!(Limit::parse(text).is_err(), "{text}");
        }
    }
}
