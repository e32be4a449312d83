//! Networks in requests and responses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use engine::{Container, Engine, docker};
use network::{Endpoint, NetworkConfig, NetworkState, PortRange};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::create::EndpointSettings;
use crate::error::ApiError;
use crate::version::{ApiVersion, NO_LEGACY};

/// The body of `POST /networks/create`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CreateNetwork {
    pub(crate) name: String,
    #[serde(rename = "CheckDuplicate")]
    pub(crate) _check_duplicate: bool,
    pub(crate) driver: String,
    pub(crate) scope: String,
    #[serde(rename = "EnableIPv4")]
    pub(crate) enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub(crate) enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Ipam,
    pub(crate) internal: bool,
    #[serde(rename = "Attachable")]
    pub(crate) _attachable: bool,
    pub(crate) ingress: bool,
    pub(crate) config_only: bool,
    pub(crate) config_from: Option<Value>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// `IPAM`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Ipam {
    pub(crate) driver: String,
    pub(crate) config: Vec<Pool>,
    pub(crate) options: BTreeMap<String, String>,
}

/// A pool of `IPAM`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Pool {
    pub(crate) subnet: String,
    #[serde(rename = "IPRange")]
    pub(crate) ip_range: String,
    pub(crate) gateway: String,
    #[serde(alias = "AuxAddress")]
    pub(crate) auxiliary_addresses: BTreeMap<String, String>,
}

impl Pool {
    /// Whether its addresses are IPv6.
    pub(crate) fn is_ipv6(&self) -> bool {
        [&self.subnet, &self.ip_range, &self.gateway]
            .iter()
            .any(|text| text.contains(':'))
    }
}

/// The body of `connect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Connect {
    pub(crate) container: String,
    pub(crate) endpoint_config: Option<EndpointSettings>,
}

/// The body of `disconnect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Disconnect {
    pub(crate) container: String,
    pub(crate) force: bool,
}

/// A network, with the containers on it where these are wanted.
pub(crate) fn record(config: &NetworkConfig, endpoints: Option<&[Endpoint]>) -> Value {
    let endpoints = endpoints.unwrap_or_default();
    let mut record = docker::network(config, endpoints);
    for endpoint in endpoints {
        record["Containers"][&endpoint.container]["EndpointID"] = endpoint_id(endpoint).into();
    }
    record
}

/// What names an endpoint: the beginnings of its network's and its container's ids.
fn endpoint_id(endpoint: &Endpoint) -> String {
    let half = |id: &str| id.get(..32).unwrap_or(id).to_owned();
    half(&endpoint.network) + &half(&endpoint.container)
}

/// `NetworkSettings` of a container.
pub(crate) fn settings(
    engine: &Engine,
    container: &Container,
    version: ApiVersion,
) -> Result<Value, ApiError> {
    let state = engine.network_state(container);
    let asked = engine.container_network(container)?;
    let mut networks = Map::new();
    for plan in &asked.endpoints {
        let live = state.endpoints.iter().find(|e| e.network == plan.network);
        let mut record = live.map_or_else(|| nowhere(&plan.network), endpoint);
        record["Aliases"] = match plan.aliases.is_empty() {
            true => Value::Null,
            false => json!(plan.aliases),
        };
        record["GwPriority"] = json!(plan.gateway_priority);
        if let (None, Some([a, b, c, d, e, f])) = (live, plan.mac) {
            record["MacAddress"] =
                json!(format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
        }
        if plan.ipv4.is_some() || plan.ipv6.is_some() || !plan.link_local.is_empty() {
            let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
            record["IPAMConfig"] = json!({
                "IPv4Address": text(plan.ipv4), "IPv6Address": text(plan.ipv6),
                "LinkLocalIPs": plan.link_local,
            });
        }
        networks.insert(plan.name.clone(), record);
    }
    if asked.endpoints.is_empty() {
        let mode = asked.mode_text();
        if ["none", "host"].contains(&mode.as_str())
            && let Ok(config) = engine.networks().find(&mode)
        {
            networks.insert(mode, nowhere(&config.id));
        }
    }
    let mut settings = json!({
        "SandboxID": container.config.id,
        "SandboxKey": container.state.pid.map(|pid| format!("/proc/{pid}/ns/net")).unwrap_or_default(),
        "Ports": ports(&state, &asked.exposed),
        "Networks": networks,
    });
    if version < NO_LEGACY {
        let of = |name: &str| state.endpoints.iter().find(|e| e.network_name == name);
        let default = of(network::DEFAULT_NETWORK).map_or_else(|| nowhere(""), endpoint);
        for key in [
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "MacAddress",
        ] {
            settings[key] = default[key].clone();
        }
        settings["Bridge"] = "".into();
        settings["HairpinMode"] = false.into();
        settings["LinkLocalIPv6Address"] = "".into();
        settings["LinkLocalIPv6PrefixLen"] = 0.into();
        settings["SecondaryIPAddresses"] = Value::Null;
        settings["SecondaryIPv6Addresses"] = Value::Null;
    }
    Ok(settings)
}

/// A network of a container that does not run.
fn nowhere(network: &str) -> Value {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "DriverOpts": null, "GwPriority": 0,
        "NetworkID": network, "EndpointID": "", "Gateway": "", "IPAddress": "", "MacAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let address = |of: Option<(IpAddr, u8)>| of.map_or_else(String::new, |(a, _)| a.to_string());
    let prefix = |of: Option<(IpAddr, u8)>| of.map_or(0, |(_, prefix)| prefix);
    let gateway = |of: Option<IpAddr>| of.map_or_else(String::new, |a| a.to_string());
    let mut record = nowhere(&endpoint.network);
    record["EndpointID"] = endpoint_id(endpoint).into();
    record["MacAddress"] = endpoint.mac.clone().into();
    record["IPAddress"] = address(endpoint.ipv4).into();
    record["IPPrefixLen"] = prefix(endpoint.ipv4).into();
    record["Gateway"] = gateway(endpoint.gateway4).into();
    record["GlobalIPv6Address"] = address(endpoint.ipv6).into();
    record["GlobalIPv6PrefixLen"] = prefix(endpoint.ipv6).into();
    record["IPv6Gateway"] = gateway(endpoint.gateway6).into();
    record["DNSNames"] = json!(endpoint.names);
    record
}

/// Each exposed port with where it is published, `null` when nowhere.
fn ports(state: &NetworkState, exposed: &[String]) -> Map<String, Value> {
    let mut ports = Map::new();
    for text in exposed {
        if let Ok(range) = PortRange::parse(text) {
            for port in range.first..=range.last {
                ports.insert(format!("{port}/{}", range.transport), Value::Null);
            }
        }
    }
    for port in &state.ports {
        let key = format!("{}/{}", port.container_port, port.transport);
        let binding = json!({
            "HostIp": port.host.ip().to_string(),
            "HostPort": port.host.port().to_string(),
        });
        match ports.get_mut(&key) {
            Some(Value::Array(list)) => list.push(binding),
            _ => drop(ports.insert(key, json!([binding]))),
        }
    }
    ports
}

/// `Ports` of the list.
pub(crate) fn list_ports(state: &NetworkState, exposed: &[String]) -> Vec<Value> {
    let mut list: Vec<Value> = state
        .ports
        .iter()
        .map(|port| {
            json!({
                "IP": port.host.ip().to_string(),
                "PrivatePort": port.container_port,
                "PublicPort": port.host.port(),
                "Type": port.transport.name(),
            })
        })
        .collect();
    for text in exposed {
        let Ok(range) = PortRange::parse(text) else {
            continue;
        };
        for private in range.first..=range.last {
            let is_published = state
                .ports
                .iter()
                .any(|port| port.container_port == private && port.transport == range.transport);
            if !is_published {
                list.push(json!({ "PrivatePort": private, "Type": range.transport.name() }));
            }
        }
    }
    list
}
