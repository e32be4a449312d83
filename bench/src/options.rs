//! What is to be measured, and with what.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use crate::measure::{MEASURES, Measure};

/// ketch's levels, from no wall to two. The first is what the others are compared with.
pub const LEVELS: [&str; 4] = ["process", "linux", "wasm", "wasm-only"];

/// Programs that are measured beside, where `PATH` has them.
pub const PEERS: [&str; 7] = [
    "docker", "podman", "crun", "runc", "youki", "runsc", "wasmtime",
];

/// What [`Options::only`] may name besides measures: what the timing itself costs.
pub const OVERHEAD: &str = "overhead";

/// What a run of the suite needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `ketch`.
    pub ketch: PathBuf,
    /// Its global flags.
    pub ketch_flags: Vec<String>,
    /// Its version.
    pub version: String,
    /// Where programs are looked for, as `PATH` has it.
    pub search_path: OsString,
    /// Where a directory for the run's files is made.
    pub temporary: PathBuf,
    /// The built-in image: an OCI layout as a tar archive.
    pub archive: &'static [u8],
    /// The same of the programs that talk over networks.
    pub net_archive: &'static [u8],
    /// The system call filter of ketch's containers, in the form of a runtime specification: OCI runtimes get the same.
    pub seccomp: Option<Value>,
    /// The user's image in place of the built-in one: one reference for both kinds, or the Linux one and the wasm one.
    pub images: Vec<String>,
    /// The command in the user's image; the image's own when empty.
    pub command: Vec<String>,
    /// Which of [`LEVELS`].
    pub levels: Vec<String>,
    /// Which of [`PEERS`].
    pub peers: Vec<String>,
    /// Measures by name or by the beginning of it up to a dot, or [`OVERHEAD`]; all when empty.
    pub only: Vec<String>,
    /// Rounds after the warm-up.
    pub runs: u32,
    /// After this time no further round begins.
    pub duration: Duration,
}

impl Options {
    /// Checks the names, so that a misspelt one is not a measure that is missing.
    ///
    /// # Errors
    /// When a level, a peer or a measure does not exist, or a number is of no use.
    pub fn check(&self) -> anyhow::Result<()> {
        check("level", &self.levels, &LEVELS)?;
        check("peer", &self.peers, &PEERS)?;
        for only in &self.only {
            let named = |one: &&Measure| is_within(one.name, only);
            let named: Vec<&Measure> = MEASURES.iter().filter(named).collect();
            if named.is_empty() && only != OVERHEAD {
                bail!("`{only}` is no measure (see `ketch bench --list`)");
            }
            let fits = named.iter().any(|one| one.group.fits_any_program());
            if !self.images.is_empty() && !named.is_empty() && !fits {
                bail!("`{only}` is measured with the built-in image: of --image there are starts");
            }
        }
        if self.levels.is_empty() && self.peers.is_empty() {
            bail!("there is nothing to measure: no level and no peer");
        }
        if self.runs == 0 {
            bail!("cannot measure with 0 runs");
        }
        if self.images.len() > 2 {
            bail!("--image takes one reference, or two: the Linux image and the wasm image");
        }
        if self.images.is_empty() && !self.command.is_empty() {
            bail!("--cmd needs --image: the built-in image has its own workloads");
        }
        Ok(())
    }

    /// Whether anything is wanted besides the timing's own cost.
    pub(crate) fn wants_rounds(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only != OVERHEAD)
    }

    /// Whether a measure is wanted.
    pub(crate) fn wants(&self, measure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| is_within(measure, only))
    }
}

fn check(what: &str, given: &[String], known: &[&str]) -> anyhow::Result<()> {
    match given.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => bail!("`{name}` is no {what}: there are {}", known.join(", ")),
        None => Ok(()),
    }
}

/// Whether `measure` is `name`, or one of the group of that name.
pub(crate) fn is_within(measure: &str, name: &str) -> bool {
    measure
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_names_its_measures_and_no_other() {
        assert!(is_within("fs.root.create", "fs.root"));
        assert!(is_within("start.cold", "start.cold"));
        assert!(!is_within("start.cold", "start.co"));
        assert!(!is_within("start", "start.cold"));
    }
}
