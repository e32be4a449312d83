//! The options of `run` and `create` about health.

use clap::Args;
use engine::HealthOptions;

use crate::render::Usage;
use crate::times;

/// Options about health, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Command that finds out whether the container is healthy; for wasm an address: http://localhost:PORT/PATH
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks (default 30s)
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// How long a check may take (default 30s)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// How many failures in a row mean unhealthy (default 3)
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time from the start in which failures do not count (default 0s)
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Time between two checks in the start period (default 5s)
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// Do not check the container's health, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
    /// Start the container again when it is unhealthy
    #[arg(long)]
    restart_on_unhealthy: bool,
}

impl HealthArgs {
    /// The engine's options.
    pub(crate) fn resolve(&self) -> Result<HealthOptions, Usage> {
        let time = |option: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => times::duration(text)
                .and_then(|time| std::time::Duration::try_from(time).ok())
                .map(Some)
                .ok_or_else(|| {
                    Usage(format!(
                        "cannot use {option} `{text}`: it is a time such as 30s or 1m30s"
                    ))
                }),
        };
        Ok(HealthOptions {
            command: self
                .health_cmd
                .clone()
                .filter(|command| !command.is_empty()),
            program: None,
            interval: time("--health-interval", &self.health_interval)?,
            timeout: time("--health-timeout", &self.health_timeout)?,
            retries: self.health_retries,
            start_period: time("--health-start-period", &self.health_start_period)?,
            start_interval: time("--health-start-interval", &self.health_start_interval)?,
            disabled: self.no_healthcheck,
            restart_on_unhealthy: self.restart_on_unhealthy,
        })
    }
}
