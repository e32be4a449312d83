//! Whether a container is healthy: `health.json` in its directory, replaced by its monitor.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sys::durable::Durability;

use crate::{RecordError, VERSION, read_record, write_record};

/// The file in the container's directory.
const FILE: &str = "health.json";

/// How many results are kept, as with Docker.
const RESULTS: usize = 5;

/// No output of a probe is longer, as with Docker.
pub const MAX_PROBE_OUTPUT: usize = 4096;

/// What the probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing yet.
    Starting,
    /// The last one has succeeded.
    Healthy,
    /// Too many in a row have failed.
    Unhealthy,
}

impl HealthStatus {
    /// As records and events spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProbeResult {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// 0 for success, -1 when it could not be run or took too long.
    pub exit_code: i32,
    /// What it printed, or why it could not be run.
    pub output: String,
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    /// [`VERSION`].
    pub version: u32,
    /// What the probes say.
    pub status: HealthStatus,
    /// How many failed in a row.
    pub failing_streak: u32,
    /// The last ones, the newest last.
    pub log: Vec<ProbeResult>,
}

impl HealthState {
    /// Before the first probe.
    #[must_use]
    pub fn starting() -> Self {
        Self {
            version: VERSION,
            status: HealthStatus::Starting,
            failing_streak: 0,
            log: Vec::new(),
        }
    }

    /// Takes a result in; `counts` is whether a failure counts. Whether the status has changed.
    pub fn add(&mut self, result: ProbeResult, counts: bool, retries: u32) -> bool {
        let before = self.status;
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if counts {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(result);
        let surplus = self.log.len().saturating_sub(RESULTS);
        self.log.drain(..surplus);
        self.status != before
    }

    /// Replaces the record in the container's directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), RecordError> {
        write_record(&dir.join(FILE), self, Durability::Atomic)
    }

    /// Reads the record in the container's directory.
    ///
    /// # Errors
    /// When it is absent or not such a record.
    pub fn read(dir: &Path) -> Result<Self, RecordError> {
        read_record(&dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> ProbeResult {
        ProbeResult {
            start: String::new(),
            end: String::new(),
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn failures_in_a_row_mean_unhealthy_and_one_success_healthy() {
        let mut state = HealthState::starting();
        assert!(!state.add(result(1), true, 2));
        assert!(state.add(result(0), true, 2));
        assert_eq!(state.status, HealthStatus::Healthy);
        assert!(!state.add(result(-1), true, 2));
        assert!(state.add(result(1), true, 2));
        assert_eq!(
            (state.status, state.failing_streak),
            (HealthStatus::Unhealthy, 2)
        );
        assert!(state.add(result(0), true, 2));
        for _ in 0..9 {
            state.add(result(0), true, 2);
        }
        assert_eq!(state.log.len(), RESULTS);
    }

    #[test]
    fn failure_that_does_not_count_changes_nothing_but_the_log() {
        let mut state = HealthState::starting();
        assert!(!state.add(result(1), false, 1));
        assert_eq!(
            (state.status, state.failing_streak),
            (HealthStatus::Starting, 0)
        );
        assert_eq!(state.log.len(), 1);
    }
}
