//! Memory limits that a host can give.

use std::fs;

use crate::EngineError;

/// Docker's least: below it not even the container's init gets to its program.
const LEAST: u64 = 6 << 20;

/// Checks a limit against what this host has.
pub(crate) fn check(bytes: Option<i64>) -> Result<(), EngineError> {
    let Some(bytes) = bytes else { return Ok(()) };
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if bytes < LEAST {
        return Err(EngineError::Memory {
            bytes,
            why: "the least is 6 MiB".to_owned(),
        });
    }
    match most(&meminfo) {
        Some(most) if bytes > most => Err(EngineError::Memory {
            bytes,
            why: format!("this host has {} MiB, with its swap", most >> 20),
        }),
        _ => Ok(()),
    }
}

/// Memory and swap of the host (proc_meminfo(5)), rounded up to a GiB: what is sold as 8 GiB shows
/// a little less.
fn most(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| -> Option<u64> {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let total = kib("MemTotal:")?.checked_add(kib("SwapTotal:").unwrap_or(0))?;
    total.checked_mul(1024)?.checked_next_multiple_of(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_is_memory_and_swap_rounded_up() {
        let text = "MemTotal:        8000000 kB\nMemFree: 1 kB\nSwapTotal:       1000000 kB\n";
        assert_eq!(most(text), Some(9 << 30));
        assert_eq!(most(""), None);
    }

    #[test]
    fn limit_below_the_least_and_above_the_most_is_refused() {
        assert!(check(None).is_ok());
        assert!(check(Some(64 << 20)).is_ok());
        assert!(check(Some(1 << 20)).is_err());
        assert!(check(Some(i64::MAX)).is_err());
    }
}
