//! `ketch bench`: what isolation costs on this machine.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bench::{Comparison, LEVELS, Limit, MEASURES, OVERHEAD, Options, PEERS, Progress, Report};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use runtime_native::capability;
use runtime_native::seccomp::{Arch, default_spec};

use super::{Invocation, parse_named};
use crate::embedded::{BENCH, BENCH_NET};
use crate::render::{self, Usage};
use crate::settings::{self, ROOT, RUN};

/// SIGINT and SIGTERM.
const ENDING: [i32; 2] = [2, 15];

/// Makes signals that end this program bytes that can be read instead. They are not blocked: what is measured would
/// inherit that, and could not be told to end; a handler is gone after `execve`.
fn catch_signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in ENDING {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "`ketch bench compare BEFORE AFTER [--fail-if LIMIT]` compares two records of --format json; `ketch bench show RECORD` prints one"
)]
pub(crate) struct BenchArgs {
    /// Levels: process, linux, wasm, wasm-only; the first is compared with when it is process
    #[arg(long, value_delimiter = ',', default_values_t = LEVELS.map(str::to_owned))]
    levels: Vec<String>,
    /// Peers to measure where they are installed, or none
    #[arg(long, value_delimiter = ',', default_values_t = PEERS.map(str::to_owned))]
    peers: Vec<String>,
    /// Measures, or groups of them such as start or fs.root; overhead is what timing costs (default: all, see --list)
    #[arg(long, value_delimiter = ',', value_name = "MEASURES")]
    only: Vec<String>,
    /// Rounds after the warm-up
    #[arg(long, default_value_t = 15)]
    runs: u32,
    /// Seconds after which no further turn begins
    #[arg(long, default_value_t = 240, value_name = "SECONDS")]
    duration: u64,
    /// Measure the starts of this image instead: one for both kinds, or a Linux one and a wasm one
    #[arg(long, value_delimiter = ',')]
    image: Vec<String>,
    /// Command for --image (takes all words that follow)
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "COMMAND")]
    cmd: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    /// Print what can be measured, and measure nothing
    #[arg(long)]
    list: bool,
}

/// What becomes of a record.
#[derive(Debug, Args)]
struct OutputArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Write a page with charts, a table of all values and the record into a directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// Options of `bench show`.
#[derive(Debug, Args)]
struct ShowArgs {
    /// The record, as --format json prints it
    record: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `bench compare`.
#[derive(Debug, Args)]
struct CompareArgs {
    /// The record before, as --format json prints it
    before: PathBuf,
    /// The record after
    after: PathBuf,
    /// Exit with 1 when a change is significant and larger, such as 'start.cold > 1.2x' or 'stop/linux > 1.5x' (can be repeated)
    #[arg(long, value_name = "LIMIT")]
    fail_if: Vec<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Bars for people
    Table,
    /// The record (docs/isolation.md)
    Json,
    /// A table for documents
    Markdown,
}

/// Measures, or compares records.
pub(crate) fn bench(context: &Invocation, rest: &[&str]) -> anyhow::Result<u8> {
    match rest.split_first() {
        Some((&"compare", rest)) => {
            let about = "Show what changed between two records, and whether it matters";
            compare(&parse_named("bench compare", about, rest)?)
        }
        Some((&"show", rest)) => {
            let about = "Print a record, or make a report of it";
            let args: ShowArgs = parse_named("bench show", about, rest)?;
            args.output.write(&read(&args.record)?)?;
            Ok(0)
        }
        _ => measure(context, &super::parse("bench", rest)?),
    }
}

fn measure(context: &Invocation, args: &BenchArgs) -> anyhow::Result<u8> {
    if args.list {
        for one in &MEASURES {
            render::print(&format!("{:<19} {} ({})", one.name, one.title, one.unit))?;
        }
        let title = "a start of `true` as it is timed here, against a bare one (ratio)";
        render::print(&format!("{OVERHEAD:<19} {title}"))?;
        return Ok(0);
    }
    let options = options(context, args)?;
    // Checked before anything is started.
    options
        .check()
        .map_err(|error| Usage(format!("{error:#}")))?;
    let interrupt = catch_signals().context("cannot wait for signals")?;
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let mut show = |progress: Progress| {
        bar.set_message(match progress.round {
            0 => format!("warm-up: {}", progress.subject),
            round => format!("round {round} of {}: {}", progress.rounds, progress.subject),
        });
        bar.tick();
    };
    let report = bench::run(&options, Some(interrupt.as_fd()), &mut show);
    bar.finish_and_clear();
    let report = report?;
    args.output.write(&report)?;
    Ok(u8::from(report.wrong))
}

impl OutputArgs {
    fn write(&self, report: &Report) -> anyhow::Result<()> {
        match self.format {
            Format::Table => print_text(&bench::text(report))?,
            Format::Markdown => print_text(&bench::markdown(report))?,
            Format::Json => render::print(&report.to_json()?)?,
        }
        if let Some(dir) = &self.report {
            for path in bench::write_report(report, dir)? {
                render::line(&format!("ketch: wrote `{}`", path.display()));
            }
        }
        Ok(())
    }
}

/// Prints lines without control characters that other programs may have said.
fn print_text(text: &str) -> io::Result<()> {
    let lines = text.lines().map(render::clean);
    let text: String = lines.map(|line| line + "\n").collect();
    io::stdout().write_all(text.as_bytes())
}

fn options(context: &Invocation, args: &BenchArgs) -> anyhow::Result<Options> {
    let settings = &context.settings;
    let flags = ["--root", settings.get(&ROOT), "--run", settings.get(&RUN)];
    let names = |list: &[String]| -> Vec<String> {
        let given = list.iter().filter(|name| *name != "none");
        given.cloned().collect()
    };
    let temporary = settings::variable("TMPDIR")?.unwrap_or_else(|| "/tmp".to_owned());
    Ok(Options {
        ketch: std::env::current_exe().context("cannot find my own program")?,
        ketch_flags: flags.map(str::to_owned).to_vec(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        search_path: settings::variable("PATH")?.unwrap_or_default().into(),
        temporary: std::path::absolute(temporary)?,
        archive: BENCH,
        net_archive: BENCH_NET,
        seccomp: Arch::native()
            .map(|arch| serde_json::to_value(default_spec(capability::DEFAULT, arch)))
            .transpose()?,
        images: args.image.clone(),
        command: args.cmd.clone(),
        levels: names(&args.levels),
        peers: names(&args.peers),
        only: args.only.clone(),
        runs: args.runs,
        duration: std::time::Duration::from_secs(args.duration),
    })
}

fn compare(args: &CompareArgs) -> anyhow::Result<u8> {
    let limits = args.fail_if.iter().map(|text| Limit::parse(text));
    let limits = limits
        .collect::<anyhow::Result<Vec<Limit>>>()
        .map_err(|error| Usage(format!("{error:#}")))?;
    let comparison = Comparison::of(&read(&args.before)?, &read(&args.after)?);
    if comparison.changes.is_empty() {
        anyhow::bail!("cannot compare the records: they have no measure in common");
    }
    print_text(&comparison.text())?;
    let mut code = 0;
    for limit in &limits {
        for change in limit.broken_by(&comparison)? {
            code = 1;
            render::line(&format!(
                "ketch: {} of {} costs {:.2} times as much",
                change.measure, change.subject, change.ratio
            ));
        }
    }
    Ok(code)
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let failed = || format!("cannot read the record `{}`", path.display());
    let text = std::fs::read_to_string(path).with_context(failed)?;
    Report::from_json(&text).with_context(failed)
}
