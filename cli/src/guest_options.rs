//! The options of a wasm guest, whatever stands around it.

use clap::Args;

use crate::render::Usage;

/// Options of wasm guests.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of wasm images")]
pub(crate) struct GuestArgs {
    /// Call this export instead of the entry point (components: NAME or INTERFACE#NAME)
    #[arg(long, value_name = "EXPORT")]
    pub(crate) invoke: Option<String>,
    /// End the guest, or one HTTP request, after this time: 500ms, 10s, 2m
    #[arg(long, value_name = "TIME")]
    pub(crate) wasm_timeout: Option<String>,
    /// End the guest after so many units of work, about one an instruction
    #[arg(long, value_name = "UNITS")]
    pub(crate) wasm_fuel: Option<u64>,
    /// The same input gives the same output: clocks, random numbers and NaNs are fixed
    #[arg(long)]
    pub(crate) wasm_deterministic: bool,
    /// Give the guest no directory at all
    #[arg(long)]
    pub(crate) wasm_no_files: bool,
    /// Where an HTTP component listens (default: the port the image exposes, or 8080)
    #[arg(long, value_name = "PORT")]
    pub(crate) wasm_http_port: Option<u16>,
    /// How many requests an instance answers before a fresh one is made (default: 1)
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) wasm_http_reuse: Option<u32>,
    /// How many requests are answered at once (default: 128)
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) wasm_http_concurrency: Option<u32>,
    /// A value that `wasi:config` shows to the guest (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) wasm_config: Vec<String>,
    /// Grant `wasi:keyvalue`, in memory
    #[arg(long)]
    pub(crate) wasm_keyvalue: bool,
    /// Grant `wasi:logging`, to standard error
    #[arg(long)]
    pub(crate) wasm_logging: bool,
}

impl GuestArgs {
    /// `--wasm-timeout`.
    pub(crate) fn timeout_ms(&self) -> Result<Option<u64>, Usage> {
        self.wasm_timeout.as_deref().map(milliseconds).transpose()
    }

    /// `--wasm-http-reuse`.
    pub(crate) fn http_reuse(&self) -> Result<Option<u32>, Usage> {
        positive(self.wasm_http_reuse, "--wasm-http-reuse")
    }

    /// `--wasm-http-concurrency`.
    pub(crate) fn http_concurrency(&self) -> Result<Option<u32>, Usage> {
        positive(self.wasm_http_concurrency, "--wasm-http-concurrency")
    }

    /// `--wasm-config`.
    pub(crate) fn config(&self) -> Result<Vec<(String, String)>, Usage> {
        let given = self.wasm_config.iter();
        given
            .map(|text| pair(text, "--wasm-config", "KEY=VALUE"))
            .collect()
    }
}

fn positive(value: Option<u32>, flag: &str) -> Result<Option<u32>, Usage> {
    match value {
        Some(0) => Err(Usage(format!(
            "cannot use {flag} `0`: at least 1 is needed"
        ))),
        value => Ok(value),
    }
}

/// A key and its value.
pub(crate) fn pair(text: &str, flag: &str, form: &str) -> Result<(String, String), Usage> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Usage(format!("cannot use {flag} `{text}`: it is {form}"))),
    }
}

/// A time with its unit; seconds without one.
fn milliseconds(text: &str) -> Result<u64, Usage> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let value = digits.parse::<u64>().ok().zip(factor);
    value
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|value| *value > 0)
        .ok_or_else(|| {
            Usage(format!(
                "cannot use --wasm-timeout `{text}`: it is a number with ms, s, m or h"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_with_units() {
        let rows = [("250ms", 250), ("3", 3_000), ("2s", 2_000), ("1m", 60_000)];
        for (text, expected) in rows {
            assert_eq!(milliseconds(text).unwrap(), expected);
        }
        for bad in ["", "s", "0", "-1s", "1d", "1.5s"] {
            assert!(milliseconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn config_value_may_hold_an_equals_sign() {
        let pair = |text| pair(text, "--flag", "KEY=VALUE");
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
