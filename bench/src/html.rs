//! The report as files: one page that needs nothing else, and a table for a spreadsheet.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::measure::Better;
use crate::report::{Measured, Outcome, Report};
use crate::table::{self, number};

/// Width of a chart in its own units; the page scales it.
const WIDTH: u32 = 400;
/// Height of one bar with its gap.
const ROW: u32 = 30;
/// Height of what stands above and below the bars.
const FRAME: u32 = 44;
/// The whole width against the longest bar or line: the rest is for its label.
const ROOM: f64 = 1.5;
/// Bars that are better than others are not greener: colours tell levels from peers.
const LEVEL: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
const PEER: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const WHISKER: RGBColor = RGBColor(0x1a, 0x20, 0x2c);

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:52em;margin:0 auto;padding:1em;color:#1a202c;\
background:#fff;overflow-wrap:anywhere}svg{display:block;width:100%;max-width:34em;height:auto;margin:.2em 0}\
table{border-collapse:collapse;font-size:.85em;display:block;overflow-x:auto}\
td,th{padding:.25em .6em;border-bottom:1px solid #e2e8f0;text-align:right;white-space:nowrap;vertical-align:top}\
th{font-weight:600}td:first-child,th:first-child{text-align:left}td.why{text-align:left;white-space:normal;min-width:9em}\
td small{color:#4a5568}table.short td:first-child,table.short th:first-child{position:sticky;left:0;background:#fff}\
h1{line-height:1.2}h2{margin:2.2em 0 0;border-bottom:2px solid #2b6cb0}h3{margin:1.6em 0 0;font-size:1.05em}h3+p{margin:0;color:#4a5568}\
p.why{margin:.2em 0;color:#4a5568;font-size:.85em}p.note{background:#fefcbf;padding:.5em 1em}\
summary{cursor:pointer;color:#2b6cb0;font-size:.9em;padding:.3em 0}pre{overflow-x:auto;font-size:.8em}";

/// What the first words of measures stand for.
const GROUPS: [(&str, &str); 8] = [
    ("start", "Starts"),
    ("stop", "Stops"),
    ("memory", "Memory"),
    ("cpu", "Processor"),
    ("syscall", "System calls"),
    ("pipe", "Pipes"),
    ("net", "Networks"),
    ("fs", "Files"),
];

/// Writes `index.html`, `results.csv` and `results.json` into a directory, which is made when it is not there.
///
/// # Errors
/// When a file cannot be written or a chart cannot be drawn.
pub fn write_report(report: &Report, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    let files = [
        ("index.html", page(report)?),
        ("results.csv", csv(report)),
        ("results.json", report.to_json()?),
    ];
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        File::create(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        paths.push(path);
    }
    Ok(paths)
}

fn page(report: &Report) -> anyhow::Result<String> {
    let mut body = format!(
        "<h1>What isolation costs</h1><p>{}</p>",
        escape(&table::machine(report))
    );
    for warning in &report.warnings {
        add(
            &mut body,
            format_args!("<p class=note>{}</p>", escape(warning)),
        );
    }
    add(
        &mut body,
        format_args!(
            "<details><summary>the machine and the run</summary>{}</details>",
            machine(report)
        ),
    );
    body.push_str("<h2>In short</h2><p>Medians, and how many times as much each costs as the plain process, pair by pair. ~: the difference is not significant. In the charts below bars are medians and black lines their 95 % confidence intervals.</p>");
    body.push_str(&short(report));
    let mut group = "";
    for measured in &report.measures {
        let first = measured.name.split('.').next().unwrap_or_default();
        if first != group {
            group = first;
            let title = GROUPS.iter().find(|(name, _)| *name == group);
            let title = title.map_or(group, |(_, title)| title);
            add(&mut body, format_args!("<h2>{}</h2>", escape(title)));
        }
        body.push_str(&section(report, measured)?);
    }
    body.push_str(&subjects(report));
    add(
        &mut body,
        format_args!(
            "<details><summary>the report as text</summary><pre>{}</pre></details>",
            escape(&table::text(report))
        ),
    );
    Ok(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>What isolation costs</title><style>{STYLE}</style><body>{body}</body></html>\n"
    ))
}

/// One measure: a chart, who has none and why, and the numbers.
fn section(report: &Report, measured: &Measured) -> anyhow::Result<String> {
    let mut text = format!(
        "<h3>{}</h3><p>{}</p>",
        escape(&measured.name),
        escape(&title(measured))
    );
    if measured.outcomes.iter().any(|one| one.summary.is_some()) {
        text.push_str(&chart(report, measured)?);
    }
    for outcome in &measured.outcomes {
        if let Some(reason) = &outcome.unavailable {
            let then = if outcome.summary.is_some() {
                "then "
            } else {
                ""
            };
            add(
                &mut text,
                format_args!(
                    "<p class=why>{} {then}unavailable: {}</p>",
                    escape(&outcome.subject),
                    escape(reason)
                ),
            );
        }
    }
    add(
        &mut text,
        format_args!(
            "<details><summary>numbers</summary>{}</details>",
            rows(measured)
        ),
    );
    Ok(text)
}

/// A row for each measure, a column for each subject that has any.
fn short(report: &Report) -> String {
    let has_any = |name: &str| {
        let mut outcomes = report.measures.iter().flat_map(|one| &one.outcomes);
        outcomes.any(|one| one.subject == name && one.summary.is_some())
    };
    let names = report.subjects.iter().map(|one| one.name.as_str());
    let names: Vec<&str> = names.filter(|name| has_any(name)).collect();
    let mut text = String::from("<table class=short><tr><th>");
    for name in &names {
        add(&mut text, format_args!("<th>{}", escape(name)));
    }
    text.push_str("</tr>");
    for measured in &report.measures {
        add(
            &mut text,
            format_args!(
                "<tr><td>{}<br><small>{}</small>",
                escape(&measured.name),
                escape(&measured.unit)
            ),
        );
        for name in &names {
            text.push_str("<td>");
            text.push_str(&short_cell(report, report.outcome(&measured.name, name)));
        }
        text.push_str("</tr>");
    }
    text.push_str("</table>");
    text
}

fn short_cell(report: &Report, outcome: Option<&Outcome>) -> String {
    let Some((outcome, summary)) = outcome.and_then(|one| Some((one, one.summary.as_ref()?)))
    else {
        return "–".to_owned();
    };
    let median = number(summary.median);
    match &outcome.ratio {
        Some(ratio) if report.base.as_deref() != Some(&outcome.subject) => {
            let sign = if ratio.significant { "" } else { "~" };
            format!("{median}<br><small>{sign}{}x</small>", number(ratio.median))
        }
        _ => median,
    }
}

fn add(text: &mut String, what: std::fmt::Arguments) {
    let written = text.write_fmt(what);
    debug_assert!(written.is_ok(), "strings can be written to");
}

fn title(measured: &Measured) -> String {
    let rate = match measured.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    format!("{}, in {}; {rate}", measured.title, measured.unit)
}

/// Where and when it was measured, as a table.
fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let lines = |lines: &[String]| match lines {
        [] => "none".to_owned(),
        lines => lines.join("; "),
    };
    let kind = if machine.is_virtual { ", virtual" } else { "" };
    let rows = [
        (
            "processor",
            format!("{}, {}{kind}", machine.processor, machine.processors),
        ),
        (
            "frequency",
            format!("governor {}, turbo {}", machine.governor, machine.turbo),
        ),
        ("threads of a core", machine.smt.clone()),
        ("memory", format!("{} MiB", machine.memory_bytes >> 20)),
        (
            "kernel",
            format!("Linux {}, cgroup {}", machine.kernel, machine.cgroup),
        ),
        ("mitigations", lines(&machine.mitigations)),
        ("files on", machine.file_system.clone()),
        (
            "load",
            format!(
                "{:.2} before, {:.2} after",
                machine.load_before, machine.load_after
            ),
        ),
        ("stolen time", format!("{:.1} %", machine.stolen * 100.0)),
        ("ketch", report.ketch.clone()),
        ("image", lines(&report.images)),
        (
            "run",
            format!(
                "{}, {} of {} rounds in {:.0} s",
                when(report.began),
                report.rounds,
                report.rounds_wanted,
                report.seconds
            ),
        ),
    ];
    let overhead = table::overhead(report).map(|text| ("timing", text));
    let mut text = String::from("<table>");
    for (name, value) in rows.into_iter().chain(overhead) {
        add(
            &mut text,
            format_args!("<tr><td>{name}<td class=why>{}</tr>", escape(&value)),
        );
    }
    text.push_str("</table>");
    text
}

/// A time as RFC 3339 has it.
fn when(seconds: u64) -> String {
    let known = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok());
    known.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

/// A chart of bars, as SVG text.
fn chart(report: &Report, measured: &Measured) -> anyhow::Result<String> {
    let shown: Vec<&Outcome> = measured
        .outcomes
        .iter()
        .filter(|one| one.summary.is_some())
        .collect();
    let ends = shown.iter().filter_map(|one| {
        let summary = one.summary.as_ref()?;
        Some(
            summary
                .interval
                .map_or(summary.median, |interval| interval.high.max(summary.median)),
        )
    });
    let end = ends.fold(f64::MIN_POSITIVE, f64::max) * ROOM;
    let count = u32::try_from(shown.len()).unwrap_or(0);
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH, ROW * count + FRAME)).into_drawing_area();
        draw(&area, report, &shown, end)
            .map_err(|error| anyhow!("cannot draw a chart: {error}"))?;
        area.present()
            .map_err(|error| anyhow!("cannot draw a chart: {error}"))?;
    }
    Ok(svg)
}

fn draw<Backend: DrawingBackend>(
    area: &DrawingArea<Backend, plotters::coord::Shift>,
    report: &Report,
    shown: &[&Outcome],
    end: f64,
) -> Result<(), DrawingAreaErrorKind<Backend::ErrorType>> {
    let count = f64::from(u32::try_from(shown.len()).unwrap_or(0));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..end, 0.0..count)?;
    let names: Vec<&str> = shown.iter().rev().map(|one| one.subject.as_str()).collect();
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_labels(4)
        .max_light_lines(0)
        .x_label_formatter(&|value| number(*value))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (index, outcome) in shown.iter().rev().enumerate() {
        let Some(summary) = &outcome.summary else {
            continue;
        };
        let row = f64::from(u32::try_from(index).unwrap_or(0));
        let is_level = crate::options::LEVELS.contains(&outcome.subject.as_str());
        let colour = if is_level { LEVEL } else { PEER };
        let bar = [(0.0, row + 0.18), (summary.median, row + 0.82)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        if let Some(interval) = summary.interval {
            let middle = row + 0.5;
            let line = vec![(interval.low, middle), (interval.high, middle)];
            chart.draw_series([PathElement::new(line, WHISKER.stroke_width(2))])?;
        }
        let ratio = outcome
            .ratio
            .filter(|_| report.base.as_deref() != Some(&outcome.subject));
        let label = match ratio {
            Some(ratio) => format!("{} ({}x)", number(summary.median), number(ratio.median)),
            None => number(summary.median),
        };
        // Right of bar and line: the chart has room for it there.
        let right = summary
            .interval
            .map_or(summary.median, |interval| interval.high.max(summary.median));
        let at = right + 0.015 * end;
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        chart.draw_series([Text::new(label, (at, row + 0.68), style)])?;
    }
    for (index, name) in names.iter().enumerate() {
        let row = i32::try_from(index).unwrap_or(0);
        let rows = i32::try_from(names.len()).unwrap_or(1).max(1);
        let height = i32::try_from(area.dim_in_pixel().1).unwrap_or(0) - 28 - 16;
        let y = 8 + height - (2 * row + 1) * height / (2 * rows) - 8;
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        area.draw(&Text::new((*name).to_owned(), (8, y), style))?;
    }
    Ok(())
}

fn rows(measured: &Measured) -> String {
    let mut text = String::from(
        "<table><tr><th><th>median<th>p95<th>interval<th>runs<th>far off<th>ratio<th>interval</tr>",
    );
    for outcome in &measured.outcomes {
        add(
            &mut text,
            format_args!("<tr><td>{}", escape(&outcome.subject)),
        );
        let Some(summary) = &outcome.summary else {
            let reason = outcome.unavailable.as_deref().unwrap_or("not measured");
            add(
                &mut text,
                format_args!(
                    "<td class=why colspan=7>unavailable: {}</tr>",
                    escape(reason)
                ),
            );
            continue;
        };
        let range = |interval: Option<crate::report::Interval>| {
            interval.map_or_else(String::new, |interval| {
                format!("{} to {}", number(interval.low), number(interval.high))
            })
        };
        add(
            &mut text,
            format_args!(
                "<td>{}<td>{}<td>{}<td>{}<td>{}",
                number(summary.median),
                number(summary.p95),
                range(summary.interval),
                outcome.samples.len(),
                summary.outliers.len()
            ),
        );
        if let Some(ratio) = &outcome.ratio {
            let sign = if ratio.significant {
                ""
            } else {
                ", not significant"
            };
            add(
                &mut text,
                format_args!(
                    "<td>{}x<td>{}{sign}",
                    number(ratio.median),
                    range(ratio.interval)
                ),
            );
        }
        text.push_str("</tr>");
    }
    text.push_str("</table>");
    text
}

fn subjects(report: &Report) -> String {
    let mut text = String::from("<h2>Who was measured</h2><table><tr><th><th>what<th>version</tr>");
    for subject in &report.subjects {
        let version = match &subject.unavailable {
            Some(reason) => format!("not measured: {reason}"),
            None => subject.version.clone(),
        };
        add(
            &mut text,
            format_args!(
                "<tr><td>{}<td class=why>{}<td class=why>{}</tr>",
                escape(&subject.name),
                escape(&subject.title),
                escape(&version)
            ),
        );
    }
    text.push_str("</table>");
    text
}

/// Every value, a line each (RFC 4180).
fn csv(report: &Report) -> String {
    let mut text = String::from("measure,unit,subject,turn,value\r\n");
    for measured in &report.measures {
        for outcome in &measured.outcomes {
            for (turn, value) in outcome.turns.iter().zip(&outcome.samples) {
                add(
                    &mut text,
                    format_args!(
                        "{},{},{},{turn},{value}\r\n",
                        measured.name, measured.unit, outcome.subject
                    ),
                );
            }
        }
    }
    text
}

/// Text for HTML: names and reasons come from other programs.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
