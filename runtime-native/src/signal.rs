//! Signals by name and number, as signal(7) spells them.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// What a C library leaves of the kernel's real-time signals: it keeps the first two.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal that is given as `TERM`, `SIGTERM`, `RTMIN+1`, `RTMAX-1` or `15`; 0 only
/// asks whether there is somebody.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(rest, RTMIN);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(rest, RTMAX);
    }
    let index = NAMES.iter().position(|one| *one == name)?;
    i32::try_from(index + 1).ok()
}

/// As [`signal_number`], of a signal that does something: 0 is none.
#[must_use]
pub fn real_signal(text: &str) -> Option<i32> {
    signal_number(text).filter(|number| *number > 0)
}

fn realtime(offset: &str, base: i32) -> Option<i32> {
    let offset = match offset {
        "" => 0,
        _ => offset.parse::<i32>().ok()?,
    };
    base.checked_add(offset)
        .filter(|number| (RTMIN..=RTMAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_number_by_name_number_and_range() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("kill", 9),
            ("28", 28),
            ("0", 0),
            ("SIGRTMIN+1", 35),
            ("RTMAX", 64),
            ("RTMAX-3", 61),
        ] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for bad in ["-1", "65", "SIGFOO", "RTMIN+99", "RTMAX+2147483647", ""] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }
}
