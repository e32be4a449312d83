//! The record of a run: what `--format json` writes and `compare` reads (`docs/isolation.md` describes it).

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Better;
use crate::options::Options;

/// The version of the record's form.
pub(crate) const VERSION: u32 = 1;

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The form: 1.
    pub version: u32,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Rounds that were wanted.
    pub rounds_wanted: u32,
    /// Rounds that were measured to their end.
    pub rounds: u32,
    /// The machine.
    pub machine: Machine,
    /// What ketch and its images were.
    pub ketch: String,
    /// Image references with their digests.
    pub images: Vec<String>,
    /// Levels and peers, in the order of the report.
    pub subjects: Vec<Tested>,
    /// The first subject's name, when it can be compared with.
    pub base: Option<String>,
    /// What was measured.
    pub measures: Vec<Measured>,
    /// What the timing itself costs: a program timed this way against a bare start and wait.
    pub own_overhead: Option<Overhead>,
    /// What a reader must know: noise, rounds that are missing, wrong results.
    pub warnings: Vec<String>,
    /// Whether a program came to a wrong result.
    pub wrong: bool,
}

/// A level or a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Its version, as it says it.
    pub version: String,
    /// Why nothing of it was measured.
    pub unavailable: Option<String>,
}

/// One measure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// The unit of all values.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// One for each subject that takes part.
    pub outcomes: Vec<Outcome>,
}

/// One measure of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The subject's name.
    pub subject: String,
    /// Why there are no values, or no more.
    pub unavailable: Option<String>,
    /// All values, in the order in which they were measured.
    pub samples: Vec<f64>,
    /// The turn of each value; values of one turn are pairs.
    pub turns: Vec<u32>,
    /// What the values come to.
    pub summary: Option<Summary>,
    /// How many times as much as the first subject it costs, pair by pair; for rates, how many times as slow.
    pub ratio: Option<Ratio>,
}

/// What values come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// Where the true median is, with 95 % confidence; absent for fewer than 3 values.
    pub interval: Option<Interval>,
    /// Values beyond Tukey's fences. They count in everything.
    pub outliers: Vec<f64>,
}

/// A range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether a number is inside.
    #[must_use]
    pub fn has(&self, number: f64) -> bool {
        self.low <= number && number <= self.high
    }
}

/// A comparison with the first subject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median of the pairs' ratios.
    pub median: f64,
    /// Where it truly is, with 95 % confidence.
    pub interval: Option<Interval>,
    /// Whether 1 is outside of that.
    pub significant: bool,
}

/// What timing costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// The program `true`, started and waited for and nothing else: milliseconds.
    pub bare_ms: f64,
    /// The same as the suite times it.
    pub timed_ms: f64,
    /// How many times as long, pair by pair.
    pub ratio: Ratio,
}

impl Report {
    /// One of a run that has measured nothing yet.
    pub(crate) fn new(options: &Options, machine: Machine) -> Self {
        Self {
            version: VERSION,
            began: 0,
            seconds: 0.0,
            rounds_wanted: match options.wants_rounds() {
                true => options.runs,
                false => 0,
            },
            rounds: 0,
            machine,
            ketch: options.version.clone(),
            images: Vec::new(),
            subjects: Vec::new(),
            base: None,
            measures: Vec::new(),
            own_overhead: None,
            warnings: Vec::new(),
            wrong: false,
        }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When that fails.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Reads it again.
    ///
    /// # Errors
    /// When the text is no such record, or one of a later version.
    pub fn from_json(text: &str) -> anyhow::Result<Self> {
        /// Of every version.
        #[derive(Deserialize)]
        struct AnyVersion {
            version: u32,
        }
        let any: AnyVersion = serde_json::from_str(text)?;
        if any.version != VERSION {
            anyhow::bail!(
                "it has version {}, and this program reads version {VERSION}",
                any.version
            );
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The outcome of a measure and a subject.
    #[must_use]
    pub fn outcome(&self, measure: &str, subject: &str) -> Option<&Outcome> {
        let measured = self.measures.iter().find(|one| one.name == measure)?;
        measured
            .outcomes
            .iter()
            .find(|outcome| outcome.subject == subject)
    }
}
