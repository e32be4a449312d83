//! `--log-driver` and `--log-opt`: checked when a container is created, planned when it is started.

use std::collections::BTreeMap;
use std::path::Path;

use runtime::{LogFilePlan, LogFormat, LogPlan};
use serde::{Deserialize, Serialize};

use crate::start::c_path;
use crate::{Engine, EngineError};

/// What the `local` driver keeps, as with Docker.
const LOCAL_MAX_BYTES: u64 = 20 << 20;
const LOCAL_MAX_FILES: u32 = 5;

/// How a container's output is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// `json-file`, `local` or `none`.
    pub driver: String,
    /// Options by name.
    pub options: BTreeMap<String, String>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            driver: "json-file".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

fn refuse(text: String) -> EngineError {
    EngineError::Unsupported(text)
}

impl LogOptions {
    /// Which form the files have, if there are any.
    pub(crate) fn format(&self) -> Option<LogFormat> {
        match self.driver.as_str() {
            "json-file" => Some(LogFormat::JsonFile),
            "local" => Some(LogFormat::Local),
            _ => None,
        }
    }

    /// The plan for a container with this environment.
    ///
    /// # Errors
    /// An unknown driver or option, or a value that makes no sense.
    pub(crate) fn plan(&self, engine: &Engine, env: &[String]) -> Result<LogPlan, EngineError> {
        let known: &[&str] = match self.driver.as_str() {
            "json-file" | "local" => &["max-size", "max-file", "compress", "env", "mode"],
            "none" => &[],
            other => {
                return Err(refuse(format!(
                    "cannot use --log-driver `{other}`: there are json-file, local and none"
                )));
            }
        };
        if let Some(key) = self
            .options
            .keys()
            .find(|key| !known.contains(&key.as_str()))
        {
            let driver = &self.driver;
            return Err(refuse(format!(
                "cannot use --log-opt `{key}`: the log driver {driver} has no such option"
            )));
        }
        let file = self.format().map(|format| self.file(engine, env, format));
        Ok(LogPlan {
            file: file.transpose()?,
        })
    }

    fn file(
        &self,
        engine: &Engine,
        env: &[String],
        format: LogFormat,
    ) -> Result<LogFilePlan, EngineError> {
        self.one_of("mode", &["blocking"], "blocking")?;
        let is_local = format == LogFormat::Local;
        let max_bytes = match self.options.get("max-size") {
            None if is_local => LOCAL_MAX_BYTES,
            None => 0,
            Some(text) if text == "-1" => 0,
            Some(text) => size(text).ok_or_else(|| self.bad("max-size", "a size, such as 10m"))?,
        };
        let max_files = match self.options.get("max-file") {
            None if is_local => LOCAL_MAX_FILES,
            None => 1,
            Some(_) if max_bytes == 0 => {
                return Err(refuse(
                    "cannot use --log-opt max-file without max-size: no file is ever full"
                        .to_owned(),
                ));
            }
            Some(text) => text
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| self.bad("max-file", "a number from 1 on"))?,
        };
        let default = if is_local { "true" } else { "false" };
        let compress = self.one_of("compress", &["true", "false"], default)? == "true";
        if compress && !is_local && (max_bytes == 0 || max_files < 2) {
            return Err(refuse(
                "cannot use --log-opt compress without max-size and a max-file of 2 or more: no file is ever complete"
                    .to_owned(),
            ));
        }
        Ok(LogFilePlan {
            format,
            max_bytes,
            max_files,
            compressor: compress.then(|| c_path(&engine.ketch)).transpose()?,
            attributes: self.attributes(env),
        })
    }

    /// `--log-opt env=A,B`: the variables that stand beside each line.
    fn attributes(&self, env: &[String]) -> BTreeMap<String, String> {
        let names = self.options.get("env").map_or("", String::as_str);
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        env.iter()
            .filter_map(|pair| pair.split_once('='))
            .filter(|(key, _)| names.contains(key))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn one_of<'a>(
        &'a self,
        key: &str,
        values: &[&str],
        default: &'a str,
    ) -> Result<&'a str, EngineError> {
        let value = self.options.get(key).map_or(default, String::as_str);
        if values.contains(&value) {
            return Ok(value);
        }
        Err(self.bad(key, &values.join(" or ")))
    }

    fn bad(&self, key: &str, wanted: &str) -> EngineError {
        let value = self.options.get(key).map_or("", String::as_str);
        refuse(format!(
            "cannot use --log-opt {key}=`{value}`: it is {wanted}"
        ))
    }
}

/// `10m`, `512k`, bytes.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower.get(digits.len()..)? {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (bytes > 0).then_some(bytes)
}

impl Engine {
    /// How a container's output is recorded.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn log_options(&self, container: &crate::Container) -> Result<LogOptions, EngineError> {
        let (_, launch) = self.stored(&container.config.id)?;
        Ok(launch.log)
    }

    /// Where a container's log is, when it is in files.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn log_path(
        &self,
        container: &crate::Container,
    ) -> Result<Option<std::path::PathBuf>, EngineError> {
        let has_files = self.log_options(container)?.format().is_some();
        let dir = self.layout().container(&container.config.id);
        Ok(has_files.then(|| dir.join(Path::new(runtime::LOG_NAME))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("10m"), Some(10 << 20));
        assert_eq!(size("512K"), Some(512 << 10));
        for bad in ["", "m", "0", "-1m", "1x"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
