//! `ketch logs`.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::Args;
use engine::LogReader;
use state::{LogRecord, clock};

use super::Invocation;
use crate::render::{self, Usage};
use crate::times;

/// How long to wait for more at most before the container is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Options of `logs`, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only what was written since then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written until then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only so many lines from the end (default all)
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// Show what the log driver records beside each line
    #[arg(long)]
    details: bool,
    /// Container, by name or id
    container: String,
}

/// Shows what a container wrote, each line to the stream that it was written to.
pub(crate) fn logs(context: &Invocation, args: &LogsArgs) -> anyhow::Result<u8> {
    let mut printer = Printer::new(args)?;
    let tail = match args.tail.as_str() {
        "all" | "-1" => None,
        text => Some(text.parse::<usize>().map_err(|_| {
            Usage(format!(
                "cannot use --tail `{text}`: it is a number of lines, or all"
            ))
        })?),
    };
    let engine = context.engine()?;
    let container = engine.container(&args.container)?;
    let mut reader = engine.log(&container)?;
    match (tail, printer.since) {
        (Some(lines), _) => reader.tail(lines)?,
        (None, Some(since)) => reader.skip_before(since)?,
        (None, None) => {}
    }
    if args.follow {
        // Before the first look, so that nothing comes between.
        reader.wait(Duration::ZERO)?;
    }
    loop {
        // Asked before reading: what is written before the end is read after the question.
        let running = args.follow
            && engine
                .container(&container.config.id)
                .is_ok_and(|container| container.is_running());
        let ended = printer.print_all(&mut reader)?;
        if ended || !running {
            return Ok(0);
        }
        reader.wait(LOOK_AGAIN)?;
    }
}

/// Shows records.
struct Printer {
    timestamps: bool,
    details: bool,
    since: Option<i64>,
    until: Option<i64>,
    stdout: BufWriter<io::Stdout>,
    stderr: BufWriter<io::Stderr>,
    /// For each stream: its last record was a part of a line, and whether that line is shown.
    inside: [Option<bool>; 2],
    damaged: u64,
}

impl Printer {
    fn new(args: &LogsArgs) -> anyhow::Result<Self> {
        Ok(Self {
            timestamps: args.timestamps,
            details: args.details,
            since: args.since.as_deref().map(times::nanoseconds).transpose()?,
            until: args.until.as_deref().map(times::nanoseconds).transpose()?,
            stdout: BufWriter::with_capacity(64 * 1024, io::stdout()),
            stderr: BufWriter::new(io::stderr()),
            inside: [None; 2],
            damaged: 0,
        })
    }

    /// Shows what there is now; `true` when nothing that comes later is to be shown.
    fn print_all(&mut self, reader: &mut LogReader) -> anyhow::Result<bool> {
        let mut ended = false;
        while let Some(record) = reader.next_record()? {
            let lost = reader.take_lost();
            if lost > 0 {
                self.flush()?;
                render::line(&format!(
                    "ketch: {lost} files of the log were removed before they were read"
                ));
            }
            if self.until.is_some_and(|until| record.time > until) {
                ended = true;
                break;
            }
            self.print(&record)?;
        }
        self.flush()?;
        if reader.damaged() > self.damaged {
            self.damaged = reader.damaged();
            render::line("ketch: the log has damaged records, which are not shown");
        }
        Ok(ended)
    }

    /// A line that fills several records is shown as one: what stands before it comes once, and the
    /// time of its first part decides.
    fn print(&mut self, record: &LogRecord) -> io::Result<()> {
        let [out, err] = &mut self.inside;
        let inside = if record.is_stderr { err } else { out };
        let is_first = inside.is_none();
        let shown = inside.unwrap_or_else(|| self.since.is_none_or(|since| record.time >= since));
        *inside = (!record.bytes.ends_with(b"\n")).then_some(shown);
        if !shown {
            return Ok(());
        }
        let mut before = String::new();
        if is_first && self.timestamps {
            before = format!("{} ", clock::from_nanoseconds(record.time));
        }
        if is_first && self.details {
            let pairs = record.attributes.iter();
            let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
            before.push_str(&pairs.join(","));
            before.push(' ');
        }
        // What the container has written in this order is seen in this order.
        if record.is_stderr {
            self.stdout.flush()?;
            self.stderr.write_all(before.as_bytes())?;
            return self.stderr.write_all(&record.bytes);
        }
        if !self.stderr.buffer().is_empty() {
            self.stderr.flush()?;
        }
        self.stdout.write_all(before.as_bytes())?;
        self.stdout.write_all(&record.bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stderr.flush()
    }
}
