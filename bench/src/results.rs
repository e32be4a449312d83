//! The values of a run while it goes on, and the record that is made of them.

use std::collections::BTreeMap;

use crate::job::Line;
use crate::measure::{Better, Group, MEASURES, Measure};
use crate::options::is_within;
use crate::report::{Measured, Outcome, Ratio};
use crate::stats;

/// How far the 95th percentile of equal work may be from its median.
const CALM: f64 = 1.1;

/// Values of one measure and one subject.
#[derive(Debug, Clone, Default)]
struct Series {
    unavailable: Option<String>,
    samples: Vec<f64>,
    turns: Vec<u32>,
}

/// All values.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<(&'static str, &'static str), Series>);

impl Results {
    /// Takes what one turn of a subject has given. Values of the warm-up have no turn and are dropped.
    pub(crate) fn add(
        &mut self,
        subject: &'static str,
        turn: Option<u32>,
        lines: &[Line],
        wants: impl Fn(&str) -> bool,
    ) {
        for line in lines {
            match line {
                Line::Value(measure, value) => {
                    if let Some(turn) = turn
                        && wants(measure)
                    {
                        let series = self.series(measure, subject);
                        series.samples.push(*value);
                        series.turns.push(turn);
                    }
                }
                Line::Unavailable(name, reason) => {
                    let named = |one: &&Measure| is_within(one.name, name) && wants(one.name);
                    self.refuse(subject, MEASURES.iter().filter(named), reason);
                }
            }
        }
    }

    /// Marks measures as not to be had.
    pub(crate) fn refuse<'a>(
        &mut self,
        subject: &'static str,
        measures: impl Iterator<Item = &'a Measure>,
        reason: &str,
    ) {
        for measure in measures {
            let series = self.series(measure.name, subject);
            series.unavailable.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Whether a group is still worth a turn of the subject.
    pub(crate) fn is_open(
        &self,
        subject: &'static str,
        group: Group,
        wants: impl Fn(&str) -> bool,
    ) -> bool {
        let wanted = MEASURES
            .iter()
            .filter(|measure| measure.group == group && wants(measure.name));
        wanted.into_iter().any(|measure| {
            let series = self.0.get(&(measure.name, subject));
            series.is_none_or(|series| series.unavailable.is_none())
        })
    }

    fn series(&mut self, measure: &'static str, subject: &'static str) -> &mut Series {
        self.0.entry((measure, subject)).or_default()
    }

    /// The record: measures in the order of their table, subjects in the order given. The first is
    /// what ratios are to when it is `base`.
    pub(crate) fn into_record(
        self,
        subjects: &[&'static str],
        base: Option<&'static str>,
    ) -> Vec<Measured> {
        let measured = MEASURES.iter().filter_map(|measure| {
            let base = base.and_then(|base| self.0.get(&(measure.name, base)));
            let outcomes: Vec<Outcome> = subjects
                .iter()
                .filter_map(|subject| {
                    let series = self.0.get(&(measure.name, *subject))?;
                    Some(outcome(measure, subject, series, base))
                })
                .collect();
            (!outcomes.is_empty()).then(|| Measured {
                name: measure.name.to_owned(),
                title: measure.title.to_owned(),
                unit: measure.unit.to_owned(),
                better: measure.better(),
                outcomes,
            })
        });
        measured.collect()
    }
}

fn outcome(measure: &Measure, subject: &str, series: &Series, base: Option<&Series>) -> Outcome {
    let ratio = base.and_then(|base| paired_ratio(measure.better(), series, base));
    Outcome {
        subject: subject.to_owned(),
        unavailable: series.unavailable.clone(),
        samples: series.samples.clone(),
        turns: series.turns.clone(),
        summary: stats::summary(&series.samples),
        ratio,
    }
}

fn paired_ratio(better: Better, series: &Series, base: &Series) -> Option<Ratio> {
    let bases: BTreeMap<u32, f64> = base
        .turns
        .iter()
        .copied()
        .zip(base.samples.iter().copied())
        .collect();
    let pairs = series.turns.iter().zip(&series.samples);
    let ratios: Vec<f64> = pairs
        .filter_map(|(turn, value)| {
            let base = bases.get(turn)?;
            Some(match better {
                Better::Lower => value / base,
                Better::Higher => base / value,
            })
        })
        .collect();
    ratio(&ratios)
}

/// What ratios of pairs come to.
pub(crate) fn ratio(ratios: &[f64]) -> Option<Ratio> {
    if ratios.is_empty() {
        return None;
    }
    let interval = stats::interval(ratios);
    Some(Ratio {
        median: stats::median(ratios),
        interval,
        significant: interval.is_some_and(|interval| !interval.has(1.0)),
    })
}

/// Whether work of one size took different times with the first subject: then the machine is noisy.
pub(crate) fn noise(measures: &[Measured], base: Option<&str>) -> Option<String> {
    let steady = ["cpu.integer", "cpu.float", "start.warm"];
    let measured = steady
        .iter()
        .find_map(|name| measures.iter().find(|one| one.name == *name))?;
    let outcome = match base {
        Some(base) => measured.outcomes.iter().find(|one| one.subject == base)?,
        None => measured.outcomes.first()?,
    };
    let summary = outcome.summary.as_ref()?;
    let apart = summary.p95 / summary.median;
    (apart > CALM).then(|| {
        format!(
            "the machine was noisy: `{}` of {} took up to {:.0} % longer than its median (95th percentile); \
             intervals are as wide as that makes them",
            measured.name,
            outcome.subject,
            (apart - 1.0) * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[f64], turns: &[u32]) -> Series {
        Series {
            unavailable: None,
            samples: samples.to_vec(),
            turns: turns.to_vec(),
        }
    }

    #[test]
    fn ratios_are_of_one_turn_and_of_cost() {
        // The machine became twice as slow after the first turn: pairs do not see it.
        let base = series(&[1.0, 2.0, 2.0, 9.0], &[0, 1, 2, 3]);
        let other = series(&[3.0, 6.0, 6.0], &[0, 1, 2]);

        let time = paired_ratio(Better::Lower, &other, &base).unwrap();
        let rate = paired_ratio(Better::Higher, &other, &base).unwrap();

        assert!((time.median - 3.0).abs() < 1e-9 && time.significant);
        assert!((rate.median - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn difference_within_the_noise_is_not_significant() {
        let base = series(&[1.0, 1.2, 0.9, 1.1], &[0, 1, 2, 3]);
        let other = series(&[1.1, 1.1, 1.0, 1.0], &[0, 1, 2, 3]);

        assert!(
            !paired_ratio(Better::Lower, &other, &base)
                .unwrap()
                .significant
        );
    }

    #[test]
    fn group_without_files_refuses_its_measures_only() {
        let mut results = Results::default();
        let lines = [
            Line::Unavailable("fs.root".to_owned(), "read-only".to_owned()),
            Line::Value("cpu.integer", 1.0),
        ];

        results.add("wasm-only", Some(0), &lines, |_| true);
        let record = results.into_record(&["wasm-only"], None);

        let refused = record
            .iter()
            .filter(|one| one.outcomes[0].unavailable.is_some());
        assert_eq!(refused.count(), 7);
        assert_eq!(record[0].name, "cpu.integer");
    }
}
