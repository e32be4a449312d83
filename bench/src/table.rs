//! The report as text: one block a measure, a bar for each subject.

use std::fmt::Write as _;

use crate::measure::Better;
use crate::report::{Interval, Measured, Outcome, Report};

/// Characters of the longest bar.
const BAR: usize = 28;
/// A bar's characters, from an eighth to all of a cell.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// The whole report.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut lines = vec![machine(report)];
    for measured in &report.measures {
        lines.push(String::new());
        lines.extend(block(measured));
    }
    lines.push(String::new());
    lines.extend(unavailable(report));
    lines.extend(overhead(report));
    lines.extend(report.warnings.iter().map(|text| format!("note: {text}")));
    if report.rounds_wanted == 0 {
        lines.push(String::new());
        return lines.join("\n");
    }
    lines.push(format!(
        "{} rounds in {:.0} s; ratios are to `process`, pair by pair; [ ] holds the true value with 95 % confidence; \
         ~ means that a ratio is not significant; +n are n values far off the others, which count",
        report.rounds, report.seconds
    ));
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// The machine, in a line.
pub(crate) fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let kind = if machine.is_virtual { ", virtual" } else { "" };
    format!(
        "{} ({} processors{kind}), Linux {}, cgroup {}, {}, load {:.2}",
        machine.processor,
        machine.processors,
        machine.kernel,
        machine.cgroup,
        machine.file_system,
        machine.load_before
    )
}

fn block(measured: &Measured) -> Vec<String> {
    let rate = match measured.better {
        Better::Lower => "",
        Better::Higher => ", more is better",
    };
    let head = format!(
        "{}  {} ({}{rate})",
        measured.name, measured.title, measured.unit
    );
    let medians = measured
        .outcomes
        .iter()
        .filter_map(|one| one.summary.as_ref().map(|summary| summary.median));
    let longest = medians.fold(0.0, f64::max);
    let rows = measured.outcomes.iter().map(|one| row(one, longest));
    std::iter::once(head).chain(rows).collect()
}

fn row(outcome: &Outcome, longest: f64) -> String {
    let name = &outcome.subject;
    let Some(summary) = &outcome.summary else {
        let reason = outcome.unavailable.as_deref().unwrap_or("not measured");
        return format!("  {name:<10} unavailable: {reason}");
    };
    let mut row = format!(
        "  {name:<10} {:>9} p95 {:>9} {:<21}",
        number(summary.median),
        number(summary.p95),
        range(summary.interval.as_ref())
    );
    if let Some(ratio) = &outcome.ratio {
        let sign = if ratio.significant { ' ' } else { '~' };
        let times = format!("{sign}{}x", number(ratio.median));
        let written = write!(row, " {times:>9} {:<17}", range(ratio.interval.as_ref()));
        debug_assert!(written.is_ok(), "strings can be written to");
    }
    let stray = match summary.outliers.len() {
        0 => String::new(),
        count => format!("+{count}"),
    };
    let failed = match &outcome.unavailable {
        Some(reason) => format!(" then unavailable: {reason}"),
        None => String::new(),
    };
    let row = format!("{row} {stray:<3} {}{failed}", bar(summary.median / longest));
    row.trim_end().to_owned()
}

fn range(interval: Option<&Interval>) -> String {
    interval.map_or_else(String::new, |interval| {
        format!("[{}, {}]", number(interval.low), number(interval.high))
    })
}

/// Three significant digits, no exponent.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn bar(part: f64) -> String {
    let eighths = f64::from(u32::try_from(BAR * 8).unwrap_or(0)) * part.clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number from 0 to eight times the bar's length"
    )]
    let eighths = (eighths.round() as usize).max(1);
    let mut bar = "█".repeat(eighths / 8);
    let rest = (eighths % 8).checked_sub(1);
    bar.extend(rest.and_then(|rest| EIGHTHS.get(rest)));
    bar
}

fn unavailable(report: &Report) -> impl Iterator<Item = String> {
    report.subjects.iter().filter_map(|subject| {
        let reason = subject.unavailable.as_ref()?;
        Some(format!("{} was not measured: {reason}", subject.name))
    })
}

/// What the timing costs, in a line.
pub(crate) fn overhead(report: &Report) -> Option<String> {
    let overhead = report.own_overhead?;
    let percent = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
    let ratio = &overhead.ratio;
    let sure = match (ratio.interval, ratio.significant) {
        (None, _) => String::new(),
        (Some(interval), significant) => format!(
            " [{}, {}]{}",
            percent(interval.low),
            percent(interval.high),
            if significant { "" } else { ", not significant" }
        ),
    };
    Some(format!(
        "own overhead: a start of `true` takes {} ms bare and {} ms timed: {}{sure}",
        number(overhead.bare_ms),
        number(overhead.timed_ms),
        percent(ratio.median),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_is_as_long_as_its_part() {
        assert_eq!(bar(1.0).chars().count(), BAR);
        assert_eq!(bar(0.5).chars().count(), BAR / 2);
        assert_eq!(bar(0.0), "▏");
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.1234, 1.234, 12.34, 1234.5].map(number);

        assert_eq!(texts, ["0.123", "1.23", "12.3", "1234"]);
    }
}
