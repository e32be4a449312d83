//! The run: all subjects in turn, again and again, so that a change of the machine's speed meets all of them.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use crate::call::{Call, Interrupted, Running};
use crate::instances::memory;
use crate::job::{self, Input, Job, Line, Mounts, Which, Wrong};
use crate::machine::{Machine, ticks};
use crate::measure::{AT_ONCE, Group, MEASURES, Measure, PIPE_BYTES};
use crate::memory::settled_pss;
use crate::network;
use crate::options::{LEVELS, Options};
use crate::overhead;
use crate::package::Package;
use crate::report::{Report, Tested};
use crate::results::{self, Results};
use crate::service::Via;
use crate::subject::{self, Means, Subject};
use crate::watch::{Ending, Waiting, Watch};

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The round, 0 for the warm-up.
    pub round: u32,
    /// Rounds in all.
    pub rounds: u32,
    /// Who is measured.
    pub subject: &'a str,
}

/// Measures everything that the options ask for. When `interrupt` becomes readable, or the time is over, the record has what
/// was measured until then.
///
/// # Errors
/// When nothing can be measured: ketch itself cannot be used, or there is no directory for files.
pub fn run(
    options: &Options,
    interrupt: Option<BorrowedFd>,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Report> {
    options.check()?;
    let watch = Watch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.guard(interrupt));
        let _ending = Ending(&watch);
        watched(options, Waiting::new(&watch), progress)
    })
}

fn watched(
    options: &Options,
    until: Waiting,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Report> {
    let began = SystemTime::now();
    let clock = Instant::now();
    let ticks = ticks();
    let dir = tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(&options.temporary)
        .with_context(|| format!("cannot use `{}`", options.temporary.display()))?;
    let machine = Machine::look(dir.path());
    let mut report = Report::new(options, machine);
    let overhead = match overhead::measure(options, until) {
        Ok(overhead) => Some(overhead),
        Err(error) if !options.wants_rounds() => return Err(error),
        // What can be measured is worth more than what it costs.
        Err(error) => {
            let text = format!("what the timing costs is not known: {error:#}");
            report.warnings.push(text);
            None
        }
    };
    report.own_overhead = overhead;
    report
        .warnings
        .extend(overhead.as_ref().and_then(overhead::doubt));
    if options.wants_rounds() {
        let frame = Frame {
            options,
            dir: dir.path(),
            until,
            deadline: clock + options.duration,
        };
        measure_all(&frame, progress, &mut report)?;
    }
    report.machine.close(ticks);
    report.warnings.extend(report.machine.doubts());
    report.began = began
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    report.seconds = clock.elapsed().as_secs_f64();
    if let Err(error) = dir.close() {
        report
            .warnings
            .push(format!("cannot remove the run's files: {error}"));
    }
    Ok(report)
}

/// What is given to a run.
struct Frame<'a> {
    options: &'a Options,
    /// For its files.
    dir: &'a Path,
    until: Waiting<'a>,
    deadline: Instant,
}

/// All rounds, with everything that they need.
fn measure_all(
    frame: &Frame,
    progress: &mut dyn FnMut(Progress),
    report: &mut Report,
) -> anyhow::Result<()> {
    let Frame {
        options,
        dir,
        until,
        deadline,
    } = *frame;
    let package = match Package::make(options, dir, until) {
        Ok(package) => package,
        Err(error) => {
            // What of it was loaded is in nobody's way when it cannot be removed.
            drop(Package::forget(options, until));
            return Err(error);
        }
    };
    let mut suite = Suite {
        means: Means {
            options,
            package: &package,
            until,
        },
        entries: Vec::new(),
        results: Results::default(),
        deadline,
        scratch: 0,
        rounds: 0,
        wrong: Vec::new(),
        progress,
    };
    suite.prepare();
    report.warnings.extend(suite.rounds());
    report.warnings.extend(suite.close());
    // Everything is taken away even after an interrupt.
    if let Err(error) = Package::forget(options, until) {
        let text = format!("cannot remove the built-in images: {error:#}");
        report.warnings.push(text);
    }
    suite.record(report);
    report.images.clone_from(&package.digests);
    Ok(())
}

/// A subject, and what has become of it.
struct Entry {
    subject: Box<dyn Subject>,
    /// Whether there is something to be taken away.
    is_prepared: bool,
    version: String,
    unavailable: Option<String>,
}

struct Suite<'a> {
    means: Means<'a>,
    entries: Vec<Entry>,
    results: Results,
    deadline: Instant,
    /// Numbers the directories of cold starts.
    scratch: u32,
    rounds: u32,
    /// Results that were wrong.
    wrong: Vec<String>,
    progress: &'a mut dyn FnMut(Progress),
}

/// Why the rounds ended before their time.
enum Stop {
    Interrupted,
    Deadline,
}

impl Suite<'_> {
    fn prepare(&mut self) {
        for mut subject in subject::chosen(self.means.options) {
            let prepared = subject.prepare(&self.means);
            // What cannot start the program once has nothing to be measured.
            let tried = match &prepared {
                Ok(_) => warm(&self.means, subject.as_ref()).err(),
                Err(_) => None,
            };
            let is_prepared = prepared.is_ok();
            let (version, unavailable) = match (prepared, tried) {
                (Ok(version), error) => (version, error.map(|error| format!("{error:#}"))),
                (Err(error), _) => (String::new(), Some(format!("{error:#}"))),
            };
            self.entries.push(Entry {
                subject,
                is_prepared,
                version,
                unavailable,
            });
        }
    }

    /// All rounds; gives the reason when they are not all.
    fn rounds(&mut self) -> Option<String> {
        let wanted = self.means.options.runs;
        for round in 0..=wanted {
            let stop = self.round(round);
            if let Err(stop) = stop {
                let why = match stop {
                    Stop::Interrupted => "it was interrupted",
                    Stop::Deadline => "its time was over (--duration)",
                };
                let rounds = self.rounds;
                return Some(format!("{rounds} of {wanted} rounds were measured: {why}"));
            }
            self.rounds = round;
        }
        None
    }

    /// One round; the one with number 0 warms up.
    fn round(&mut self, round: u32) -> Result<(), Stop> {
        for group in Group::ALL {
            let due = match round.checked_sub(1) {
                None => group.warms_up(),
                Some(index) => index % group.every() == 0,
            };
            if !due || !self.wants(group) {
                continue;
            }
            let turns = if round == 0 { 1 } else { group.turns() };
            for turn in 0..turns {
                let number = round.checked_sub(1).map(|index| index * turns + turn);
                self.turn(group, round, number)?;
            }
        }
        Ok(())
    }

    /// Every subject once; each round another one is first.
    fn turn(&mut self, group: Group, round: u32, number: Option<u32>) -> Result<(), Stop> {
        let count = self.entries.len();
        for position in 0..count {
            let index = (position + usize::try_from(round).unwrap_or(0)) % count;
            if self.means.until.is_over() {
                return Err(Stop::Interrupted);
            }
            if Instant::now() >= self.deadline {
                return Err(Stop::Deadline);
            }
            let Some(entry) = self.entries.get(index) else {
                continue;
            };
            let name = entry.subject.name();
            let options = self.means.options;
            let wants = |measure: &str| options.wants(measure);
            if entry.unavailable.is_some() || !self.results.is_open(name, group, wants) {
                continue;
            }
            (self.progress)(Progress {
                round,
                rounds: options.runs,
                subject: name,
            });
            self.scratch += 1;
            let scratch = self
                .means
                .package
                .dir
                .join(format!("cold-{}", self.scratch));
            match measure(&self.means, entry.subject.as_ref(), group, &scratch) {
                Ok(lines) => self.results.add(name, number, &lines, wants),
                Err(error) if error.is::<Interrupted>() => return Err(Stop::Interrupted),
                Err(error) => {
                    let reason = format!("{error:#}");
                    if error.is::<Wrong>() {
                        self.wrong.push(format!("{name}: {reason}"));
                    }
                    let measures = wanted_of(group, options);
                    self.results.refuse(name, measures, &reason);
                }
            }
        }
        Ok(())
    }

    fn wants(&self, group: Group) -> bool {
        let package = self.means.package;
        let fits = package.is_built_in || group.fits_any_program();
        let fits = fits && (package.has_net() || !group.is_network());
        fits && wanted_of(group, self.means.options).next().is_some()
    }

    /// Takes everything away; gives what could not be.
    fn close(&self) -> Vec<String> {
        let means = Means {
            until: self.means.until.whatever_happens(),
            ..self.means
        };
        let used = self.entries.iter().filter(|entry| entry.is_prepared);
        let closed = used.filter_map(|entry| {
            let error = entry.subject.close(&means).err()?;
            let name = entry.subject.name();
            Some(format!("cannot tidy up after {name}: {error:#}"))
        });
        let tmpfs = means.remove_tmpfs().err();
        let tmpfs = tmpfs.map(|error| format!("cannot remove the directory on the tmpfs: {error}"));
        closed.chain(tmpfs).collect()
    }

    /// Puts into the report what was measured.
    fn record(self, report: &mut Report) {
        let names: Vec<&'static str> = self.entries.iter().map(|one| one.subject.name()).collect();
        let first = self.entries.first().filter(|one| one.unavailable.is_none());
        let base = first
            .map(|one| one.subject.name())
            .filter(|name| LEVELS.first() == Some(name));
        report.rounds = self.rounds;
        report.base = base.map(str::to_owned);
        report.measures = self.results.into_record(&names, base);
        report
            .warnings
            .extend(results::noise(&report.measures, base));
        report.wrong = !self.wrong.is_empty();
        report.warnings.extend(self.wrong);
        let subjects = self.entries.into_iter().map(|entry| Tested {
            name: entry.subject.name().to_owned(),
            title: entry.subject.title(),
            version: entry.version,
            unavailable: entry.unavailable,
        });
        report.subjects.extend(subjects);
    }
}

fn wanted_of(group: Group, options: &Options) -> impl Iterator<Item = &'static Measure> {
    MEASURES
        .iter()
        .filter(move |measure| measure.group == group && options.wants(measure.name))
}

/// One turn of one subject.
fn measure(
    means: &Means,
    subject: &dyn Subject,
    group: Group,
    scratch: &Path,
) -> anyhow::Result<Vec<Line>> {
    match group {
        Group::Cold => cold(means, subject, scratch),
        Group::Warm => warm(means, subject),
        Group::Load => load(means, subject),
        Group::Stop => stop(means, subject),
        Group::Memory => memory(means, subject),
        Group::Guest => guest(means, subject),
        Group::Pipe => pipe(means, subject),
        Group::Loopback => network::loopback(means, subject),
        Group::Bridge => {
            let measures = ["net.bridge.trip", "net.bridge.stream"];
            network::tcp(means, subject, Via::Bridge, measures)
        }
        Group::Host => {
            let measures = ["net.host.trip", "net.host.stream"];
            network::tcp(means, subject, Via::Host, measures)
        }
        Group::Http => network::http(means, subject),
    }
}

fn value(name: &'static str, took: Duration) -> Vec<Line> {
    vec![Line::Value(name, took.as_secs_f64() * 1e3)]
}

/// A built-in guest must say that it was there.
fn check_start(means: &Means, text: &str) -> anyhow::Result<()> {
    if means.package.is_built_in && !text.contains("bench: started") {
        bail!("it ended without having run the program");
    }
    Ok(())
}

fn cold(means: &Means, subject: &dyn Subject, scratch: &Path) -> anyhow::Result<Vec<Line>> {
    std::fs::create_dir(scratch)?;
    let took = cold_run(means, subject, scratch);
    let after = subject.after_cold(means, scratch);
    let removed = std::fs::remove_dir_all(scratch);
    let took = took?;
    after?;
    removed.with_context(|| format!("cannot remove `{}`", scratch.display()))?;
    Ok(value("start.cold", took))
}

fn cold_run(means: &Means, subject: &dyn Subject, scratch: &Path) -> anyhow::Result<Duration> {
    let mut took = Duration::ZERO;
    let mut said = String::new();
    for call in subject.cold(means, scratch)? {
        let ended = call.run(means.until)?;
        took += ended.took;
        said = ended.text;
    }
    check_start(means, &said)?;
    Ok(took)
}

fn warm(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let ended = subject.run(means, Job::plain(&[]))?.run(means.until)?;
    check_start(means, &ended.text)?;
    Ok(value("start.warm", ended.took))
}

fn load(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let calls: anyhow::Result<Vec<Call>> = (0..AT_ONCE)
        .map(|_| subject.run(means, Job::plain(&[])))
        .collect();
    let calls = calls?;
    let began = Instant::now();
    let mut running: Vec<_> = calls.iter().map(Running::spawn).collect();
    let ended: Vec<_> = running
        .iter_mut()
        .map(|one| match one {
            Ok(one) => one.wait(means.until),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        })
        .collect();
    let took = began.elapsed();
    for one in ended {
        check_start(means, &one?.text)?;
    }
    Ok(value("start.load", took))
}

fn stop(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let idle = subject.begin(means)?;
    // Not in the middle of its start.
    settled_pss(&idle.pids, means.until)?;
    let began = Instant::now();
    subject.end(means, vec![idle])?;
    Ok(value("stop", began.elapsed()))
}

fn guest(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let wanted = wanted_of(Group::Guest, means.options);
    let mut args: Vec<String> = wanted
        .filter(|measure| !measure.name.starts_with("fs."))
        .map(|measure| measure.name.to_owned())
        .collect();
    let mut lines = Vec::new();
    let mut mounts = Mounts::None;
    for (name, place) in subject.places(means)?.named() {
        let wanted = wanted_of(Group::Guest, means.options);
        if !wanted.map(|one| one.name).any(|one| one.starts_with(name)) {
            continue;
        }
        match place {
            Ok(path) => {
                mounts = Mounts::All;
                args.push(format!("{name}:{path}"));
            }
            Err(reason) => lines.push(Line::Unavailable(name.to_owned(), reason.clone())),
        }
    }
    if args.is_empty() {
        return Ok(lines);
    }
    let job = Job {
        program: Which::Main,
        args: &args,
        mounts,
        input: Input::None,
    };
    let text = subject.run(means, job)?.output(means.until)?;
    let found = job::parse(&text)?;
    if found.is_empty() {
        bail!("the guest has measured nothing");
    }
    lines.extend(found);
    Ok(lines)
}

fn pipe(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let args = ["pipe.echo".to_owned()];
    let job = Job {
        program: Which::Main,
        args: &args,
        mounts: Mounts::None,
        input: Input::Pipe,
    };
    let input = vec![b'k'; PIPE_BYTES];
    let (bytes, said) = subject
        .run(means, job)?
        .through_pipes(&input, means.until)?;
    if bytes != input.len() {
        bail!("{bytes} of {} bytes came back", input.len());
    }
    let own = said.lines().filter(|line| line.starts_with("pipe.echo "));
    let lines = job::parse(&own.collect::<Vec<_>>().join("\n"))?;
    if lines.is_empty() {
        bail!("the guest does not say how long it took");
    }
    Ok(lines)
}
