//! What a subject is asked to run, and what the guest prints about it.

use anyhow::{Context, bail};

use crate::measure::{self, Measure};

/// A run of the guest program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// Which program.
    pub(crate) program: Which,
    /// Arguments after the program; the package's own command when empty.
    pub(crate) args: &'a [String],
    /// Whether the guest gets a volume and a tmpfs.
    pub(crate) mounts: Mounts,
    /// Whether standard input is passed on.
    pub(crate) input: Input,
}

/// The programs of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that is measured.
    Main,
    /// The one that talks over networks.
    Net,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    None,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    None,
    Pipe,
}

impl<'a> Job<'a> {
    pub(crate) fn plain(args: &'a [String]) -> Self {
        Self {
            program: Which::Main,
            args,
            mounts: Mounts::None,
            input: Input::None,
        }
    }
}

/// Where files can be in a guest: paths for the three places, or why there is none.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) root: Result<String, String>,
    pub(crate) volume: Result<String, String>,
    pub(crate) tmpfs: Result<String, String>,
}

impl Places {
    /// Those of a container with [`Mounts::All`].
    pub(crate) fn of_container() -> Self {
        Self {
            root: Ok("/".to_owned()),
            volume: Ok(VOLUME.to_owned()),
            tmpfs: Ok(TMPFS.to_owned()),
        }
    }

    pub(crate) fn named(&self) -> [(&'static str, &Result<String, String>); 3] {
        [
            ("fs.root", &self.root),
            ("fs.volume", &self.volume),
            ("fs.tmpfs", &self.tmpfs),
        ]
    }
}

/// Where a container has its volume.
pub(crate) const VOLUME: &str = "/volume";
/// Where a container has its tmpfs.
pub(crate) const TMPFS: &str = "/memory";

/// The guest came to another result than it must.
#[derive(Debug, thiserror::Error)]
#[error("`{measure}` came to the wrong result: {what}")]
pub(crate) struct Wrong {
    pub(crate) measure: &'static str,
    pub(crate) what: String,
}

/// One line of the guest.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    /// A value in the measure's unit.
    Value(&'static str, f64),
    /// A measure, or a group of measures, that this world does not have.
    Unavailable(String, String),
}

/// Reads what the guest prints.
///
/// # Errors
/// When a line is not understood, or a result is wrong.
pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<Line>> {
    text.lines().map(line).collect()
}

fn line(line: &str) -> anyhow::Result<Line> {
    let unclear = || format!("cannot understand the guest's line `{line}`");
    let mut words = line.splitn(3, ' ');
    let name = words.next().with_context(unclear)?;
    let second = words.next().with_context(unclear)?;
    let rest = words.next().with_context(unclear)?;
    if second == "unavailable" {
        return Ok(Line::Unavailable(name.to_owned(), rest.to_owned()));
    }
    let measure = measure::find(name).with_context(unclear)?;
    let operations: f64 = second.parse().with_context(unclear)?;
    let (nanoseconds, check) = rest.split_once(' ').with_context(unclear)?;
    let nanoseconds: f64 = nanoseconds.parse().with_context(unclear)?;
    verify(
        measure,
        u64::from_str_radix(check, 16).with_context(unclear)?,
    )?;
    if operations <= 0.0 || nanoseconds <= 0.0 {
        bail!("{}", unclear());
    }
    let value = measure.value(operations, nanoseconds);
    Ok(Line::Value(measure.name, value))
}

fn verify(measure: &'static Measure, found: u64) -> Result<(), Wrong> {
    match measure.check {
        Some(expected) if expected != found => Err(Wrong {
            measure: measure.name,
            what: format!("{found:016x}, not {expected:016x}"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_are_in_their_units() {
        let text = "cpu.hash 1048576 500000000 30e14955ebf13522\nsyscall.clock 1000 50000 0\n";

        let lines = parse(text).unwrap();

        assert_eq!(
            lines,
            [
                Line::Value("cpu.hash", 2.0),
                Line::Value("syscall.clock", 50.0)
            ]
        );
    }

    #[test]
    fn wrong_result_is_an_error_of_its_own() {
        let error = parse("cpu.hash 1 1 30e14955ebf13523").unwrap_err();

        assert!(error.is::<Wrong>(), "{error}");
    }

    #[test]
    fn unknown_measure_is_not_skipped() {
        assert!(parse("cpu.magic 1 1 0").is_err());
        assert!(parse("cpu.hash 1 1").is_err());
    }
}
