//! The formats of control files: single values, flat keys and nested keys
//! (`Documentation/admin-guide/cgroup-v2.rst`, "Format").

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// v1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// Pressure stall information of one resource (`Documentation/accounting/psi.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stall,
    /// All tasks waited at once.
    pub full: Stall,
}

/// How much of the time was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total_us: u64,
}

/// A group that is gone reads as `ENOENT`, or as `ENODEV` through an open directory.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

/// The file's text; none when the kernel has no such file, or reads it as not supported (pressure
/// files of a kernel that has them switched off).
pub(super) fn text(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One number; 0 when there is no such file.
pub(super) fn number(file: &Path) -> io::Result<u64> {
    Ok(text(file)?
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0))
}

/// One limit: none for `max`, for v1's "no limit", and without such a file.
pub(super) fn limit(file: &Path) -> io::Result<Option<u64>> {
    let value = text(file)?.and_then(|text| text.trim().parse().ok());
    Ok(value.filter(|&value| value < NO_LIMIT))
}

/// Lines of `key value`.
pub(super) fn flat(file: &Path) -> io::Result<BTreeMap<String, u64>> {
    Ok(flat_keys(&text(file)?.unwrap_or_default()))
}

/// The value of one key of [`flat`]; 0 when it cannot be read.
pub(super) fn key(file: &Path, key: &str) -> u64 {
    flat(file)
        .ok()
        .and_then(|keys| keys.get(key).copied())
        .unwrap_or(0)
}

fn flat_keys(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Lines of `name key=value key=value`.
pub(super) fn nested(text: &str) -> impl Iterator<Item = (&str, BTreeMap<&str, &str>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        Some((
            name,
            words.filter_map(|word| word.split_once('=')).collect(),
        ))
    })
}

/// A `*.pressure` file; none where the kernel has none.
pub(super) fn pressure(file: &Path) -> io::Result<Option<Pressure>> {
    Ok(text(file)?.map(|text| pressure_lines(&text)))
}

fn pressure_lines(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for (name, values) in nested(text) {
        let average = |key| {
            values
                .get(key)
                .and_then(|value| value.parse().ok())
                .unwrap_or(0.0)
        };
        let total = values.get("total").and_then(|value| value.parse().ok());
        let stall = Stall {
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
            total_us: total.unwrap_or(0),
        };
        match name {
            "some" => pressure.some = stall,
            "full" => pressure.full = stall,
            _ => {}
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_keys_without_a_number_are_left_out() {
        let keys = flat_keys("anon 4096\nbroken\nname text\nfile 1\n");
        assert_eq!(keys.get("anon"), Some(&4096));
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn pressure_has_both_lines() {
        let pressure = pressure_lines(
            "some avg10=1.50 avg60=0.20 avg300=0.00 total=77\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=9\n",
        );
        assert_eq!((pressure.some.avg10, pressure.some.total_us), (1.5, 77));
        assert_eq!((pressure.full.avg10, pressure.full.total_us), (0.25, 9));
    }
}
