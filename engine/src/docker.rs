//! Parts of Docker's JSON that every front end shows alike.

use std::net::IpAddr;
use std::time::Duration;

use network::{Endpoint, NetworkConfig};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, Spec};
use serde_json::{Map, Value, json};

use crate::HealthCheck;

/// The limits of `HostConfig` as numbers, 0 for none.
#[must_use]
pub fn limits(spec: &Spec) -> Value {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let memory = resources.and_then(|resources| resources.memory().as_ref());
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    let quota = cpu.and_then(LinuxCpu::quota).unwrap_or(0);
    let period = cpu.and_then(LinuxCpu::period).unwrap_or(0);
    let nano = i128::from(quota.max(0)) * 1_000_000_000 / i128::from(period.max(1));
    let pids = resources.and_then(|resources| resources.pids().as_ref());
    json!({
        "Memory": memory.and_then(LinuxMemory::limit).unwrap_or(0),
        "MemorySwap": memory.and_then(LinuxMemory::swap).unwrap_or(0),
        "MemoryReservation": memory.and_then(LinuxMemory::reservation).unwrap_or(0),
        "NanoCpus": i64::try_from(nano).unwrap_or(i64::MAX),
        "CpuShares": cpu.and_then(LinuxCpu::shares).unwrap_or(0),
        "CpuPeriod": period,
        "CpuQuota": quota,
        "CpusetCpus": cpu.and_then(|cpu| cpu.cpus().clone()).unwrap_or_default(),
        "CpusetMems": cpu.and_then(|cpu| cpu.mems().clone()).unwrap_or_default(),
        "PidsLimit": pids.map(LinuxPids::limit),
    })
}

/// A health check, with its times in nanoseconds.
#[must_use]
pub fn health_check(check: &HealthCheck) -> Value {
    let nanoseconds = |time: Duration| time.as_nanos();
    json!({
        "Test": check.test,
        "Interval": nanoseconds(check.interval),
        "Timeout": nanoseconds(check.timeout),
        "StartPeriod": nanoseconds(check.start_period),
        "StartInterval": nanoseconds(check.start_interval),
        "Retries": check.retries,
    })
}

/// A network, with these containers on it.
#[must_use]
pub fn network(config: &NetworkConfig, endpoints: &[Endpoint]) -> Value {
    let pools: Vec<Value> = config
        .pools()
        .map(|pool| {
            let mut record = json!({ "Subnet": pool.subnet.to_string() });
            if let Some(gateway) = pool.gateway {
                record["Gateway"] = gateway.to_string().into();
            }
            if let Some(range) = pool.range {
                record["IPRange"] = range.to_string().into();
            }
            if !pool.reserved.is_empty() {
                record["AuxiliaryAddresses"] = json!(pool.reserved);
            }
            record
        })
        .collect();
    let containers: Map<String, Value> = endpoints
        .iter()
        .map(|endpoint| {
            let record = json!({
                "Name": endpoint.name,
                "MacAddress": endpoint.mac,
                "IPv4Address": with_prefix(endpoint.ipv4),
                "IPv6Address": with_prefix(endpoint.ipv6),
            });
            (endpoint.container.clone(), record)
        })
        .collect();
    json!({
        "Name": config.name,
        "Id": config.id,
        "Created": config.created,
        "Scope": "local",
        "Driver": config.driver.name(),
        "EnableIPv4": config.ipv4.is_some(),
        "EnableIPv6": config.ipv6.is_some(),
        "IPAM": { "Driver": "default", "Options": null, "Config": pools },
        "Internal": config.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": config.options,
        "Labels": config.labels,
    })
}

fn with_prefix(address: Option<(IpAddr, u8)>) -> String {
    address.map_or_else(String::new, |(address, prefix)| {
        format!("{address}/{prefix}")
    })
}
