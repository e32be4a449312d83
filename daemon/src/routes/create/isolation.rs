//! What stands between a container and its host: security options, and the refusal of what the
//! engine cannot do.

use crate::error::ApiError;
use crate::wire::host_config::HostConfig;

/// Refuses the first field that cannot be honoured.
pub(super) fn refuse(host: &HostConfig) -> Result<(), ApiError> {
    for option in &host.security_opt {
        if no_new_privileges_of(option).is_none() && !is_default(option) {
            return Err(ApiError::bad(format!(
                "invalid --security-opt: \"{option}\""
            )));
        }
    }
    let resources = &host.resources;
    let is_own = |mode: &str| ["", "private", "shareable"].contains(&mode);
    let given = [
        ("CapAdd", !host.cap_add.is_empty()),
        ("CapDrop", !host.cap_drop.is_empty()),
        ("Privileged", host.privileged),
        ("GroupAdd", !host.group_add.is_empty()),
        ("IpcMode", !is_own(&host.ipc_mode)),
        ("PidMode", !is_own(&host.pid_mode)),
        ("UTSMode", !is_own(&host.uts_mode)),
        ("CgroupnsMode", !is_own(&host.cgroupns_mode)),
        (
            "UsernsMode",
            !["", "host"].contains(&host.userns_mode.as_str()),
        ),
        ("Cgroup", !host.cgroup.is_empty()),
        ("OomScoreAdj", host.oom_score_adj != 0),
        ("StorageOpt", !host.storage_opt.is_empty()),
        ("ShmSize", ![0, 64 << 20].contains(&host.shm_size)),
        ("Sysctls", !host.sysctls.is_empty()),
        ("MemorySwap", resources.memory_swap != 0),
        ("MemoryReservation", resources.memory_reservation != 0),
        ("MemorySwappiness", resources.has_swappiness()),
        ("KernelMemory", resources.kernel_memory != 0),
        ("CpuShares", resources.cpu_shares != 0),
        ("CpuPeriod", resources.cpu_period != 0),
        ("CpuQuota", resources.cpu_quota != 0),
        ("CpuRealtimePeriod", resources.cpu_realtime_period != 0),
        ("CpuRealtimeRuntime", resources.cpu_realtime_runtime != 0),
        ("CpusetCpus", !resources.cpuset_cpus.is_empty()),
        ("CpusetMems", !resources.cpuset_mems.is_empty()),
        ("CgroupParent", !resources.cgroup_parent.is_empty()),
        ("BlkioWeight", resources.blkio_weight != 0),
        (
            "BlkioWeightDevice",
            !resources.blkio_weight_device.is_empty(),
        ),
        (
            "BlkioDeviceReadBps",
            !resources.blkio_device_read_bps.is_empty(),
        ),
        (
            "BlkioDeviceWriteBps",
            !resources.blkio_device_write_bps.is_empty(),
        ),
        (
            "BlkioDeviceReadIOps",
            !resources.blkio_device_read_iops.is_empty(),
        ),
        (
            "BlkioDeviceWriteIOps",
            !resources.blkio_device_write_iops.is_empty(),
        ),
        ("Devices", !resources.devices.is_empty()),
        (
            "DeviceCgroupRules",
            !resources.device_cgroup_rules.is_empty(),
        ),
        ("DeviceRequests", !resources.device_requests.is_empty()),
        ("OomKillDisable", resources.oom_kill_disable),
        ("Ulimits", !resources.ulimits.is_empty()),
        ("Init", resources.init == Some(true)),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(ApiError::bad(format!(
            "cannot use HostConfig.{name}: it is not supported through the API yet"
        ))),
        None => Ok(()),
    }
}

/// What a container has anyway.
fn is_default(option: &str) -> bool {
    [
        "seccomp=builtin",
        "apparmor=unconfined",
        "apparmor:unconfined",
        "label=disable",
        "label:disable",
    ]
    .contains(&option)
}

fn no_new_privileges_of(option: &str) -> Option<bool> {
    match option {
        "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => Some(true),
        "no-new-privileges=false" | "no-new-privileges:false" => Some(false),
        _ => None,
    }
}

/// Whether its program may gain no privileges.
pub(super) fn no_new_privileges(options: &[String]) -> bool {
    let given = options
        .iter()
        .filter_map(|option| no_new_privileges_of(option));
    given.last().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let refused = |host: HostConfig| refuse(&host).unwrap_err().message;
        let host = HostConfig {
            cap_add: vec!["ALL".to_owned()],
            ..HostConfig::default()
        };
        assert!(refused(host).contains("CapAdd"));
        let host = HostConfig {
            security_opt: vec!["nope=1".to_owned()],
            ..HostConfig::default()
        };
        assert!(refused(host).contains("nope=1"));
        let given = ["no-new-privileges".to_owned()];
        assert!(no_new_privileges(&given));
        assert!(refuse(&HostConfig::default()).is_ok());
    }
}
