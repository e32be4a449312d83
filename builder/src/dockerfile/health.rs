//! `HEALTHCHECK`.

use super::flags::Flag;
use super::instruction::Health;
use super::parse::{Wrong, command, split_name, unknown_flag, value};

/// Parses its flags and what it says.
pub(super) fn parse(flags: &[Flag], args: &str) -> Result<Health, Wrong> {
    let (kind, rest) = split_name(args);
    let mut health = Health::default();
    if kind.eq_ignore_ascii_case("NONE") {
        if !rest.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        return Ok(health);
    }
    if !kind.eq_ignore_ascii_case("CMD") {
        return Err(Wrong {
            at: kind.to_owned(),
            what: format!("`{kind}` is no kind of check: there are CMD and NONE"),
        });
    }
    if rest.is_empty() {
        return Err("HEALTHCHECK CMD needs a command".into());
    }
    for flag in flags {
        let text = value(flag)?;
        let wrong = || Wrong {
            at: format!("--{}", flag.name),
            what: format!(
                "`--{}={text}` is no duration of at least 1ms, such as 30s or 1m30s",
                flag.name
            ),
        };
        let duration = || {
            duration(&text)
                .filter(|ns| *ns == 0 || *ns >= 1_000_000)
                .ok_or_else(wrong)
        };
        match flag.name.as_str() {
            "interval" => health.interval = duration()?,
            "timeout" => health.timeout = duration()?,
            "start-period" => health.start_period = duration()?,
            "start-interval" => health.start_interval = duration()?,
            "retries" => {
                let retries = text.parse::<i64>().ok().filter(|count| *count >= 1);
                health.retries = retries.ok_or_else(|| Wrong {
                    at: "--retries".to_owned(),
                    what: format!("`--retries={text}` is no number from 1 on"),
                })?;
            }
            _ => return Err(unknown_flag("HEALTHCHECK", flag)),
        }
    }
    health.command = Some(command(rest));
    Ok(health)
}

/// A duration in Go's spelling, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        sum += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the comparison")]
    let whole = (sum <= 9e18).then_some(sum as i64);
    whole
}
