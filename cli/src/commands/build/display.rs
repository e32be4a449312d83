//! How a build is shown: a tree of steps on a terminal, lines elsewhere, JSON lines on request.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use builder::{Event, Place, Progress, StepEnd, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::render;

/// How often the tree is drawn.
const DRAWS_PER_SECOND: u8 = 10;
const RUNNING: &str = " => {msg} {elapsed}";
const DONE: &str = " => {msg}";
/// How many of the slowest steps the summary names.
const NAMED: usize = 3;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Style {
    /// A tree on a terminal, lines elsewhere
    Auto,
    /// A tree of steps with the last lines of each
    #[value(alias = "fancy")]
    Tty,
    /// One line a step and one for each line of output
    Plain,
    /// One JSON object a line
    #[value(alias = "json")]
    Rawjson,
    /// Nothing
    #[value(alias = "none")]
    Quiet,
}

/// Shows a build.
pub(super) struct BuildDisplay {
    style: Style,
    bars: MultiProgress,
    state: Mutex<Shown>,
    begin: Instant,
}

#[derive(Default)]
struct Shown {
    steps: BTreeMap<StepId, Step>,
    cached: usize,
    done: usize,
}

struct Step {
    name: String,
    bar: Option<ProgressBar>,
    took: Option<Duration>,
}

impl BuildDisplay {
    pub(super) fn new(style: Style) -> Self {
        let style = match style {
            Style::Auto if io::stderr().is_terminal() => Style::Tty,
            Style::Auto => Style::Plain,
            other => other,
        };
        let target = match style {
            Style::Tty => ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND),
            _ => ProgressDrawTarget::hidden(),
        };
        Self {
            style,
            bars: MultiProgress::with_draw_target(target),
            state: Mutex::default(),
            begin: Instant::now(),
        }
    }

    /// Says what took the time.
    pub(super) fn finish(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in state.steps.values().filter_map(|step| step.bar.as_ref()) {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
        if !matches!(self.style, Style::Tty | Style::Plain) {
            return;
        }
        let total = seconds(self.begin.elapsed());
        let mut slow: Vec<_> = state
            .steps
            .values()
            .filter_map(|step| Some((step.took?, &step.name)))
            .collect();
        slow.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
        let named = slow
            .iter()
            .filter(|(took, _)| *took >= Duration::from_millis(100))
            .take(NAMED);
        let named: Vec<_> = named
            .map(|(took, name)| format!("{} {}", seconds(*took), short(name)))
            .collect();
        let mut line = format!(
            "{total}: {} steps done, {} cached",
            state.done, state.cached
        );
        if !named.is_empty() {
            line.push_str("; slowest: ");
            line.push_str(&named.join(", "));
        }
        render::line(&line);
    }

    fn begin(&self, state: &mut Shown, id: StepId, name: &str) {
        let name = render::clean(name);
        let mut bar = None;
        match self.style {
            Style::Plain => render::line(&format!("#{id} {name}")),
            Style::Rawjson => {
                json(&serde_json::json!({ "step": id, "name": name, "status": "begin" }));
            }
            Style::Tty => {
                let new = self.bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template(RUNNING) {
                    new.set_style(style);
                }
                new.set_message(name.clone());
                new.enable_steady_tick(Duration::from_millis(200));
                bar = Some(new);
            }
            _ => {}
        }
        let took = None;
        state.steps.insert(id, Step { name, bar, took });
    }

    fn output(&self, state: &Shown, id: StepId, line: &str) {
        let line = render::clean(line);
        match self.style {
            Style::Plain => render::line(&format!("#{id} {line}")),
            Style::Rawjson => json(&serde_json::json!({ "step": id, "output": line })),
            Style::Tty => {
                if let Some(step) = state.steps.get(&id)
                    && let Some(bar) = &step.bar
                {
                    bar.set_message(format!(
                        "{}  {}",
                        step.name,
                        line.chars().take(80).collect::<String>()
                    ));
                }
            }
            _ => {}
        }
    }

    fn end(&self, state: &mut Shown, id: StepId, end: StepEnd, took: Duration) {
        let word = match end {
            StepEnd::Done => "DONE",
            StepEnd::Cached => "CACHED",
            StepEnd::Failed => "ERROR",
            _ => "CANCELED",
        };
        match end {
            StepEnd::Cached => state.cached += 1,
            StepEnd::Done => state.done += 1,
            _ => {}
        }
        match self.style {
            Style::Plain if end == StepEnd::Done => {
                render::line(&format!("#{id} {word} {}", seconds(took)));
            }
            Style::Plain => render::line(&format!("#{id} {word}")),
            Style::Rawjson => json(&serde_json::json!({
                "step": id, "status": word.to_lowercase(), "seconds": took.as_secs_f64(),
            })),
            _ => {}
        }
        if let Some(step) = state.steps.get_mut(&id) {
            step.took = Some(took);
            if let Some(bar) = &step.bar {
                if let Ok(style) = ProgressStyle::with_template(DONE) {
                    bar.set_style(style);
                }
                let text = match end {
                    StepEnd::Done => format!("{} {}", step.name, seconds(took)),
                    _ => format!("{word} {}", step.name),
                };
                bar.finish_with_message(text);
            }
        }
    }
}

impl Progress for BuildDisplay {
    fn event(&self, event: &Event<'_>) {
        if self.style == Style::Quiet {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Begin { step, name } => self.begin(&mut state, *step, name),
            Event::Output { step, line } => self.output(&state, *step, line),
            Event::End { step, end, took } => self.end(&mut state, *step, *end, *took),
            Event::Finding(finding) => self.note("warning", &finding.to_string()),
            Event::Warning(text) => self.note("warning", text),
            _ => {}
        }
    }
}

impl BuildDisplay {
    fn note(&self, kind: &str, text: &str) {
        let text = render::clean(text);
        match self.style {
            Style::Rawjson => json(&serde_json::json!({ kind: text })),
            Style::Tty => {
                // Above the tree; a terminal that is gone is told nothing.
                drop(self.bars.println(format!("{kind}: {text}")));
            }
            _ => render::line(&format!("{kind}: {text}")),
        }
    }
}

fn json(value: &serde_json::Value) {
    render::line(&value.to_string());
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

fn short(name: &str) -> String {
    name.chars().take(60).collect()
}

/// The line that a place is in, with a mark under its column.
fn lines_of(place: &Place) -> [String; 2] {
    let number = place.line.to_string();
    let text = render::clean(&place.text.replace('\t', " "));
    let blank = " ".repeat(number.len());
    let before = " ".repeat(place.column.saturating_sub(1));
    [
        format!(" {number} | {text}"),
        format!(" {blank} | {before}^"),
    ]
}

/// Shows a place on standard error.
pub(super) fn show_place(place: &Place) {
    for line in lines_of(place) {
        render::line(&line);
    }
}

/// Shows a place on standard output.
pub(super) fn print_place(place: &Place) -> io::Result<()> {
    for line in lines_of(place) {
        render::print(&line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        ProgressStyle::with_template(RUNNING).unwrap();
        ProgressStyle::with_template(DONE).unwrap();
    }

    #[test]
    fn place_has_its_mark_under_its_column() {
        let place = Place {
            file: "Dockerfile".to_owned(),
            line: 12,
            column: 5,
            text: "RUN\tx".to_owned(),
        };
        assert_eq!(lines_of(&place), [" 12 | RUN x", "    |     ^"]);
    }
}
