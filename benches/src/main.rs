//! Whole-process measurements: how long a container takes from the command line to its exit code,
//! interleaved with what it is compared with, so that a change of the machine's speed hits both.
//!
//! `cargo run --release -p benches` installs nothing; a peer that is absent is named and left out.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Counted runs of each command.
const RUNS: usize = 30;

/// Runs before counting starts.
const WARM_UP: usize = 3;

/// One thing that is measured.
struct Case {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "a measuring program's output")]
fn main() -> anyhow::Result<()> {
    let ketch = ketch()?;
    let mut cases = vec![case(
        "ketch, Linux",
        &ketch,
        &["run", "--rm", "--network", "none", "hello"],
    )];
    let wasm = [
        "run",
        "--rm",
        "--network",
        "none",
        "--platform",
        "wasi/wasm",
        "hello",
    ];
    cases.push(case("ketch, wasm", &ketch, &wasm));
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/guests/built/hello.x86_64");
    cases.push(case("the same program, no container", &guest, &[]));
    for (name, program, args) in [
        (
            "docker run",
            "docker",
            &["run", "--rm", "--network", "none", "hello"][..],
        ),
        (
            "podman run",
            "podman",
            &["run", "--rm", "--network", "none", "hello"][..],
        ),
    ] {
        let peer = case(name, Path::new(program), args);
        match time(&peer) {
            Ok(_) => cases.push(peer),
            Err(error) => println!("left out: {name} ({error:#})"),
        }
    }
    let times = measure(&cases)?;
    let base = times
        .first()
        .and_then(|list| median(list))
        .context("nothing was measured")?;
    println!(
        "{:<32}{:>12}{:>12}{:>10}",
        "medians of 30", "median ms", "p95 ms", "ratio"
    );
    for (case, list) in cases.iter().zip(&times) {
        let (Some(median), Some(p95)) = (median(list), quantile(list, 95)) else {
            continue;
        };
        let ratio = median.as_secs_f64() / base.as_secs_f64();
        println!(
            "{:<32}{:>12.2}{:>12.2}{ratio:>10.2}",
            case.name,
            ms(median),
            ms(p95)
        );
    }
    Ok(())
}

/// The release build that stands beside this program.
fn ketch() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let ketch = own.with_file_name("ketch");
    if !ketch.exists() {
        bail!(
            "cannot find `{}`: run `cargo build --release` first",
            ketch.display()
        );
    }
    Ok(ketch)
}

fn case(name: &'static str, program: &Path, args: &[&str]) -> Case {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Case {
        name,
        program: program.to_path_buf(),
        args,
    }
}

fn measure(cases: &[Case]) -> anyhow::Result<Vec<Vec<Duration>>> {
    let mut times = vec![Vec::with_capacity(RUNS); cases.len()];
    for round in 0..WARM_UP + RUNS {
        for (case, list) in cases.iter().zip(&mut times) {
            let taken = time(case)?;
            if round >= WARM_UP {
                list.push(taken);
            }
        }
    }
    for list in &mut times {
        list.sort_unstable();
    }
    Ok(times)
}

/// One run, spawn to exit. A wrong answer is an error, not a fast run.
fn time(case: &Case) -> anyhow::Result<Duration> {
    let before = Instant::now();
    let output = Command::new(&case.program)
        .args(&case.args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", case.program.display()))?;
    let taken = before.elapsed();
    if !output.status.success() || !output.stdout.starts_with(b"Hello, ") {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed: {}",
            case.name,
            text.lines().next().unwrap_or("no output")
        );
    }
    Ok(taken)
}

fn median(sorted: &[Duration]) -> Option<Duration> {
    quantile(sorted, 50)
}

fn quantile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?))
        .copied()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
