//! `--log-driver` and `--log-opt`: checked when a container is created, planned when it is started.
//! Drivers that send lines elsewhere are in `receiver`.

use std::collections::BTreeMap;
use std::path::Path;

use runtime::{LogFilePlan, LogFormat, LogPlan, LogReceiver};
use serde::{Deserialize, Serialize};
use state::ContainerConfig;

use crate::start::c_path;
use crate::{Engine, EngineError};

/// All drivers.
const DRIVERS: [&str; 6] = [
    "json-file",
    "local",
    "none",
    "syslog",
    "fluentd",
    "journald",
];

/// What the `local` driver keeps, as with Docker.
const LOCAL_MAX_BYTES: u64 = 20 << 20;
const LOCAL_MAX_FILES: u32 = 5;

/// A ring's size where none is given, as with Docker.
const RING_BYTES: u64 = 1 << 20;

/// What every driver with lines to mark takes.
const MARKS: [&str; 3] = ["env", "labels", "tag"];

/// How lines come to a driver.
const DELIVERY: [&str; 2] = ["mode", "max-buffer-size"];

/// What is kept here of a log that is sent elsewhere, so that `logs` can show it.
const CACHE: [&str; 4] = [
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];

/// Whose output is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogSubject<'a> {
    /// Its configuration; none before it exists.
    pub(crate) config: Option<&'a ContainerConfig>,
    /// Its environment.
    pub(crate) env: &'a [String],
}

/// How a container's output is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// `json-file`, `local`, `none`, `syslog`, `fluentd` or `journald`.
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

pub(super) fn refuse(text: String) -> EngineError {
    EngineError::Unsupported(text)
}

impl LogOptions {
    /// Whether there is such a driver.
    #[must_use]
    pub fn is_driver(name: &str) -> bool {
        DRIVERS.contains(&name)
    }

    /// Which form the files have, if there are any.
    pub(crate) fn format(&self) -> Option<LogFormat> {
        let is_cached = self.option("cache-disabled") != Some("true");
        match self.driver.as_str() {
            "json-file" => Some(LogFormat::JsonFile),
            "local" => Some(LogFormat::Local),
            "syslog" | "fluentd" | "journald" if is_cached => Some(LogFormat::Local),
            _ => None,
        }
    }

    /// The plan for a container.
    ///
    /// # Errors
    /// An unknown driver or option, or a value that makes no sense.
    pub(crate) fn plan(
        &self,
        engine: &Engine,
        subject: LogSubject<'_>,
    ) -> Result<LogPlan, EngineError> {
        self.check_names()?;
        self.one_of("cache-disabled", &["true", "false"], "false")?;
        let tag = self.tag(subject)?;
        let attributes = self.attributes(subject);
        let receiver = self.receiver(tag.clone(), attributes.clone(), subject.config)?;
        let file = match self.format() {
            Some(format) => {
                let mut plan = self.file(engine, format, &receiver)?;
                plan.attributes = attributes;
                if self.option("tag").is_some() {
                    plan.attributes.insert("tag".to_owned(), tag);
                }
                Some(plan)
            }
            None => None,
        };
        Ok(LogPlan {
            file,
            receiver,
            ring_bytes: self.ring()?,
        })
    }

    fn check_names(&self) -> Result<(), EngineError> {
        let own: &[&str] = match self.driver.as_str() {
            "json-file" | "local" => &["max-size", "max-file", "compress"],
            "syslog" => &["syslog-address", "syslog-facility", "syslog-format"],
            "fluentd" => &[
                "fluentd-address",
                "fluentd-async",
                "fluentd-sub-second-precision",
            ],
            "journald" | "none" => &[],
            other => {
                return Err(refuse(format!(
                    "cannot use --log-driver `{other}`: there are json-file, local, none, syslog, fluentd and journald"
                )));
            }
        };
        let shared: &[&[&str]] = match self.driver.as_str() {
            "none" => &[],
            "json-file" | "local" => &[&MARKS, &DELIVERY],
            _ => &[&MARKS, &DELIVERY, &CACHE],
        };
        let known = |key: &str| own.contains(&key) || shared.iter().any(|keys| keys.contains(&key));
        match self.options.keys().find(|key| !known(key)) {
            None => Ok(()),
            Some(key) => Err(refuse(format!(
                "cannot use --log-opt `{key}`: the log driver {} has no such option",
                self.driver
            ))),
        }
    }

    /// `mode=non-blocking`: how many bytes wait at most.
    fn ring(&self) -> Result<Option<u64>, EngineError> {
        let mode = self.one_of("mode", &["blocking", "non-blocking"], "blocking")?;
        match (mode, self.option("max-buffer-size")) {
            ("non-blocking", None) => Ok(Some(RING_BYTES)),
            ("non-blocking", Some(text)) => size(text)
                .map(Some)
                .ok_or_else(|| self.bad("max-buffer-size", "a size, such as 4m")),
            (_, None) => Ok(None),
            (_, Some(_)) => Err(refuse(
                "cannot use --log-opt max-buffer-size without mode=non-blocking".to_owned(),
            )),
        }
    }

    fn file(
        &self,
        engine: &Engine,
        format: LogFormat,
        receiver: &Option<LogReceiver>,
    ) -> Result<LogFilePlan, EngineError> {
        let [max_size, max_file, compressed] = match receiver {
            None => ["max-size", "max-file", "compress"],
            Some(_) => ["cache-max-size", "cache-max-file", "cache-compress"],
        };
        let is_local = format == LogFormat::Local;
        let max_bytes = match self.option(max_size) {
            None if is_local => LOCAL_MAX_BYTES,
            None => 0,
            Some("-1") => 0,
            Some(text) => size(text).ok_or_else(|| self.bad(max_size, "a size, such as 10m"))?,
        };
        let max_files = match self.option(max_file) {
            None if is_local => LOCAL_MAX_FILES,
            None => 1,
            // As with Docker, one file is what there is without a size.
            Some("1") => 1,
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
                .ok_or_else(|| self.bad(max_file, "a number from 1 on"))?,
        };
        let default = if is_local { "true" } else { "false" };
        let compress = self.one_of(compressed, &["true", "false"], default)? == "true";
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
            attributes: BTreeMap::new(),
        })
    }

    /// `env=A,B` and `labels=C,D`: the variables and labels that stand beside each line.
    fn attributes(&self, subject: LogSubject<'_>) -> BTreeMap<String, String> {
        let named = |key: &str| -> Vec<&str> {
            let names = self.option(key).unwrap_or_default();
            names.split(',').map(str::trim).collect()
        };
        let (variables, labels) = (named("env"), named("labels"));
        let own = subject.config.iter().flat_map(|config| &config.labels);
        let own = own.filter(|(key, _)| labels.contains(&key.as_str()));
        let env = subject.env.iter().filter_map(|pair| pair.split_once('='));
        let env = env.filter(|(key, _)| variables.contains(key));
        own.map(|(key, value)| (key.clone(), value.clone()))
            .chain(env.map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect()
    }

    /// `tag`: Docker's template, of which there are the fields.
    fn tag(&self, subject: LogSubject<'_>) -> Result<String, EngineError> {
        let wanted = self.option("tag").unwrap_or("{{.ID}}");
        let (id, name, image, image_id) = match subject.config {
            Some(config) => (
                &*config.id,
                &*config.name,
                &*config.image,
                &*config.image_id,
            ),
            None => ("", "", "", ""),
        };
        let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
        let image_hex = image_id.strip_prefix("sha256:").unwrap_or(image_id);
        let mut tag = String::new();
        let mut rest = wanted;
        while let Some((before, after)) = rest.split_once("{{") {
            let field = after
                .split_once("}}")
                .map(|(field, tail)| (field.trim(), tail));
            let (value, tail) = match field {
                Some((".ID", tail)) => (short(id), tail),
                Some((".FullID", tail)) => (id.to_owned(), tail),
                Some((".Name", tail)) => (name.to_owned(), tail),
                Some((".ImageName", tail)) => (image.to_owned(), tail),
                Some((".ImageID", tail)) => (short(image_hex), tail),
                Some((".ImageFullID", tail)) => (image_id.to_owned(), tail),
                Some((".DaemonName", tail)) => ("ketch".to_owned(), tail),
                _ => {
                    return Err(self.bad(
                        "tag",
                        "text with {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageName}}, {{.ImageID}}, {{.ImageFullID}} or {{.DaemonName}} in it",
                    ));
                }
            };
            tag.push_str(before);
            tag.push_str(&value);
            rest = tail;
        }
        tag.push_str(rest);
        Ok(tag)
    }

    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    pub(super) fn one_of<'a>(
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

    pub(super) fn bad(&self, key: &str, wanted: &str) -> EngineError {
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
        Ok(self.launch_of(&container.config.id)?.log)
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
