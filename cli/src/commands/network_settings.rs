//! `NetworkSettings` of `inspect`, in Docker's shape.

use std::net::IpAddr;

use engine::{Container, Engine};
use network::Endpoint;
use serde_json::{Value, json};

/// Docker's word for whose network a container has.
pub(crate) fn mode(engine: &Engine, container: &Container) -> String {
    let network = engine.container_network(container);
    network.map_or_else(|_| String::new(), |network| network.mode_text())
}

/// What a container has of the network now; names of networks alone while it does not run.
pub(crate) fn json(engine: &Engine, container: &Container) -> Value {
    let state = engine.network_state(container);
    let asked = engine.container_network(container).ok();
    let exposed = asked.as_ref().map(|network| network.exposed.clone());
    let mut networks = serde_json::Map::new();
    for plan in asked.iter().flat_map(|network| &network.endpoints) {
        let live = state.endpoints.iter().find(|e| e.network == plan.network);
        let wishes = json!({ "IPv4Address": plan.ipv4, "IPv6Address": plan.ipv6 });
        let mut record = live.map_or_else(|| empty(&plan.network), endpoint);
        record["Aliases"] = json!(plan.aliases);
        record["GwPriority"] = json!(plan.gateway_priority);
        record["IPAMConfig"] = wishes;
        networks.insert(plan.name.clone(), record);
    }
    // What an ordinary user's container has is no network that it was put on.
    for live in state.endpoints.iter().filter(|e| e.network.is_empty()) {
        networks.insert(live.network_name.clone(), endpoint(live));
    }
    let public = state.ports.iter().any(|port| !port.host.ip().is_loopback());
    let mut settings = json!({
        "Ports": super::port::json(&state, &exposed.unwrap_or_default()),
        "PortsReachable": if public { "public" } else { "local" },
        "Networks": networks,
    });
    if state.ports.is_empty() {
        settings["PortsReachable"] = Value::Null;
    }
    let default = state
        .endpoints
        .iter()
        .find(|e| e.network.is_empty() || e.network_name == network::DEFAULT_NETWORK);
    for key in [
        "IPAddress",
        "IPPrefixLen",
        "Gateway",
        "MacAddress",
        "GlobalIPv6Address",
        "IPv6Gateway",
    ] {
        settings[key] = default.map_or(
            json!(if key == "IPPrefixLen" {
                json!(0)
            } else {
                json!("")
            }),
            |e| endpoint(e)[key].clone(),
        );
    }
    settings
}

fn empty(network: &str) -> Value {
    json!({ "NetworkID": network, "IPAddress": "", "MacAddress": "" })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let address = |of: Option<(IpAddr, u8)>| of.map_or_else(String::new, |(a, _)| a.to_string());
    let prefix = |of: Option<(IpAddr, u8)>| of.map_or(0, |(_, prefix)| prefix);
    let gateway = |of: Option<IpAddr>| of.map_or_else(String::new, |a| a.to_string());
    json!({
        "NetworkID": endpoint.network,
        "MacAddress": endpoint.mac,
        "IPAddress": address(endpoint.ipv4),
        "IPPrefixLen": prefix(endpoint.ipv4),
        "Gateway": gateway(endpoint.gateway4),
        "GlobalIPv6Address": address(endpoint.ipv6),
        "GlobalIPv6PrefixLen": prefix(endpoint.ipv6),
        "IPv6Gateway": gateway(endpoint.gateway6),
        "DNSNames": endpoint.names,
    })
}
