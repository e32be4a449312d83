//! How far an image is: one bar a layer on a terminal, a line for each step elsewhere, JSON lines
//! on request. All of it goes to standard error.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use image::{Digest, Outcome, Progress, Task};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};

use crate::render;

/// How often bars are drawn.
const DRAWS_PER_SECOND: u8 = 15;
/// Bars with a rate; the sizes are in powers of 1000, as everywhere.
const BAR: &str = "{prefix}: {msg:<11} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:<9} {decimal_bytes_per_sec}";
const DONE: &str = "{prefix}: {msg}";
/// A JSON line for each so many bytes, and for each step.
const JSON_STEP: u64 = 1_000_000;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressStyle {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// One bar a layer
    Bars,
    /// One line a step
    Plain,
    /// One JSON object a line
    Json,
    /// Nothing
    None,
}

/// Shows the progress of one operation.
pub(crate) struct Display {
    style: ProgressStyle,
    bars: MultiProgress,
    blobs: Mutex<BTreeMap<Digest, Blob>>,
}

/// What is known of one blob.
struct Blob {
    bar: Option<ProgressBar>,
    tasks: BTreeMap<&'static str, Count>,
}

#[derive(Default)]
struct Count {
    done: u64,
    total: Option<u64>,
    told: u64,
    ended: bool,
}

impl Display {
    pub(crate) fn new(style: ProgressStyle) -> Self {
        let style = match style {
            ProgressStyle::Auto if io::stderr().is_terminal() => ProgressStyle::Bars,
            ProgressStyle::Auto => ProgressStyle::Plain,
            other => other,
        };
        let target = match style {
            ProgressStyle::Bars => ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND),
            _ => ProgressDrawTarget::hidden(),
        };
        Self {
            style,
            bars: MultiProgress::with_draw_target(target),
            blobs: Mutex::default(),
        }
    }

    /// Leaves the bars as they are, before anything else is printed.
    pub(crate) fn finish(&self) {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in blobs.values().filter_map(|blob| blob.bar.as_ref()) {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }

    fn with<T>(
        &self,
        digest: &Digest,
        task: Task,
        change: impl FnOnce(&mut Blob, &'static str) -> T,
    ) -> T {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = blobs.entry(*digest).or_insert_with(|| Blob {
            bar: (self.style == ProgressStyle::Bars).then(|| self.new_bar(digest)),
            tasks: BTreeMap::new(),
        });
        change(blob, phase(task))
    }

    fn new_bar(&self, digest: &Digest) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(0));
        // Both templates are constants, tried by a test.
        if let Ok(style) = BarStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(digest.short());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

fn phase(task: Task) -> &'static str {
    match task {
        Task::Download => "downloading",
        Task::Load => "loading",
        Task::Unpack => "unpacking",
        Task::Upload => "uploading",
        Task::Save => "writing",
        _ => "working",
    }
}

fn past(task: &str) -> &'static str {
    match task {
        "downloading" => "downloaded",
        "loading" => "loaded",
        "unpacking" => "unpacked",
        "uploading" => "uploaded",
        "writing" => "written",
        _ => "done",
    }
}

fn json_line(digest: &Digest, phase: &str, status: &str, count: &Count) {
    let line = serde_json::json!({
        "digest": digest.to_string(), "task": phase, "status": status,
        "current": count.done, "total": count.total,
    });
    render::line(&line.to_string());
}

impl Blob {
    /// The bar shows the first task that is not at its end.
    fn draw(&self) {
        let Some(bar) = &self.bar else {
            return;
        };
        let open = self.tasks.iter().find(|(_, count)| !count.ended);
        if let Some((phase, count)) = open {
            bar.set_message(*phase);
            bar.set_length(count.total.unwrap_or(count.done));
            bar.set_position(count.done);
        }
    }

    fn is_done(&self) -> bool {
        self.tasks.values().all(|count| count.ended)
    }
}

impl Progress for Display {
    fn begin(&self, task: Task, digest: &Digest, total: Option<u64>) {
        if self.style == ProgressStyle::None {
            return;
        }
        self.with(digest, task, |blob, phase| {
            let count = Count {
                total,
                ..Count::default()
            };
            if self.style == ProgressStyle::Json {
                json_line(digest, phase, "begin", &count);
            }
            blob.tasks.insert(phase, count);
            blob.draw();
        });
    }

    fn advance(&self, task: Task, digest: &Digest, bytes: u64) {
        if matches!(self.style, ProgressStyle::None | ProgressStyle::Plain) {
            return;
        }
        self.with(digest, task, |blob, phase| {
            let count = blob.tasks.entry(phase).or_default();
            count.done += bytes;
            if self.style == ProgressStyle::Json && count.done >= count.told + JSON_STEP {
                count.told = count.done;
                json_line(digest, phase, "progress", count);
            }
            blob.draw();
        });
    }

    fn end(&self, task: Task, digest: &Digest, outcome: Outcome) {
        if self.style == ProgressStyle::None {
            return;
        }
        self.with(digest, task, |blob, phase| {
            let count = blob.tasks.entry(phase).or_default();
            count.ended = true;
            let status = match outcome {
                Outcome::Done => past(phase),
                Outcome::AlreadyThere => "already there",
                _ => "failed",
            };
            match self.style {
                ProgressStyle::Json => json_line(digest, phase, status, count),
                ProgressStyle::Plain => {
                    render::line(&format!("{}: {status}", digest.short()));
                }
                _ => blob.draw(),
            }
            if blob.is_done()
                && let Some(bar) = &blob.bar
            {
                if let Ok(style) = BarStyle::with_template(DONE) {
                    bar.set_style(style);
                }
                bar.finish_with_message(status);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        BarStyle::with_template(BAR).unwrap();
        BarStyle::with_template(DONE).unwrap();
    }

    #[test]
    fn display_of_a_hidden_style_takes_everything() {
        let digest = Digest::of(b"x");
        let display = Display::new(ProgressStyle::None);
        display.begin(Task::Download, &digest, Some(3));
        display.advance(Task::Download, &digest, 3);
        display.end(Task::Download, &digest, Outcome::Done);
        display.finish();
    }
}
