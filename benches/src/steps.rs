//! Where the time of a start goes: the steps of the monitor and of the container's init, each with
//! what it took, so that a later change that costs time is seen where it happens.

use std::path::Path;

use anyhow::Context;

use crate::measure::{Case, RUNS};

/// One step of many starts.
struct Step {
    name: String,
    /// Microseconds from the beginning to its end, one a start.
    ends: Vec<f64>,
    /// Microseconds since the step before it on the same side.
    taken: Vec<f64>,
}

/// Starts the case again and again, with the steps written to `file`, and prints their medians. The
/// case has the option already.
#[expect(clippy::print_stdout, reason = "a measuring program's output")]
pub(crate) fn table(case: &Case, file: &Path) -> anyhow::Result<()> {
    let mut steps: Vec<Step> = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..RUNS {
        if file.exists() {
            std::fs::remove_file(file)?;
        }
        whole.push(case.time()?.as_secs_f64() * 1e6);
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the steps in `{}`", file.display()))?;
        add(&text, &mut steps)?;
    }
    println!("\nThe steps of {}, medians of {RUNS}\n", case.name);
    println!("| step | taken µs | at µs |\n|---|---|---|");
    steps.sort_by(|a, b| median(&a.ends).total_cmp(&median(&b.ends)));
    for step in &steps {
        let (taken, end) = (median(&step.taken), median(&step.ends));
        println!("| {} | {taken:.0} | {end:.0} |", step.name);
    }
    println!("| the whole command | {:.0} | |", median(&whole));
    Ok(())
}

/// Adds one start's lines, `side step microseconds`, in the order of each side.
fn add(text: &str, steps: &mut Vec<Step>) -> anyhow::Result<()> {
    let mut before: Vec<(&str, f64)> = Vec::new();
    for line in text.lines() {
        let wrong = || format!("`{line}` is no step");
        let mut words = line.split(' ');
        let side = words.next().with_context(wrong)?;
        let name = words.next().with_context(wrong)?;
        let end: f64 = words.next().with_context(wrong)?.parse()?;
        let last = before.iter_mut().find(|(known, _)| *known == side);
        let begin = match last {
            Some((_, last)) => std::mem::replace(last, end),
            None => {
                // The init begins where the parent has cloned it, which is the parent's last step.
                let begin = before.iter().map(|(_, end)| *end).fold(0.0, f64::max);
                before.push((side, end));
                if side == "parent" {
                    0.0
                } else {
                    begin.min(end)
                }
            }
        };
        let name = format!("{side} {name}");
        let at = steps.iter().position(|step| step.name == name);
        let at = at.unwrap_or_else(|| {
            steps.push(Step {
                name,
                ends: Vec::new(),
                taken: Vec::new(),
            });
            steps.len() - 1
        });
        if let Some(step) = steps.get_mut(at) {
            step.ends.push(end);
            step.taken.push(end - begin);
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_takes_what_passed_since_the_one_before_on_its_side() {
        let mut steps = Vec::new();
        add(
            "parent a 10.0\ninit b 15.0\nparent c 30.5\ninit d 16.0\n",
            &mut steps,
        )
        .unwrap();
        let taken: Vec<f64> = steps.iter().map(|step| step.taken[0]).collect();
        assert_eq!(taken, [10.0, 5.0, 20.5, 1.0]);
        assert!(add("nonsense", &mut steps).is_err());
    }
}
