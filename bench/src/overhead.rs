//! What the timing itself costs: `true`, started and waited for as everything here is, against a bare start and wait.

use std::process::Stdio;
use std::time::Instant;

use anyhow::Context;

use crate::call::Call;
use crate::options::Options;
use crate::report::Overhead;
use crate::results;
use crate::stats;
use crate::subject;
use crate::watch::Waiting;

/// Pairs in a run of the suite, and where nothing else is asked for.
const PAIRS: u32 = 200;
const PAIRS_ALONE: u32 = 2000;

/// How much of what is timed may be the timing's own.
const LIMIT: f64 = 0.01;

/// Measures it.
///
/// # Errors
/// When there is no program `true`, or it fails, or the user wants no more.
pub(crate) fn measure(options: &Options, until: Waiting) -> anyhow::Result<Overhead> {
    let program = subject::find(options, "true")?;
    let call = Call::new(program.as_str());
    let (mut bare, mut timed) = (Vec::new(), Vec::new());
    let pairs = if options.wants_rounds() {
        PAIRS
    } else {
        PAIRS_ALONE
    };
    for pair in 0..pairs {
        // In the middle of a pair stands now the one, now the other.
        if pair % 2 == 0 {
            bare.push(bare_start(&program)?);
        }
        timed.push(call.run(until)?.took.as_secs_f64() * 1e3);
        if pair % 2 == 1 {
            bare.push(bare_start(&program)?);
        }
    }
    let ratios: Vec<f64> = timed.iter().zip(&bare).map(|(a, b)| a / b).collect();
    Ok(Overhead {
        bare_ms: stats::median(&bare),
        timed_ms: stats::median(&timed),
        ratio: results::ratio(&ratios).context("no pair was measured")?,
    })
}

/// A start and a wait, with nothing around but the clock.
fn bare_start(program: &str) -> anyhow::Result<f64> {
    let mut command = std::process::Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let status = command.spawn().and_then(|mut child| child.wait());
    let took = began.elapsed();
    status.with_context(|| format!("cannot run `{program}`"))?;
    Ok(took.as_secs_f64() * 1e3)
}

/// A warning, when the timing costs more than it may, and that is no chance.
pub(crate) fn doubt(overhead: &Overhead) -> Option<String> {
    let interval = overhead.ratio.interval?;
    (interval.low > 1.0 + LIMIT).then(|| {
        format!(
            "timing a start costs {:.1} % of it: that is more than {:.0} %",
            (overhead.ratio.median - 1.0) * 100.0,
            LIMIT * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Interval, Ratio};

    #[test]
    fn overhead_is_doubtful_when_its_whole_interval_is_beyond_the_limit() {
        let overhead = |low, high| Overhead {
            bare_ms: 1.0,
            timed_ms: 1.02,
            ratio: Ratio {
                median: 1.02,
                interval: Some(Interval { low, high }),
                significant: true,
            },
        };

        assert!(doubt(&overhead(1.015, 1.03)).is_some());
        assert!(doubt(&overhead(1.005, 1.03)).is_none());
        assert!(doubt(&overhead(0.99, 1.0)).is_none());
    }
}
