//! Commands timed as whole processes, spawn to exit, interleaved: a change of the machine's speed
//! hits all of them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Counted runs of each command.
pub(crate) const RUNS: usize = 30;

/// Runs before counting starts.
const WARM_UP: usize = 3;

/// One command.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// What standard output must start with: a wrong answer is an error, not a fast run.
    answer: &'static str,
    code: i32,
}

impl Case {
    pub(crate) fn new(name: &str, program: &Path, args: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_path_buf(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: Vec::new(),
            answer: "",
            code: 0,
        }
    }

    /// With a variable of the environment.
    pub(crate) fn env(mut self, key: &str, value: &OsStr) -> Self {
        let value = value.to_string_lossy().into_owned();
        self.env.push((key.to_owned(), value));
        self
    }

    /// With what it must print first.
    pub(crate) fn answering(self, answer: &'static str) -> Self {
        Self { answer, ..self }
    }

    /// With the code it must exit with.
    pub(crate) fn exiting(self, code: i32) -> Self {
        Self { code, ..self }
    }

    /// One run.
    pub(crate) fn time(&self) -> anyhow::Result<Duration> {
        let before = Instant::now();
        let output = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run `{}`", self.program.display()))?;
        let taken = before.elapsed();
        let right = output.status.code() == Some(self.code);
        if !right || !output.stdout.starts_with(self.answer.as_bytes()) {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().next().unwrap_or("no output").to_owned();
            bail!("`{}` failed: {line}", self.name);
        }
        Ok(taken)
    }
}

/// The times of one command, sorted.
#[derive(Debug)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn median_ms(&self) -> f64 {
        self.quantile_ms(50)
    }

    pub(crate) fn quantile_ms(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let index = (self.0.len() * percent / 100).min(last);
        self.0
            .get(index)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Runs all commands in turn, again and again.
pub(crate) fn measure(cases: &[Case]) -> anyhow::Result<Vec<Times>> {
    let mut times = vec![Vec::with_capacity(RUNS); cases.len()];
    for round in 0..WARM_UP + RUNS {
        for (case, list) in cases.iter().zip(&mut times) {
            let taken = case.time()?;
            if round >= WARM_UP {
                list.push(taken);
            }
        }
    }
    let sorted = times.into_iter().map(|mut list| {
        list.sort_unstable();
        Times(list)
    });
    Ok(sorted.collect())
}

/// Measures and prints a table; the ratio is to the first command.
#[expect(clippy::print_stdout, reason = "a measuring program's output")]
pub(crate) fn table(title: &str, cases: &[Case]) -> anyhow::Result<()> {
    let times = measure(cases)?;
    let base = times.first().map_or(f64::NAN, Times::median_ms);
    println!("\n{title}, medians of {RUNS}\n");
    println!("| | median ms | p95 ms | ratio |\n|---|---|---|---|");
    for (case, times) in cases.iter().zip(&times) {
        let (median, p95) = (times.median_ms(), times.quantile_ms(95));
        println!(
            "| {} | {median:.2} | {p95:.2} | {:.2} |",
            case.name,
            median / base
        );
    }
    Ok(())
}

/// The private memory of a process in KiB (`smaps_rollup` of proc(5)).
pub(crate) fn private_kib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
    let field = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    Ok(text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(field)
        .sum())
}
