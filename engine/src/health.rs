//! Health checks: from the image and the user's options to what the container's monitor does.

use std::time::Duration;

use image::{Healthcheck, RunConfig};
use oci_spec::runtime::Spec;
use runtime::{HealthPlan, InitPlan, ProbePlan};
use serde::{Deserialize, Serialize};
use state::HealthState;

use crate::{Container, Engine, EngineError};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Docker's least.
const LEAST: Duration = Duration::from_millis(1);

/// What is asked for about health besides what the image says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// `--health-cmd`: a line for the shell, or for a wasm container an `http://` address.
    pub command: Option<String>,
    /// A program with its arguments in place of a line; no wasm container has one.
    pub program: Option<Vec<String>>,
    /// `--health-interval`.
    pub interval: Option<Duration>,
    /// `--health-timeout`.
    pub timeout: Option<Duration>,
    /// `--health-retries`.
    pub retries: Option<u32>,
    /// `--health-start-period`.
    pub start_period: Option<Duration>,
    /// `--health-start-interval`.
    pub start_interval: Option<Duration>,
    /// `--no-healthcheck`.
    pub disabled: bool,
    /// `--restart-on-unhealthy`.
    pub restart_on_unhealthy: bool,
}

/// The health check of a container: what `launch.json` keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `CMD` and a program with its arguments, `CMD-SHELL` and a line, or `HTTP` and an address.
    pub test: Vec<String>,
    /// The shell for a line.
    pub shell: Vec<String>,
    /// From the end of one probe to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How many failures in a row mean unhealthy.
    pub retries: u32,
    /// From the start: failures do not count in it.
    pub start_period: Duration,
    /// The interval in that time.
    pub start_interval: Duration,
    /// An unhealthy container is started again.
    pub restart_on_unhealthy: bool,
}

fn refuse<T>(text: &str) -> Result<T, EngineError> {
    Err(EngineError::Unsupported(text.to_owned()))
}

impl HealthOptions {
    /// The first of the options that only change a health check.
    fn first_detail(&self) -> Option<&'static str> {
        let given = [
            (
                "--health-cmd",
                self.command.is_some() || self.program.is_some(),
            ),
            ("--health-interval", self.interval.is_some()),
            ("--health-timeout", self.timeout.is_some()),
            ("--health-retries", self.retries.is_some()),
            ("--health-start-period", self.start_period.is_some()),
            ("--health-start-interval", self.start_interval.is_some()),
            ("--restart-on-unhealthy", self.restart_on_unhealthy),
        ];
        given
            .iter()
            .find(|(_, given)| *given)
            .map(|(name, _)| *name)
    }

    /// The health check of a container of this image; `None` without one.
    ///
    /// # Errors
    /// Options that contradict each other, or that change a check that there is not.
    pub(crate) fn check(
        &self,
        config: &RunConfig,
        is_wasm: bool,
    ) -> Result<Option<HealthCheck>, EngineError> {
        if self.disabled {
            return match self.first_detail() {
                Some(option) => refuse(&format!("cannot use {option} with --no-healthcheck")),
                None => Ok(None),
            };
        }
        let image = config.healthcheck.clone().unwrap_or_default();
        let Some(test) = self.test(&image, is_wasm)? else {
            return match self.first_detail() {
                Some(option) => refuse(&format!(
                    "cannot use {option}: neither the image nor --health-cmd says what is checked"
                )),
                None => Ok(None),
            };
        };
        let or_image = |given: Option<Duration>, image: i64, default: Duration| {
            let image = u64::try_from(image).ok().filter(|nanos| *nanos > 0);
            given.or(image.map(Duration::from_nanos)).unwrap_or(default)
        };
        let retries = u32::try_from(image.retries).ok().filter(|n| *n > 0);
        let check = HealthCheck {
            test,
            shell: config
                .shell
                .clone()
                .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]),
            interval: or_image(self.interval, image.interval, INTERVAL),
            timeout: or_image(self.timeout, image.timeout, TIMEOUT),
            retries: self.retries.or(retries).unwrap_or(RETRIES).max(1),
            start_period: or_image(self.start_period, image.start_period, Duration::ZERO),
            start_interval: or_image(self.start_interval, image.start_interval, START_INTERVAL),
            restart_on_unhealthy: self.restart_on_unhealthy,
        };
        let times = [
            ("--health-interval", check.interval),
            ("--health-timeout", check.timeout),
            ("--health-start-interval", check.start_interval),
        ];
        match times.iter().find(|(_, time)| *time < LEAST) {
            Some((option, _)) => refuse(&format!("cannot use {option}: the least is 1ms")),
            None => Ok(Some(check)),
        }
    }

    /// What is checked.
    fn test(&self, image: &Healthcheck, is_wasm: bool) -> Result<Option<Vec<String>>, EngineError> {
        if let Some(command) = &self.command {
            if !is_wasm {
                return Ok(Some(vec!["CMD-SHELL".to_owned(), command.clone()]));
            }
            address(command)?;
            return Ok(Some(vec!["HTTP".to_owned(), command.clone()]));
        }
        if let Some(program) = &self.program {
            if is_wasm {
                return refuse("cannot check health with a program: a wasm container has none");
            }
            let kind = std::iter::once("CMD".to_owned());
            return Ok(Some(kind.chain(program.iter().cloned()).collect()));
        }
        match image.test.first().map(String::as_str) {
            // A wasm container has no program that could be run (see `Created::warnings`).
            Some("CMD" | "CMD-SHELL") if !is_wasm && image.test.len() > 1 => {
                Ok(Some(image.test.clone()))
            }
            Some(other) if !["CMD", "CMD-SHELL", "NONE"].contains(&other) => {
                refuse(&format!("cannot use the image's health check `{other}`"))
            }
            _ => Ok(None),
        }
    }

    /// What a wasm container's author should know about the image's own check.
    pub(crate) fn warning(&self, config: &RunConfig, is_wasm: bool) -> Option<String> {
        let image = config.healthcheck.as_ref()?;
        let has_program = matches!(image.test.first()?.as_str(), "CMD" | "CMD-SHELL");
        (is_wasm && has_program && self.command.is_none() && self.program.is_none() && !self.disabled).then(|| {
            "the image's health check is a program, which a wasm container cannot run: give an address, such as --health-cmd http://localhost:8080/"
                .to_owned()
        })
    }
}

/// Port and target of `http://localhost[:PORT][/PATH]`.
fn address(text: &str) -> Result<(u16, String), EngineError> {
    let parsed = text.strip_prefix("http://").and_then(|rest| {
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, target) = rest.split_at(at);
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        let is_local = ["localhost", "127.0.0.1"].contains(&name);
        let is_clean = target.bytes().all(|byte| byte.is_ascii_graphic());
        let target = if target.is_empty() { "/" } else { target };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (is_local && is_clean).then(|| (port, target.to_owned()))
    });
    match parsed {
        Some(parsed) => Ok(parsed),
        None => refuse(&format!(
            "cannot use --health-cmd `{text}`: a wasm container has no programs; it is asked over HTTP, by an address such as http://localhost:8080/health"
        )),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl HealthCheck {
    /// What the monitor does. `plan` makes a plan of the container's specification with other
    /// arguments.
    pub(crate) fn plan(
        &self,
        spec: &Spec,
        plan: impl FnOnce(&Spec) -> Result<InitPlan, EngineError>,
    ) -> Result<HealthPlan, EngineError> {
        let (kind, rest) = self
            .test
            .split_first()
            .ok_or_else(|| EngineError::Unsupported("the health check is empty".to_owned()))?;
        let probe = match kind.as_str() {
            "HTTP" => {
                let (port, target) = address(rest.first().map_or("", String::as_str))?;
                ProbePlan::Http { port, target }
            }
            kind => {
                let mut args = if kind == "CMD" {
                    Vec::new()
                } else {
                    self.shell.clone()
                };
                args.extend_from_slice(rest);
                let mut spec = spec.clone();
                if let Some(process) = spec.process_mut() {
                    process.set_args(Some(args)).set_terminal(Some(false));
                }
                ProbePlan::Program(Box::new(plan(&spec)?.process))
            }
        };
        Ok(HealthPlan {
            probe,
            interval_ms: milliseconds(self.interval),
            timeout_ms: milliseconds(self.timeout),
            start_period_ms: milliseconds(self.start_period),
            start_interval_ms: milliseconds(self.start_interval),
            retries: self.retries,
            restart_on_unhealthy: self.restart_on_unhealthy,
        })
    }
}

impl Engine {
    /// A container's health check; `None` without one.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn health_check(&self, container: &Container) -> Result<Option<HealthCheck>, EngineError> {
        Ok(self.launch_of(&container.config.id)?.health)
    }

    /// What the probes of a container have said; `None` before its first start, and without a check.
    #[must_use]
    pub fn health(&self, container: &Container) -> Option<HealthState> {
        HealthState::read(&self.layout().container(&container.config.id)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(test: &[&str]) -> RunConfig {
        RunConfig {
            healthcheck: Some(Healthcheck {
                test: test.iter().map(|&text| text.to_owned()).collect(),
                interval: 7_000_000_000,
                ..Healthcheck::default()
            }),
            ..RunConfig::default()
        }
    }

    #[test]
    fn flags_go_over_the_image_and_the_image_over_defaults() {
        let options = HealthOptions {
            retries: Some(9),
            ..HealthOptions::default()
        };
        let check = options.check(&image(&["CMD", "/check"]), false).unwrap();
        let check = check.unwrap();
        assert_eq!(check.test, ["CMD", "/check"]);
        assert_eq!((check.interval.as_secs(), check.retries), (7, 9));
        assert_eq!(check.timeout, TIMEOUT);
        let none = HealthOptions::default();
        assert_eq!(none.check(&image(&["NONE"]), false).unwrap(), None);
        assert_eq!(none.check(&RunConfig::default(), false).unwrap(), None);
    }

    #[test]
    fn options_without_a_check_are_refused() {
        let options = HealthOptions {
            interval: Some(INTERVAL),
            ..HealthOptions::default()
        };
        assert!(options.check(&RunConfig::default(), false).is_err());
        let options = HealthOptions {
            disabled: true,
            ..options
        };
        assert!(options.check(&image(&["CMD", "/check"]), false).is_err());
    }

    #[test]
    fn wasm_container_is_asked_over_http() {
        assert_eq!(address("http://localhost:8080/health?x=1").unwrap().0, 8080);
        assert_eq!(address("http://127.0.0.1").unwrap(), (80, "/".to_owned()));
        for bad in [
            "curl http://localhost",
            "https://localhost/",
            "http://example.org/",
            "http://localhost:0/",
            "http://localhost/a b",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        let none = HealthOptions::default();
        let config = image(&["CMD-SHELL", "curl localhost"]);
        assert_eq!(none.check(&config, true).unwrap(), None);
        assert!(none.warning(&config, true).is_some());
    }
}
