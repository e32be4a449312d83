//! Image configs (image-spec v1.1.1 `config.md`), read tolerantly: absent and `null` fields are
//! empty, and the config of a CNCF wasm artifact, which has neither command nor rootfs, is one too.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::platform::Platform;

/// The config of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor architecture, as written.
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    /// Operating system, as written.
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How containers of it are run.
    #[serde(deserialize_with = "or_default")]
    pub config: RunConfig,
    /// Its layers, uncompressed.
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// How its layers came to be, the lowest first.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Wasm artifacts: the layers' digests.
    #[serde(
        rename = "layerDigests",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub layer_digests: Vec<String>,
    /// Wasm artifacts: imports, exports and target world of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<Value>,
    /// What its layers were made from, for other builds: the builder's own.
    #[serde(
        rename = "ketch.buildcache.v1",
        skip_serializing_if = "Option::is_none"
    )]
    pub build_cache: Option<Value>,
}

impl ImageConfig {
    /// The platform that the config names.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// How containers of an image are run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// User and group, by name or number: `user[:group]`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Ports that it serves: `80/tcp`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// Environment: `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What is always run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the whole command without an entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that hold data.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Value>,
    /// Working directory.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Labels.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Docker: seconds to wait after the stop signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u32>,
    /// Docker: how its health is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: the shell of shell-form commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Docker: instructions for images that are built upon it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
}

/// Docker's health check. Durations are nanoseconds; 0 means the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and a command, or `CMD-SHELL` and a shell line.
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Time between two checks.
    pub interval: i64,
    /// How long one check may take.
    pub timeout: i64,
    /// Time in which failures do not count.
    pub start_period: i64,
    /// Time between two checks at the start.
    pub start_interval: i64,
    /// How many failures in a row mean unhealthy.
    pub retries: i64,
}

/// The layers of a root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Diff IDs, the lowest first.
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

/// `null` means the same as an absent field: Docker writes both.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_of_docker_with_nulls_is_read() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],
                "Labels":null,"Volumes":null,"Entrypoint":null,"Domainname":""},
                "rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn config_of_wasm_artifact_is_read() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"created":"2025-01-01T00:00:00Z","architecture":"wasm","os":"wasip2",
                "layerDigests":["sha256:00"],"component":{"exports":[],"imports":[]}}"#,
        )
        .unwrap();
        assert_eq!(config.platform(), Platform::wasi());
        assert!(config.rootfs.diff_ids.is_empty());
        assert!(config.component.is_some());
    }
}
