//! A container as `inspect` shows it, in Docker's shape.

use std::path::Path;

use engine::{Container, ContainerDetails, ContainerNetwork, Engine, docker, status_word};
use network::PortRequest;
use oci_spec::runtime::Root;
use serde_json::{Map, Value, json};
use state::Status;

/// What Docker shows for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Whether the bytes of its files are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Every file is looked at.
    Count,
    /// They are left out.
    LeaveOut,
}

/// Everything about a container.
pub(crate) fn record(
    engine: &Engine,
    container: &Container,
    sizes: Sizes,
) -> anyhow::Result<Value> {
    let config = &container.config;
    let details = engine.details(container)?;
    let network = engine.container_network(container).ok();
    let dir = &details.dir;
    let mut record = json!({
        "Id": config.id,
        "Name": format!("/{}", config.name),
        "Created": config.created,
        "Path": config.command.first(),
        "Args": config.command.get(1..),
        "State": state(engine, container),
        "Image": config.image_id,
        "ResolvConfPath": dir.join("resolv.conf"),
        "HostnamePath": dir.join("hostname"),
        "HostsPath": dir.join("hosts"),
        "LogPath": log_path(engine, container),
        "RestartCount": container.state.restart_count,
        "Driver": "overlay",
        "Platform": if config.runtime == "wasm" { "wasi" } else { "linux" },
        "Runtime": config.runtime,
        "GraphDriver": graph_driver(&details),
        "Config": run_config(engine, container, &details, network.as_ref()),
        "HostConfig": host_config(engine, container, &details, network.as_ref()),
        "Mounts": super::mount_records::json(engine, container),
        "NetworkSettings": super::network_settings::json(engine, container),
    });
    if sizes == Sizes::Count {
        let size = engine.size(container)?;
        record["SizeRw"] = json!(size.own);
        record["SizeRootFs"] = json!(size.all);
    }
    Ok(record)
}

fn state(engine: &Engine, container: &Container) -> Value {
    let state = &container.state;
    let time = |at: &Option<String>| at.clone().unwrap_or_else(|| NEVER.to_owned());
    json!({
        "Status": status_word(state.status),
        "Running": state.status != Status::Created && state.status != Status::Exited,
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.pid.unwrap_or(0),
        "ExitCode": state.exit_code.unwrap_or(0),
        "Error": state.error.clone().unwrap_or_default(),
        "StartedAt": time(&state.started_at),
        "FinishedAt": time(&state.finished_at),
        "Health": health(engine, container),
    })
}

/// Where the log is; empty when it is in no file.
fn log_path(engine: &Engine, container: &Container) -> String {
    let path = engine.log_path(container).ok().flatten();
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}

fn log_config(engine: &Engine, container: &Container) -> Value {
    let options = engine.log_options(container).unwrap_or_default();
    json!({ "Type": options.driver, "Config": options.options })
}

/// What the probes have said, in Docker's shape; null without a health check.
fn health(engine: &Engine, container: &Container) -> Value {
    let Some(health) = engine.health(container) else {
        return Value::Null;
    };
    json!({
        "Status": health.status.name(),
        "FailingStreak": health.failing_streak,
        "Log": health.log,
    })
}

fn healthcheck(engine: &Engine, container: &Container) -> Value {
    let check = engine.health_check(container).ok().flatten();
    check.as_ref().map_or(Value::Null, docker::health_check)
}

fn restart_policy(engine: &Engine, container: &Container) -> Value {
    let policy = engine.restart_policy(container).unwrap_or_default();
    json!({ "Name": policy.name(), "MaximumRetryCount": policy.max_retries() })
}

fn graph_driver(details: &ContainerDetails) -> Value {
    let lower: Vec<_> = details.layers.iter().map(|l| l.to_string_lossy()).collect();
    json!({
        "Name": "overlay",
        "Data": {
            "LowerDir": lower.join(":"),
            "UpperDir": details.dir.join("upper"),
            "WorkDir": details.dir.join("work"),
        },
    })
}

fn run_config(
    engine: &Engine,
    container: &Container,
    details: &ContainerDetails,
    network: Option<&ContainerNetwork>,
) -> Value {
    let (config, settings) = (&container.config, &container.config.settings);
    let process = details.spec.process().as_ref();
    let keys = |texts: &[String]| -> Map<String, Value> {
        let key = |text: &String| match text.contains('/') {
            true => (text.clone(), json!({})),
            false => (format!("{text}/tcp"), json!({})),
        };
        texts.iter().map(key).collect()
    };
    json!({
        "Hostname": network.map(|network| network.hostname.clone()).unwrap_or_default(),
        "Domainname": network.and_then(|network| network.domainname.clone()).unwrap_or_default(),
        "User": settings.user,
        "AttachStdin": details.interactive,
        "AttachStdout": true,
        "AttachStderr": !details.terminal,
        "ExposedPorts": keys(network.map_or(&[], |network| network.exposed.as_slice())),
        "Tty": details.terminal,
        "OpenStdin": details.interactive,
        "StdinOnce": details.interactive,
        "Env": process.and_then(|process| process.env().clone()),
        "Cmd": settings.cmd,
        "Image": config.image,
        "Volumes": null,
        "WorkingDir": process.map(|process| process.cwd().clone()),
        "Entrypoint": settings.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": settings.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned()),
        "StopTimeout": settings.stop_timeout,
        "Healthcheck": healthcheck(engine, container),
    })
}

fn host_config(
    engine: &Engine,
    container: &Container,
    details: &ContainerDetails,
    network: Option<&ContainerNetwork>,
) -> Value {
    let config = &container.config;
    let linux = details.spec.linux().as_ref();
    let mut record = json!({
        "Binds": binds(engine, container),
        "ContainerIDFile": config.settings.cid_file.as_deref().unwrap_or(Path::new("")),
        "LogConfig": log_config(engine, container),
        "NetworkMode": super::network_settings::mode(engine, container),
        "PortBindings": port_bindings(network.map_or(&[], |network| network.ports.as_slice())),
        "RestartPolicy": restart_policy(engine, container),
        "AutoRemove": config.auto_remove,
        "ReadonlyRootfs": details.spec.root().as_ref().and_then(Root::readonly).unwrap_or(false),
        "Annotations": details.spec.annotations().clone().unwrap_or_default(),
        "Runtime": config.runtime,
        "MaskedPaths": linux.and_then(|linux| linux.masked_paths().clone()),
        "ReadonlyPaths": linux.and_then(|linux| linux.readonly_paths().clone()),
    });
    if let Some(network) = network {
        record["Dns"] = json!(network.dns.servers);
        record["DnsOptions"] = json!(network.dns.options);
        record["DnsSearch"] = json!(network.dns.search);
    }
    if let (Value::Object(record), Value::Object(limits)) =
        (&mut record, docker::limits(&details.spec))
    {
        record.extend(limits);
    }
    record
}

/// Mounts in the form of `--volume`.
fn binds(engine: &Engine, container: &Container) -> Option<Vec<String>> {
    let mounts = engine.container_mounts(&container.config.id).ok()?;
    let binds: Vec<String> = mounts
        .iter()
        .filter(|mount| mount.kind != "tmpfs")
        .map(|mount| {
            let source = match &mount.volume {
                Some(volume) => volume.clone(),
                None => mount.source.to_string_lossy().into_owned(),
            };
            let mode = if mount.readonly { ":ro" } else { "" };
            format!("{source}:{}{mode}", mount.target.display())
        })
        .collect();
    (!binds.is_empty()).then_some(binds)
}

fn port_bindings(ports: &[PortRequest]) -> Map<String, Value> {
    let mut bindings: Map<String, Value> = Map::new();
    for port in ports {
        let key = format!("{}/{}", port.container_port, port.transport);
        let host = port.host.map(|host| host.to_string()).unwrap_or_default();
        let host_port = port.host_ports.map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        let binding = json!({ "HostIp": host, "HostPort": host_port.unwrap_or_default() });
        match bindings.get_mut(&key) {
            Some(Value::Array(list)) => list.push(binding),
            _ => drop(bindings.insert(key, json!([binding]))),
        }
    }
    bindings
}
