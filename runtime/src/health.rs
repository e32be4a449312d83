//! How it is found out whether a container is healthy.

use serde::{Deserialize, Serialize};

use crate::plan::ProcessPlan;

/// A health check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthPlan {
    /// What is done.
    pub probe: ProbePlan,
    /// Milliseconds from the end of one probe to the next.
    pub interval_ms: u64,
    /// Milliseconds that a probe may take.
    pub timeout_ms: u64,
    /// Milliseconds from the start in which failures do not count.
    pub start_period_ms: u64,
    /// The interval in that time, until a probe has succeeded.
    pub start_interval_ms: u64,
    /// How many failures in a row mean unhealthy.
    pub retries: u32,
    /// An unhealthy container is started again.
    pub restart_on_unhealthy: bool,
}

/// What a probe does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ProbePlan {
    /// It runs a program in the container; exit code 0 means healthy.
    Program(Box<ProcessPlan>),
    /// It asks an HTTP server on the container's loopback address; a status below 400 means healthy.
    Http {
        /// The port.
        port: u16,
        /// What is asked for, from `/` on.
        target: String,
    },
}
