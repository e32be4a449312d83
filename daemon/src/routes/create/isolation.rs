//! What stands between a container and its host: `HostConfig` to the engine's isolation options.

use std::path::PathBuf;

use engine::{
    DeviceAccess, DeviceRequest, DeviceRule, IpcMode, IsolationOptions, SeccompProfile,
    SecurityOptions, Share, UserMode,
};

use super::limits;
use crate::error::ApiError;
use crate::wire::host_config::{Device, HostConfig, text};

/// The engine's options, and whether no new privileges are wanted.
pub(super) fn options(
    host: &HostConfig,
    cdi_dirs: &[PathBuf],
) -> Result<(IsolationOptions, bool), ApiError> {
    refuse(host)?;
    let (security, no_new_privileges) = security(&host.security_opt)?;
    let resources = &host.resources;
    let mut devices = Vec::new();
    for request in &resources.device_requests {
        devices.extend(cdi_devices(request)?);
    }
    for given in &resources.devices {
        devices.push(device(given)?);
    }
    let shm = u64::try_from(host.shm_size)
        .map_err(|_| ApiError::bad("SHM size can not be less than 0"))?;
    let score = host.oom_score_adj;
    if !(-1000..=1000).contains(&score) {
        return Err(ApiError::bad(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]"
        )));
    }
    let rules = resources.device_cgroup_rules.iter();
    let ulimits = resources.ulimits.iter();
    let options = IsolationOptions {
        privileged: host.privileged,
        cap_add: host.cap_add.clone(),
        cap_drop: host.cap_drop.clone(),
        security,
        devices,
        device_rules: rules
            .map(|rule| device_rule(rule))
            .collect::<Result<_, _>>()?,
        cdi_dirs: cdi_dirs.to_vec(),
        pid: share("PID", &host.pid_mode)?,
        ipc: ipc(&host.ipc_mode)?,
        uts: own_or_host("UTS", &host.uts_mode)?,
        cgroup_namespace: own_or_host("cgroup namespace", &host.cgroupns_mode)?,
        users: users(&host.userns_mode)?,
        sysctl: host.sysctls.clone().into_iter().collect(),
        ulimits: ulimits.map(limits::ulimit).collect::<Result<_, _>>()?,
        shm_bytes: (shm > 0).then_some(shm),
        groups: host.group_add.clone(),
        oom_score_adj: (score != 0).then_some(score),
        limits: limits::limits(resources)?,
        cgroup_parent: text(&resources.cgroup_parent),
        init: resources.init == Some(true),
    };
    Ok((options, no_new_privileges))
}

/// Refuses the first field that cannot be honoured.
fn refuse(host: &HostConfig) -> Result<(), ApiError> {
    let resources = &host.resources;
    let given = [
        ("Cgroup", !host.cgroup.is_empty()),
        ("StorageOpt", !host.storage_opt.is_empty()),
        ("KernelMemory", resources.kernel_memory != 0),
        ("OomKillDisable", resources.oom_kill_disable),
        ("CpuRealtimePeriod", resources.cpu_realtime_period != 0),
        ("CpuRealtimeRuntime", resources.cpu_realtime_runtime != 0),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(ApiError::bad(format!(
            "cannot use HostConfig.{name}: it is not supported by ketch"
        ))),
        None => Ok(()),
    }
}

/// Security options; `:` is the separator of Docker's first versions. A seccomp profile comes as
/// its text.
fn security(options: &[String]) -> Result<(SecurityOptions, bool), ApiError> {
    let mut security = SecurityOptions::default();
    let mut no_new_privileges = false;
    for option in options {
        let bad = || ApiError::bad(format!("invalid --security-opt: {option:?}"));
        let at = option.find(['=', ':']);
        let (key, value) = match at {
            Some(at) => (option.get(..at).unwrap_or(option), option.get(at + 1..)),
            None => (option.as_str(), None),
        };
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(bad()),
        };
        match (key, value) {
            ("no-new-privileges", _) => no_new_privileges = flag()?,
            ("writable-cgroups", _) => security.writable_cgroups = flag()?,
            ("systempaths", Some("unconfined")) => security.all_system_paths = true,
            ("seccomp", Some("unconfined")) => security.seccomp = SeccompProfile::Unconfined,
            ("seccomp", Some("builtin")) => security.seccomp = SeccompProfile::Default,
            ("seccomp", Some(profile)) => {
                security.seccomp = SeccompProfile::Profile(profile.as_bytes().to_vec());
            }
            ("apparmor", Some(profile)) => {
                security.apparmor = text(profile).filter(|profile| profile != "unconfined");
            }
            ("label", Some("disable")) => security.labels.clear(),
            ("label", Some(part)) => {
                const PARTS: [&str; 5] = ["user:", "role:", "type:", "level:", "filetype:"];
                if !PARTS.iter().any(|known| part.starts_with(known)) {
                    return Err(bad());
                }
                security.labels.push(part.to_owned());
            }
            _ => return Err(bad()),
        }
    }
    Ok((security, no_new_privileges))
}

fn device(device: &Device) -> Result<DeviceRequest, ApiError> {
    let source = &device.path_on_host;
    if DeviceRequest::is_cdi_name(source) {
        return Ok(DeviceRequest::Cdi(source.clone()));
    }
    let target = text(&device.path_in_container).unwrap_or_else(|| source.clone());
    let is_inside = |path: &str| path.starts_with('/') && path != "/";
    if !is_inside(source) || !is_inside(&target) {
        return Err(ApiError::bad(format!(
            "invalid device \"{source}:{target}\": both paths must be absolute"
        )));
    }
    let access = match device.cgroup_permissions.as_str() {
        "" => DeviceAccess::ALL,
        letters => DeviceAccess::parse(letters)
            .ok_or_else(|| ApiError::bad(format!("invalid device mode: {letters}")))?,
    };
    Ok(DeviceRequest::Path {
        source: source.into(),
        target: target.into(),
        access,
    })
}

/// `DeviceRequests`: there is CDI, and no other driver.
fn cdi_devices(request: &serde_json::Value) -> Result<Vec<DeviceRequest>, ApiError> {
    let driver = request["Driver"].as_str().unwrap_or_default();
    let ids = request["DeviceIDs"].as_array().cloned().unwrap_or_default();
    if driver != "cdi" {
        return Err(ApiError::bad(format!(
            "could not select device driver \"{driver}\" with capabilities: {}",
            request["Capabilities"]
        )));
    }
    let name = |id: &serde_json::Value| match id.as_str() {
        Some(name) if DeviceRequest::is_cdi_name(name) => Ok(DeviceRequest::Cdi(name.to_owned())),
        _ => Err(ApiError::bad(format!("invalid CDI device name: {id}"))),
    };
    ids.iter().map(name).collect()
}

/// `c 10:200 rwm`.
fn device_rule(rule: &str) -> Result<DeviceRule, ApiError> {
    DeviceRule::parse(rule)
        .ok_or_else(|| ApiError::bad(format!("invalid device cgroup rule format: '{rule}'")))
}

fn other<'a>(what: &str, mode: &'a str) -> Result<&'a str, ApiError> {
    mode.strip_prefix("container:")
        .filter(|name| !name.is_empty())
        .ok_or_else(|| ApiError::bad(format!("invalid {what} mode: {mode}")))
}

fn share(what: &str, mode: &str) -> Result<Share, ApiError> {
    Ok(match mode {
        "" | "private" => Share::Private,
        "host" => Share::Host,
        mode => Share::Container(other(what, mode)?.to_owned()),
    })
}

fn own_or_host(what: &str, mode: &str) -> Result<Share, ApiError> {
    match mode {
        "" | "private" => Ok(Share::Private),
        "host" => Ok(Share::Host),
        _ => Err(ApiError::bad(format!("invalid {what} mode: {mode}"))),
    }
}

fn ipc(mode: &str) -> Result<IpcMode, ApiError> {
    Ok(match mode {
        "" | "private" => IpcMode::Private,
        "shareable" => IpcMode::Shareable,
        "none" => IpcMode::None,
        "host" => IpcMode::Host,
        mode => IpcMode::Container(other("IPC", mode)?.to_owned()),
    })
}

/// As many ids as nearly every image has users for.
const AUTO_SIZE: u32 = 65_536;

fn users(mode: &str) -> Result<UserMode, ApiError> {
    match mode {
        "" | "host" => Ok(UserMode::Host),
        "auto" => Ok(UserMode::Auto { size: AUTO_SIZE }),
        "keep-id" => Ok(UserMode::KeepId),
        _ => Err(ApiError::bad(format!("invalid USER mode: {mode}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::read;
    use serde_json::json;

    fn of(host: serde_json::Value) -> Result<(IsolationOptions, bool), ApiError> {
        options(&read(host).unwrap(), &[])
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (host, name) in [
            (json!({ "StorageOpt": { "size": "1G" } }), "StorageOpt"),
            (json!({ "SecurityOpt": ["nope=1"] }), "nope=1"),
            (json!({ "PidMode": "container:" }), "PID"),
            (json!({ "UTSMode": "container:a" }), "UTS"),
            (json!({ "DeviceRequests": [{ "Driver": "" }] }), "driver"),
            (json!({ "DeviceCgroupRules": ["c 1:3"] }), "c 1:3"),
            (json!({ "Devices": [{ "PathOnHost": "x" }] }), "x:x"),
            (json!({ "OomScoreAdj": 2000 }), "2000"),
        ] {
            let message = of(host).unwrap_err().message;
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn options_are_the_engines() {
        let (options, no_new_privileges) = of(json!({
            "CapAdd": ["NET_ADMIN"], "Privileged": true, "PidMode": "host", "Init": true,
            "SecurityOpt": ["no-new-privileges", "seccomp={}", "label:disable"], "ShmSize": 5,
            "Devices": [{ "PathOnHost": "/dev/fuse", "CgroupPermissions": "r" }],
        }))
        .unwrap();
        assert!(no_new_privileges && options.privileged && options.init);
        assert_eq!(options.cap_add, ["NET_ADMIN"]);
        assert_eq!((options.pid, options.shm_bytes), (Share::Host, Some(5)));
        let profile = SeccompProfile::Profile(b"{}".to_vec());
        assert_eq!(options.security.seccomp, profile);
        let access = DeviceAccess::parse("r").unwrap();
        let (source, target) = ("/dev/fuse".into(), "/dev/fuse".into());
        assert_eq!(
            options.devices,
            [DeviceRequest::Path {
                source,
                target,
                access
            }]
        );
        assert_eq!(of(json!({})).unwrap().0, IsolationOptions::default());
    }
}
