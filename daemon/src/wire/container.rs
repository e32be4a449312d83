//! Containers in responses.

use engine::{Container, ContainerDetails, ContainerNetwork, Engine, docker, status_word};
use oci_spec::runtime::Root;
use serde_json::{Map, Value, json};
use state::Status;

use super::{network, times};
use crate::error::ApiError;
use crate::version::ApiVersion;

/// The annotation of the specification that holds what a client asked for, so that `inspect` shows it
/// again. It is no annotation of the client's and is not shown as one.
pub(crate) const REQUEST: &str = "ketch.api/request";

/// What a client asked for, for a container that was made through the API.
fn request(details: &ContainerDetails) -> Value {
    let annotations = details.spec.annotations().as_ref();
    let text = annotations.and_then(|annotations| annotations.get(REQUEST));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn over(base: &mut Value, own: Value) {
    if let (Value::Object(base), Value::Object(own)) = (base, own) {
        base.extend(own);
    }
}

/// A container of the list.
pub(crate) fn summary(
    engine: &Engine,
    container: &Container,
    version: ApiVersion,
) -> Result<Value, ApiError> {
    let (config, state) = (&container.config, &container.state);
    let network = engine.container_network(container)?;
    let live = engine.network_state(container);
    let networks = network::settings(engine, container, version)?;
    Ok(json!({
        "Id": config.id,
        "Names": [format!("/{}", config.name)],
        "Image": config.image,
        "ImageID": config.image_id,
        "Command": config.command.join(" "),
        "Created": times::seconds(&config.created),
        "Ports": network::list_ports(&live, &network.exposed),
        "Labels": config.labels,
        "State": status_word(state.status),
        "Status": status(engine, container),
        "HostConfig": { "NetworkMode": network.mode_text() },
        "NetworkSettings": { "Networks": networks["Networks"] },
        "Mounts": mounts(engine, container),
    }))
}

/// `Up 3 minutes`.
fn status(engine: &Engine, container: &Container) -> String {
    let state = &container.state;
    let since = |at: &Option<String>| {
        let at = at.as_deref().map_or(0, times::seconds);
        let now = state::nanoseconds_now() / 1_000_000_000;
        times::human(now.saturating_sub(at))
    };
    let code = state.exit_code.unwrap_or(0);
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let health = engine.health(container).map(|health| health.status.name());
            let health = match health {
                None => String::new(),
                Some("starting") => " (health: starting)".to_owned(),
                Some(other) => format!(" ({other})"),
            };
            format!("Up {}{health}", since(&state.started_at))
        }
        Status::Paused => format!("Up {} (Paused)", since(&state.started_at)),
        Status::Restarting => format!("Restarting ({code}) {} ago", since(&state.finished_at)),
        Status::Exited => format!("Exited ({code}) {} ago", since(&state.finished_at)),
    }
}

fn mounts(engine: &Engine, container: &Container) -> Vec<Value> {
    let mounts = engine.container_mounts(&container.config.id);
    let record = |mount: &engine::ContainerMount| {
        let propagation = mount.options.iter().find(|option| {
            ["private", "slave", "shared"]
                .iter()
                .any(|word| option.contains(word))
        });
        let mut record = json!({
            "Type": mount.kind,
            "Source": if mount.kind == "tmpfs" { json!("") } else { json!(mount.source) },
            "Destination": mount.target,
            "Mode": "",
            "RW": !mount.readonly,
            "Propagation": propagation.map_or("", String::as_str),
        });
        if let Some(volume) = &mount.volume {
            record["Name"] = volume.clone().into();
            record["Driver"] = engine::LOCAL.into();
        }
        record
    };
    mounts.unwrap_or_default().iter().map(record).collect()
}

/// Everything about a container.
pub(crate) fn inspect(
    engine: &Engine,
    container: &Container,
    version: ApiVersion,
) -> Result<Value, ApiError> {
    let (config, state) = (&container.config, &container.state);
    let details = engine.details(container)?;
    let asked = request(&details);
    let network = engine.container_network(container)?;
    let time = |at: &Option<String>| at.clone().unwrap_or_else(|| times::NEVER.to_owned());
    let mut value = json!({
        "Id": config.id,
        "Created": config.created,
        "Path": config.command.first(),
        "Args": config.command.get(1..),
        "State": {
            "Status": status_word(state.status),
            "Running": state.status.is_owned(),
            "Paused": state.status == Status::Paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Dead": false,
            "Pid": state.pid.unwrap_or(0),
            "ExitCode": state.exit_code.unwrap_or(0),
            "Error": state.error.clone().unwrap_or_default(),
            "StartedAt": time(&state.started_at),
            "FinishedAt": time(&state.finished_at),
        },
        "Image": config.image_id,
        "ResolvConfPath": details.dir.join("resolv.conf"),
        "HostnamePath": details.dir.join("hostname"),
        "HostsPath": details.dir.join("hosts"),
        "LogPath": engine.log_path(container)?.unwrap_or_default(),
        "Name": format!("/{}", config.name),
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": if config.runtime == "wasm" { "wasi" } else { "linux" },
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": { "UpperDir": details.dir.join("upper"), "WorkDir": details.dir.join("work") },
        },
        "HostConfig": host_config(engine, container, &details, &network, &asked)?,
        "Mounts": mounts(engine, container),
        "Config": run_config(engine, container, &details, &network, &asked)?,
        "NetworkSettings": network::settings(engine, container, version)?,
    });
    let networks = &mut value["NetworkSettings"]["Networks"];
    for (name, kept) in asked["Networks"].as_object().into_iter().flatten() {
        if networks[name].is_object() {
            over(&mut networks[name], kept.clone());
        }
    }
    if let Some(health) = engine.health(container) {
        value["State"]["Health"] = json!({
            "Status": health.status.name(),
            "FailingStreak": health.failing_streak,
            "Log": health.log,
        });
    }
    Ok(value)
}

fn run_config(
    engine: &Engine,
    container: &Container,
    details: &ContainerDetails,
    network: &ContainerNetwork,
    asked: &Value,
) -> Result<Value, ApiError> {
    let (config, settings) = (&container.config, &container.config.settings);
    let process = details.spec.process().as_ref();
    let exposed: Map<String, Value> = network
        .exposed
        .iter()
        .map(|port| match port.contains('/') {
            true => (port.clone(), json!({})),
            false => (format!("{port}/tcp"), json!({})),
        })
        .collect();
    let mut value = json!({
        "Hostname": network.hostname,
        "Domainname": network.domainname.clone().unwrap_or_default(),
        "User": settings.user,
        "AttachStdin": false,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": details.terminal,
        "OpenStdin": details.interactive,
        "StdinOnce": details.interactive,
        "Env": process.and_then(|process| process.env().clone()).unwrap_or_default(),
        "Cmd": settings.cmd,
        "Image": config.image,
        "Volumes": null,
        "WorkingDir": process.map(|process| process.cwd().clone()),
        "Entrypoint": settings.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
    });
    if !exposed.is_empty() {
        value["ExposedPorts"] = exposed.into();
    }
    if let Some(signal) = &settings.stop_signal {
        value["StopSignal"] = signal.clone().into();
    }
    if let Some(seconds) = settings.stop_timeout {
        value["StopTimeout"] = seconds.into();
    }
    if let Some(check) = engine.health_check(container)? {
        value["Healthcheck"] = docker::health_check(&check);
    }
    over(&mut value, asked["Config"].clone());
    if let (Value::Array(env), Value::Array(taken)) = (&mut value["Env"], &asked["NoEnv"]) {
        env.extend(taken.iter().cloned());
    }
    Ok(value)
}

/// The defaults, what was asked for, and over both what holds.
fn host_config(
    engine: &Engine,
    container: &Container,
    details: &ContainerDetails,
    network: &ContainerNetwork,
    asked: &Value,
) -> Result<Value, ApiError> {
    let config = &container.config;
    let linux = details.spec.linux().as_ref();
    let mut value = json!({
        "Binds": null, "ContainerIDFile": "", "VolumeDriver": "", "VolumesFrom": null,
        "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null, "CgroupnsMode": "private",
        "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null,
        "IpcMode": "private", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "",
        "Privileged": false, "PublishAllPorts": false, "SecurityOpt": null, "UTSMode": "",
        "UsernsMode": "", "ShmSize": 64 << 20, "Isolation": "", "CpuShares": 0, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [],
        "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "Devices": [], "DeviceCgroupRules": null,
        "DeviceRequests": null, "MemorySwappiness": null, "OomKillDisable": false, "Ulimits": [],
        "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
        "PortBindings": {}, "Runtime": config.runtime,
    });
    over(&mut value, asked["HostConfig"].clone());
    let policy = engine.restart_policy(container)?;
    let log = engine.log_options(container)?;
    let mode = network.mode_text();
    let read_only = details.spec.root().as_ref().and_then(Root::readonly);
    over(
        &mut value,
        json!({
            "LogConfig": { "Type": log.driver, "Config": log.options },
            "RestartPolicy": { "Name": policy.name(), "MaximumRetryCount": policy.max_retries() },
            "AutoRemove": config.auto_remove,
            "NetworkMode": mode,
            "ReadonlyRootfs": read_only.unwrap_or(false),
            "MaskedPaths": linux.and_then(|linux| linux.masked_paths().clone()),
            "ReadonlyPaths": linux.and_then(|linux| linux.readonly_paths().clone()),
        }),
    );
    over(&mut value, docker::limits(&details.spec));
    Ok(value)
}
