//! The report as a table for documents: a row for each measure, a column for each level and peer.

use crate::report::{Outcome, Report};
use crate::table::{machine, number, overhead};

/// The table, with a line about the machine before it.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let measured = report.subjects.iter().filter(|subject| {
        let outcomes = report.measures.iter().flat_map(|one| &one.outcomes);
        let mut own = outcomes.filter(|outcome| outcome.subject == subject.name);
        own.any(|outcome| outcome.summary.is_some())
    });
    let names: Vec<&str> = measured.map(|subject| subject.name.as_str()).collect();
    let mut lines = vec![
        format!(
            "{}; {} rounds. Medians, and in brackets how many times as much each costs as the plain process, pair by \
             pair (~: the difference is not significant).",
            cell_text(&machine(report)),
            report.rounds
        ),
        String::new(),
        format!("| | unit | {} |", names.join(" | ")),
        format!("|---|---|{}", "---|".repeat(names.len())),
    ];
    for one in &report.measures {
        let cells: Vec<String> = names
            .iter()
            .map(|name| cell(report, report.outcome(&one.name, name)))
            .collect();
        lines.push(format!(
            "| `{}` | {} | {} |",
            one.name,
            one.unit,
            cells.join(" | ")
        ));
    }
    if let Some(overhead) = overhead(report) {
        lines.extend([String::new(), format!("{overhead}.")]);
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn cell(report: &Report, outcome: Option<&Outcome>) -> String {
    let Some((outcome, summary)) = outcome.and_then(|one| Some((one, one.summary.as_ref()?)))
    else {
        return "–".to_owned();
    };
    let median = number(summary.median);
    match &outcome.ratio {
        Some(ratio) if report.base.as_deref() != Some(&outcome.subject) => {
            let sign = if ratio.significant { "" } else { "~" };
            format!("{median} ({sign}{}x)", number(ratio.median))
        }
        _ => median,
    }
}

/// Text of the machine's own, without what would end a cell or begin another mark.
fn cell_text(text: &str) -> String {
    text.replace(['|', '<', '`', '*'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_has_a_cell_for_every_subject_that_was_measured() {
        let text = include_str!("../tests/record.json");
        let report = Report::from_json(text).unwrap();

        let table = markdown(&report);

        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            rows,
            [
                "| | unit | process | linux |",
                "|---|---|---|---|",
                "| `start.warm` | ms | 0.500 | 9.00 (18.0x) |",
                "| `fs.root.create` | µs | 10.0 | – |",
            ]
        );
        assert!(table.contains("own overhead: a start of `true`"), "{table}");
    }
}
