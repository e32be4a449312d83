//! Health checks: a probe at a time, killed with everything that it has started when it takes too
//! long.
//!
//! ```text
//! waiting ── due ── probing ── ended ── recorded ── waiting
//!                      └────── too long ── recorded ── dying ── gone ──┘
//! ```

mod http;
mod program;
mod watch;

pub(crate) use watch::Health;

/// How a probe ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// 0 for success.
    pub(crate) exit_code: i32,
    /// What it printed.
    pub(crate) output: Vec<u8>,
}

impl Outcome {
    /// It could not be run.
    fn failed(why: &str) -> Self {
        Self {
            exit_code: -1,
            output: why.as_bytes().to_vec(),
        }
    }
}
