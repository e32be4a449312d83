//! Numbers about the daemon in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::Engine;

/// Upper bounds of durations in microseconds, with their spelling in seconds.
const BOUNDS: [(u64, &str); 9] = [
    (1_000, "0.001"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];

/// The requests of one route.
#[derive(Debug, Default)]
struct Requests {
    by_status: BTreeMap<u16, u64>,
    by_bound: [u64; BOUNDS.len()],
    microseconds: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By method and pattern of the route: both are from the table, so their number is bounded.
    requests: Mutex<BTreeMap<(&'static str, &'static str), Requests>>,
    pub(crate) connections: AtomicU64,
    pub(crate) open_connections: AtomicU64,
    pub(crate) running_requests: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) denied: AtomicU64,
}

impl Metrics {
    /// Counts a request, up to the head of its answer.
    pub(crate) fn answered(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry((method, route)).or_default();
        *own.by_status.entry(status).or_default() += 1;
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        own.microseconds = own.microseconds.saturating_add(took);
        for (count, (bound, _)) in own.by_bound.iter_mut().zip(BOUNDS) {
            *count += u64::from(took <= bound);
        }
    }

    /// The text; what is asked of the engine is asked now.
    pub(crate) fn text(&self, engine: &Engine, version: &str) -> String {
        let mut text = Text::default();
        text.head("ketch_build_info", "gauge", "The version that runs.");
        text.line("ketch_build_info", &[("version", version)], 1);
        self.write_requests(&mut text);
        let counters = [
            (
                "ketch_connections_total",
                "Connections that were taken.",
                &self.connections,
            ),
            (
                "ketch_panics_total",
                "Requests that ended in a panic.",
                &self.panics,
            ),
            (
                "ketch_denied_total",
                "Requests that a socket's policy has refused.",
                &self.denied,
            ),
        ];
        for (name, help, value) in counters {
            text.head(name, "counter", help);
            text.line(name, &[], value.load(Ordering::Relaxed));
        }
        let gauges = [
            (
                "ketch_open_connections",
                "Connections that are open.",
                &self.open_connections,
            ),
            (
                "ketch_running_requests",
                "Requests without an answer yet.",
                &self.running_requests,
            ),
        ];
        for (name, help, value) in gauges {
            text.head(name, "gauge", help);
            text.line(name, &[], value.load(Ordering::Relaxed));
        }
        let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
        match engine.containers() {
            Ok(containers) => {
                for container in containers {
                    let state = engine::status_word(container.state.status);
                    *by_state.entry(state).or_default() += 1;
                }
                text.head("ketch_containers", "gauge", "Containers by state.");
                for (state, count) in by_state {
                    text.line("ketch_containers", &[("state", &state)], count);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot count containers"),
        }
        process(&mut text);
        text.0
    }

    fn write_requests(&self, text: &mut Text) {
        let all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "ketch_requests_total";
        text.head(name, "counter", "Requests that were answered.");
        for ((method, route), own) in all.iter() {
            for (status, count) in &own.by_status {
                let status = status.to_string();
                let labels = [("method", *method), ("route", *route), ("code", &status)];
                text.line(name, &labels, *count);
            }
        }
        let name = "ketch_request_seconds";
        text.head(
            name,
            "histogram",
            "Time from a request to the head of its answer.",
        );
        for ((method, route), own) in all.iter() {
            let labels = [("method", *method), ("route", *route)];
            let total: u64 = own.by_status.values().sum();
            let bounds = BOUNDS.iter().map(|(_, spelled)| *spelled).zip(own.by_bound);
            for (bound, count) in bounds.chain([("+Inf", total)]) {
                let [method, route] = labels;
                text.line(
                    &format!("{name}_bucket"),
                    &[method, route, ("le", bound)],
                    count,
                );
            }
            let (whole, rest) = (own.microseconds / 1_000_000, own.microseconds % 1_000_000);
            text.line(
                &format!("{name}_sum"),
                &labels,
                format!("{whole}.{rest:06}"),
            );
            text.line(&format!("{name}_count"), &labels, total);
        }
    }
}

/// What the kernel says of the daemon itself (proc(5)), under the names that all of Prometheus' clients use.
fn process(text: &mut Text) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    if let Some(pages) = pages {
        let size = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let name = "process_resident_memory_bytes";
        text.head(name, "gauge", "Resident memory.");
        text.line(name, &[], pages.saturating_mul(size));
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        text.head("process_open_fds", "gauge", "Open descriptors.");
        text.line("process_open_fds", &[], entries.count());
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _never = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _never = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A value of a label.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_status_and_duration() {
        let metrics = Metrics::default();
        let answer = |status, ms| {
            metrics.answered("GET", "info", status, Duration::from_millis(ms));
        };
        answer(200, 3);
        answer(200, 2_500);
        answer(500, 60_000);
        let mut text = Text::default();
        metrics.write_requests(&mut text);
        for line in [
            "# TYPE ketch_requests_total counter",
            r#"ketch_requests_total{method="GET",route="info",code="200"} 2"#,
            r#"ketch_requests_total{method="GET",route="info",code="500"} 1"#,
            r#"ketch_request_seconds_bucket{method="GET",route="info",le="0.001"} 0"#,
            r#"ketch_request_seconds_bucket{method="GET",route="info",le="0.005"} 1"#,
            r#"ketch_request_seconds_bucket{method="GET",route="info",le="10"} 2"#,
            r#"ketch_request_seconds_bucket{method="GET",route="info",le="+Inf"} 3"#,
            r#"ketch_request_seconds_sum{method="GET",route="info"} 62.503000"#,
            r#"ketch_request_seconds_count{method="GET",route="info"} 3"#,
        ] {
            assert!(text.0.lines().any(|own| own == line), "{line}: {}", text.0);
        }
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }
}
