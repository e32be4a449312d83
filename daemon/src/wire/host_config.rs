//! `HostConfig` of a container's creation, and what of it can be changed later.

use std::collections::BTreeMap;

use engine::{Changes, LogOptions};
use runtime::RestartPolicy;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::read;
use crate::error::ApiError;

/// How a container stands on its host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HostConfig {
    pub(crate) binds: Vec<String>,
    pub(crate) log_config: LogConfig,
    pub(crate) network_mode: String,
    pub(crate) port_bindings: BTreeMap<String, Vec<PortBinding>>,
    pub(crate) restart_policy: Option<Value>,
    pub(crate) auto_remove: bool,
    pub(crate) volume_driver: String,
    pub(crate) volumes_from: Vec<String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) console_size: Vec<u16>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) cgroupns_mode: String,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) extra_hosts: Vec<String>,
    pub(crate) group_add: Vec<String>,
    pub(crate) ipc_mode: String,
    pub(crate) cgroup: String,
    pub(crate) links: Vec<String>,
    pub(crate) oom_score_adj: i32,
    pub(crate) pid_mode: String,
    pub(crate) privileged: bool,
    pub(crate) publish_all_ports: bool,
    pub(crate) readonly_rootfs: bool,
    pub(crate) security_opt: Vec<String>,
    pub(crate) storage_opt: BTreeMap<String, String>,
    pub(crate) tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode")]
    pub(crate) uts_mode: String,
    pub(crate) userns_mode: String,
    pub(crate) shm_size: i64,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) runtime: String,
    #[serde(flatten)]
    pub(crate) resources: Resources,
}

/// `LogConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct LogConfig {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) config: BTreeMap<String, String>,
}

impl LogConfig {
    pub(crate) fn options(self) -> LogOptions {
        let default = LogOptions::default();
        LogOptions {
            driver: match self.kind.is_empty() {
                true => default.driver,
                false => self.kind,
            },
            options: self.config,
        }
    }
}

/// Where a port is published.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct PortBinding {
    pub(crate) host_ip: String,
    pub(crate) host_port: String,
}

/// A mount. Unknown fields are refused: they would be ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Mount {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) consistency: String,
    pub(crate) bind_options: Option<BindOptions>,
    pub(crate) volume_options: Option<VolumeOptions>,
    pub(crate) tmpfs_options: Option<TmpfsOptions>,
    pub(crate) image_options: Option<ImageOptions>,
}

/// `BindOptions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct BindOptions {
    pub(crate) propagation: String,
    pub(crate) non_recursive: bool,
    pub(crate) create_mountpoint: bool,
    pub(crate) read_only_non_recursive: bool,
    pub(crate) read_only_force_recursive: bool,
}

/// `VolumeOptions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct VolumeOptions {
    pub(crate) no_copy: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) driver_config: Option<DriverConfig>,
    pub(crate) subpath: String,
}

/// `DriverConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct DriverConfig {
    pub(crate) name: String,
    pub(crate) options: BTreeMap<String, String>,
}

/// `TmpfsOptions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct TmpfsOptions {
    pub(crate) size_bytes: i64,
    pub(crate) mode: u32,
    pub(crate) options: Vec<Vec<String>>,
}

/// `ImageOptions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ImageOptions {
    pub(crate) subpath: String,
}

/// Limits. Zero means none, as Go writes what is absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Resources {
    pub(crate) memory: i64,
    pub(crate) memory_swap: i64,
    pub(crate) memory_reservation: i64,
    pub(crate) memory_swappiness: Option<i64>,
    pub(crate) kernel_memory: i64,
    pub(crate) nano_cpus: i64,
    pub(crate) cpu_shares: i64,
    pub(crate) cpu_period: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpu_realtime_period: i64,
    pub(crate) cpu_realtime_runtime: i64,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) cgroup_parent: String,
    pub(crate) blkio_weight: u16,
    pub(crate) blkio_weight_device: Vec<WeightDevice>,
    pub(crate) blkio_device_read_bps: Vec<ThrottleDevice>,
    pub(crate) blkio_device_write_bps: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub(crate) blkio_device_read_iops: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub(crate) blkio_device_write_iops: Vec<ThrottleDevice>,
    pub(crate) devices: Vec<Device>,
    pub(crate) device_cgroup_rules: Vec<String>,
    pub(crate) device_requests: Vec<Value>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) init: Option<bool>,
}

/// A device of the host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Device {
    pub(crate) path_on_host: String,
    pub(crate) path_in_container: String,
    pub(crate) cgroup_permissions: String,
}

/// A rate of a block device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ThrottleDevice {
    pub(crate) path: String,
    pub(crate) rate: u64,
}

/// A weight of a block device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct WeightDevice {
    pub(crate) path: String,
    pub(crate) weight: u16,
}

/// A resource limit.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

/// A number that is not zero.
pub(crate) fn given(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

/// A text that is not empty.
pub(crate) fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn positive(name: &str, number: i64) -> Result<Option<u64>, ApiError> {
    let bad = |_| ApiError::bad(format!("invalid {name}: {number}"));
    given(number).map(u64::try_from).transpose().map_err(bad)
}

impl Resources {
    /// What of a container is changed.
    pub(crate) fn changes(self) -> Result<Changes, ApiError> {
        if let Some(name) = self.first_fixed() {
            return Err(ApiError::bad(format!(
                "cannot change {name} of a container that exists"
            )));
        }
        Ok(Changes {
            memory_bytes: given(self.memory),
            memory_swap_bytes: given(self.memory_swap),
            memory_reservation_bytes: given(self.memory_reservation),
            nano_cpus: given(self.nano_cpus),
            cpu_shares: positive("CpuShares", self.cpu_shares)?,
            cpu_period_us: positive("CpuPeriod", self.cpu_period)?,
            cpu_quota_us: given(self.cpu_quota),
            cpuset_cpus: text(&self.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems),
            pids_limit: self.pids_limit.filter(|limit| *limit != 0),
            restart: None,
        })
    }

    /// The first that only a new container can be given.
    fn first_fixed(&self) -> Option<&'static str> {
        let given = [
            ("Devices", !self.devices.is_empty()),
            ("DeviceCgroupRules", !self.device_cgroup_rules.is_empty()),
            ("DeviceRequests", !self.device_requests.is_empty()),
            ("Ulimits", !self.ulimits.is_empty()),
            ("BlkioWeight", self.blkio_weight != 0),
            ("BlkioWeightDevice", !self.blkio_weight_device.is_empty()),
            ("BlkioDeviceReadBps", !self.blkio_device_read_bps.is_empty()),
            (
                "BlkioDeviceWriteBps",
                !self.blkio_device_write_bps.is_empty(),
            ),
            (
                "BlkioDeviceReadIOps",
                !self.blkio_device_read_iops.is_empty(),
            ),
            (
                "BlkioDeviceWriteIOps",
                !self.blkio_device_write_iops.is_empty(),
            ),
            ("CgroupParent", !self.cgroup_parent.is_empty()),
            ("Init", self.init == Some(true)),
            ("OomKillDisable", self.oom_kill_disable),
            ("KernelMemory", self.kernel_memory != 0),
            ("CpuRealtimePeriod", self.cpu_realtime_period != 0),
            ("CpuRealtimeRuntime", self.cpu_realtime_runtime != 0),
            ("MemorySwappiness", self.has_swappiness()),
        ];
        given
            .iter()
            .find(|(_, given)| *given)
            .map(|(name, _)| *name)
    }

    /// The command line writes -1 for what it was not given.
    pub(crate) fn has_swappiness(&self) -> bool {
        self.memory_swappiness.is_some_and(|value| value != -1)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Policy {
    name: String,
    maximum_retry_count: u32,
}

/// `RestartPolicy`.
pub(crate) fn restart_policy(value: Value) -> Result<RestartPolicy, ApiError> {
    let policy: Policy = read(value)?;
    let is_counted = policy.name == "on-failure";
    if policy.maximum_retry_count > 0 && !is_counted {
        return Err(ApiError::bad(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    let text = match policy.maximum_retry_count {
        0 => policy.name,
        count => format!("{}:{count}", policy.name),
    };
    text.parse().map_err(|_| {
        ApiError::bad(format!(
            "invalid restart policy: unknown policy '{text}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restart_policies_are_read() {
        let policy = |name: &str, count: u32| {
            restart_policy(json!({ "Name": name, "MaximumRetryCount": count }))
        };
        assert_eq!(policy("", 0).unwrap(), RestartPolicy::No);
        let max_retries = Some(2);
        assert_eq!(
            policy("on-failure", 2).unwrap(),
            RestartPolicy::OnFailure { max_retries }
        );
        assert!(policy("always", 2).is_err() && policy("maybe", 0).is_err());
    }

    #[test]
    fn unknown_field_of_a_mount_is_refused() {
        let config = json!({ "Mounts": [{ "Type": "bind", "Sorce": "/x" }] });
        let error = read::<HostConfig>(config).unwrap_err();
        assert!(error.message.contains("Sorce"), "{}", error.message);
        let config = json!({ "SomethingNew": 1, "Memory": 5, "BlkioDeviceReadIOps": [] });
        assert_eq!(read::<HostConfig>(config).unwrap().resources.memory, 5);
    }
}
