//! `POST /containers/create`: from the request to the engine's options. What cannot be honoured is
//! refused by its name.

mod endpoints;
mod health;
mod isolation;
mod limits;
mod mounts;

use std::net::IpAddr;

use engine::{ContainerOptions, LogOptions, NetworkOptions};
use http::StatusCode;
use network::{DnsOptions, HostTarget, PortRange, PortRequest};
use runtime::detect::RuntimeOverride;
use runtime::{Console, LineEnds};
use serde_json::{Value, json};

use crate::call::{Call, Reply, json as json_reply, read};
use crate::daemon::Options;
use crate::error::ApiError;
use crate::routes::images::platform;
use crate::version::{ANNOTATIONS, ApiVersion};
use crate::wire::container::REQUEST;
use crate::wire::create::CreateContainer;
use crate::wire::host_config::{given, restart_policy, text};

pub(crate) use endpoints::{join, network_of_build};

/// Creates a container.
pub(crate) async fn create(call: Call) -> Reply {
    let daemon = call.daemon.clone();
    let version = call.version;
    let name = call.query.get("name");
    let name = name.map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    let wanted = call.query.get("platform").map(platform).transpose()?;
    let scope = call.scope.clone();
    let Some(mut value) = call.value().await? else {
        return Err(ApiError::bad(
            "invalid JSON: got EOF while reading request body",
        ));
    };
    if let Some(scope) = scope {
        let looked = daemon.run(move |engine| {
            scope.create(engine, &mut value)?;
            Ok(value)
        });
        value = looked.await?;
    }
    let request: CreateContainer = read(value.clone())?;
    let kept = remembered(&value, &request);
    let mut options = options(request, &daemon.options, version)?;
    options.name = name;
    options.platform = wanted;
    options.annotations.insert(REQUEST.to_owned(), kept);
    let created = daemon.run(move |engine| {
        let created = engine.create(&options)?;
        engine.record_container_event(&created.config, "create", &[]);
        Ok((created.config.id, created.warnings))
    });
    let (id, warnings) = created.await?;
    json_reply(
        StatusCode::CREATED,
        &json!({ "Id": id, "Warnings": warnings }),
    )
}

/// What `inspect` shows again and the engine has no word for.
fn remembered(request: &Value, read: &CreateContainer) -> String {
    const CONFIG: [&str; 6] = [
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "StdinOnce",
        "Healthcheck",
        "Volumes",
    ];
    // Variables without a value are taken away from those of the image.
    let taken: Vec<&String> = read.env.iter().filter(|text| !text.contains('=')).collect();
    let mut kept = json!({
        "HostConfig": request["HostConfig"],
        "Networks": endpoints::remembered(read),
        "NoEnv": taken,
    });
    for key in CONFIG {
        if !request[key].is_null() {
            kept["Config"][key] = request[key].clone();
        }
    }
    kept.to_string()
}

fn options(
    request: CreateContainer,
    daemon: &Options,
    version: ApiVersion,
) -> Result<ContainerOptions, ApiError> {
    let host = &request.host_config;
    let (isolation, no_new_privileges) = isolation::options(host, &daemon.cdi_dirs)?;
    if !host.annotations.is_empty() && version < ANNOTATIONS {
        return Err(ApiError::bad("annotations need API version 1.43"));
    }
    if request.image.is_empty() {
        return Err(ApiError::bad("no image was named"));
    }
    let driver = host.log_config.kind.as_str();
    if !driver.is_empty() && !LogOptions::is_driver(driver) {
        return Err(ApiError::bad(format!(
            "logger: no log driver named '{driver}' is registered"
        )));
    }
    let resources = &host.resources;
    let console = request.tty.then(|| Console {
        rows: host.console_size.first().copied().unwrap_or(0),
        columns: host.console_size.get(1).copied().unwrap_or(0),
        line_ends: LineEnds::Translated,
    });
    let restart = host
        .restart_policy
        .clone()
        .map(restart_policy)
        .transpose()?;
    Ok(ContainerOptions {
        network: endpoints::network(&request, version)?,
        network_options: network_options(&request, daemon)?,
        mounts: mounts::mounts(&request, version)?,
        volumes_from: mounts::volumes_from(&host.volumes_from)?,
        runtime: runtime(&host.runtime)?,
        no_new_privileges,
        isolation,
        health: health::options(request.healthcheck.as_ref())?,
        command: request.cmd.clone().unwrap_or_default(),
        entrypoint: request.entrypoint.clone().filter(|words| !words.is_empty()),
        user: text(&request.user),
        workdir: text(&request.working_dir),
        hostname: text(&request.hostname),
        memory_bytes: given(resources.memory),
        nano_cpus: given(resources.nano_cpus),
        pids_limit: resources.pids_limit.filter(|limit| *limit > 0),
        read_only: host.readonly_rootfs,
        auto_remove: host.auto_remove,
        annotations: host.annotations.clone(),
        stop_signal: text(&request.stop_signal),
        stop_timeout: request
            .stop_timeout
            .and_then(|seconds| u64::try_from(seconds).ok()),
        restart: restart.unwrap_or_default(),
        log: host.log_config.clone().options(),
        interactive: request.open_stdin,
        console,
        image: request.image,
        env: request.env,
        labels: request.labels,
        ..ContainerOptions::default()
    })
}

fn runtime(name: &str) -> Result<RuntimeOverride, ApiError> {
    match name {
        "" => Ok(RuntimeOverride::Auto),
        "native" | "runc" | "io.containerd.runc.v2" => Ok(RuntimeOverride::Native),
        "wasm" | "io.containerd.wasmtime.v1" => Ok(RuntimeOverride::Wasm),
        other => Err(ApiError::bad(format!(
            "unknown or invalid runtime name: {other}"
        ))),
    }
}

fn network_options(
    request: &CreateContainer,
    daemon: &Options,
) -> Result<NetworkOptions, ApiError> {
    let host = &request.host_config;
    let mut ports = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let bad =
            |why: &str| ApiError::bad(format!("invalid port specification: \"{port}\": {why}"));
        let range = PortRange::parse(port).map_err(bad)?;
        for binding in bindings {
            let address = match binding.host_ip.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| bad("invalid IP address"))?),
            };
            let host_ports =
                host_ports(&binding.host_port).ok_or_else(|| bad("invalid host port"))?;
            ports.extend(range.anywhere().enumerate().map(|(at, port)| PortRequest {
                host: address,
                host_ports: shifted(host_ports, at, range.first == range.last),
                ..port
            }));
        }
    }
    Ok(NetworkOptions {
        ports,
        publish_all: host.publish_all_ports,
        exposed: request.exposed_ports.keys().cloned().collect(),
        publish: daemon.publish,
        publish_addresses: daemon.publish_addresses.clone(),
        extra_hosts: host
            .extra_hosts
            .iter()
            .map(|text| extra_host(text))
            .collect::<Result<_, _>>()?,
        dns: DnsOptions {
            servers: addresses("DNS server", &host.dns)?,
            search: host.dns_search.clone(),
            options: host.dns_options.clone(),
        },
        domainname: text(&request.domainname),
    })
}

/// Nothing, a port, or a range.
fn host_ports(text: &str) -> Option<Option<(u16, u16)>> {
    if text.is_empty() || text == "0" {
        return Some(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(Some((first, last)))
}

/// One port takes any of a range; the ports of a range take theirs in order.
fn shifted(ports: Option<(u16, u16)>, at: usize, is_single: bool) -> Option<(u16, u16)> {
    let (first, last) = ports?;
    if is_single {
        return Some((first, last));
    }
    let own = first.checked_add(u16::try_from(at).ok()?)?;
    (own <= last).then_some((own, own))
}

fn addresses(what: &str, texts: &[String]) -> Result<Vec<IpAddr>, ApiError> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| ApiError::bad(format!("invalid {what}: {text}")))
    };
    texts.iter().map(parse).collect()
}

pub(crate) fn extra_host(text: &str) -> Result<(String, HostTarget), ApiError> {
    let bad = || ApiError::bad(format!("bad format for add-host: \"{text}\""));
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(bad)?;
    if address == "host-gateway" {
        return Ok((name.to_owned(), HostTarget::Gateway));
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().map_err(|_| bad())?;
    Ok((name.to_owned(), HostTarget::Address(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_hosts_are_read() {
        assert_eq!(host_ports("").unwrap(), None);
        assert_eq!(host_ports("8000-8002").unwrap(), Some((8000, 8002)));
        assert_eq!(host_ports("9-8"), None);
        assert_eq!(shifted(Some((8000, 8002)), 2, false), Some((8002, 8002)));
        assert_eq!(shifted(Some((8000, 8002)), 2, true), Some((8000, 8002)));
        assert!(extra_host("a:host-gateway").is_ok() && extra_host("db=::1").is_ok());
        assert!(extra_host(":1.2.3.4").is_err() && extra_host("a:b").is_err());
    }
}
