//! What idle instances take: the first, each further one, the hundredth, and how many there could be.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::call::Interrupted;
use crate::job::Line;
use crate::measure::INSTANCES;
use crate::memory::{of_machine, pss, settled_pss};
use crate::subject::{Idle, Means, Subject};

/// How long further instances are started: engines that are slow end with fewer of them.
const TIME: Duration = Duration::from_secs(3);
/// So many are started whatever it takes.
const FEWEST: usize = 8;
/// This part of the machine's memory is left alone.
const RESERVE: u64 = 16;

/// Starts many, looks, and ends them.
pub(crate) fn memory(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let mut idle = Vec::new();
    let lines = begun(means, subject, &mut idle);
    let ended = match idle.is_empty() {
        true => Ok(()),
        false => subject.end(means, idle),
    };
    let lines = lines?;
    ended?;
    Ok(lines)
}

fn begun(means: &Means, subject: &dyn Subject, idle: &mut Vec<Idle>) -> anyhow::Result<Vec<Line>> {
    idle.push(subject.begin(means)?);
    let first = settled_pss(&pids(idle), means.until)?;
    let [available, total] = of_machine()?;
    let short = fill(means, subject, idle, total / RESERVE)?;
    let further = match u32::try_from(idle.len()).unwrap_or(u32::MAX) {
        0 | 1 => bail!("{}", short.unwrap_or_default()),
        count => f64::from(count - 1),
    };
    let all = settled_pss(&pids(idle), means.until)?;
    let [left, _] = of_machine()?;
    let more = (mib(all) - mib(first)) / further;
    let taken = (mib(available) - mib(left)) / further;
    let mut lines = vec![
        Line::Value("memory.idle", mib(first)),
        Line::Value("memory.more", more),
    ];
    lines.push(match (short, idle.last()) {
        (None, Some(last)) => Line::Value("memory.hundredth", mib(pss(&last.pids)?)),
        (short, _) => Line::Unavailable("memory.hundredth".to_owned(), short.unwrap_or_default()),
    });
    // What others have given back meanwhile can be more than the instances have taken.
    if taken > 0.0 {
        lines.push(Line::Value("memory.taken", taken));
        lines.push(Line::Value("memory.density", mib(available) / taken));
    } else {
        let reason = "the machine's other programs gave back more memory than the instances took";
        for name in ["memory.taken", "memory.density"] {
            lines.push(Line::Unavailable(name.to_owned(), reason.to_owned()));
        }
    }
    Ok(lines)
}

/// Starts further ones up to the hundredth; gives the reason when they are fewer.
fn fill(
    means: &Means,
    subject: &dyn Subject,
    idle: &mut Vec<Idle>,
    reserve: u64,
) -> anyhow::Result<Option<String>> {
    let began = Instant::now();
    while idle.len() < INSTANCES {
        let count = idle.len();
        if count >= FEWEST && began.elapsed() >= TIME {
            let seconds = TIME.as_secs();
            return Ok(Some(format!(
                "only {count} of {INSTANCES} instances were started in {seconds} s"
            )));
        }
        let [available, _] = of_machine()?;
        if available < reserve {
            return Ok(Some(format!(
                "there is memory for {count} of {INSTANCES} instances only"
            )));
        }
        match subject.begin(means) {
            Ok(one) => idle.push(one),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                return Ok(Some(format!(
                    "only {count} of {INSTANCES} instances could be started: {error:#}"
                )));
            }
        }
    }
    Ok(None)
}

fn pids(idle: &[Idle]) -> Vec<u32> {
    let all = idle.iter().flat_map(|one| one.pids.iter().copied());
    all.collect()
}

fn mib(bytes: u64) -> f64 {
    // Memory is far below 2^53 bytes.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
