//! The health check of a request.

use std::time::Duration;

use engine::HealthOptions;

use crate::error::ApiError;
use crate::wire::create::Healthcheck;

/// What the engine is asked for.
pub(super) fn options(check: Option<&Healthcheck>) -> Result<HealthOptions, ApiError> {
    let Some(check) = check else {
        return Ok(HealthOptions::default());
    };
    let time = |nanoseconds: u64| (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds));
    let mut options = HealthOptions {
        interval: time(check.interval),
        timeout: time(check.timeout),
        retries: (check.retries > 0).then_some(check.retries),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        ..HealthOptions::default()
    };
    let rest = check.test.get(1..).unwrap_or_default();
    match (check.test.first().map(String::as_str), rest) {
        (None | Some(""), _) => {}
        (Some("NONE"), _) => {
            return Ok(HealthOptions {
                disabled: true,
                ..HealthOptions::default()
            });
        }
        (Some("CMD-SHELL"), [line]) => options.command = Some(line.clone()),
        (Some("CMD"), [_, ..]) => options.program = Some(rest.to_vec()),
        (Some(other), _) => {
            return Err(ApiError::bad(format!("unknown healthcheck test: {other}")));
        }
    }
    Ok(options)
}
