//! The networks of a request.

use engine::{Join, Network};

use crate::error::ApiError;
use crate::version::{ApiVersion, MANY_ENDPOINTS, NO_LEGACY};
use crate::wire::create::{CreateContainer, EndpointSettings};

/// Words for the network of containers that name none.
const DEFAULT: [&str; 3] = ["", "default", network::DEFAULT_NETWORK];

/// How options of Docker's own drivers begin.
const DRIVERS: &str = "com.docker.network.";

/// What of the networks `inspect` shows again and the engine has no word for.
pub(super) fn remembered(request: &CreateContainer) -> serde_json::Value {
    let endpoints = &request.networking_config.endpoints_config;
    let with_options = endpoints
        .iter()
        .filter(|(_, settings)| !settings.driver_opts.is_empty());
    with_options
        .map(|(name, settings)| {
            let name = match DEFAULT.contains(&name.as_str()) {
                true => network::DEFAULT_NETWORK,
                false => name,
            };
            let record = serde_json::json!({ "DriverOpts": settings.driver_opts });
            (name.to_owned(), record)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The network of a container.
pub(super) fn network(request: &CreateContainer, version: ApiVersion) -> Result<Network, ApiError> {
    let host = &request.host_config;
    let endpoints = &request.networking_config.endpoints_config;
    let mode = host.network_mode.as_str();
    if !request.mac_address.is_empty() && version >= NO_LEGACY {
        return Err(ApiError::bad(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address instead",
        ));
    }
    if endpoints.len() > 1 && version < MANY_ENDPOINTS {
        return Err(ApiError::bad(
            "Container cannot be connected to network endpoints: container cannot be created on more than one network below API version 1.44",
        ));
    }
    if !host.links.is_empty() {
        return Err(ApiError::bad(
            "links between containers are not supported by ketch: put both on one network",
        ));
    }
    if let Some(network) = without_endpoint(mode) {
        return Ok(network);
    }
    if request.network_disabled {
        return Ok(Network::None);
    }
    let is_default = |name: &str| DEFAULT.contains(&name);
    let own = endpoints
        .iter()
        .find(|(name, _)| name.as_str() == mode || (is_default(mode) && is_default(name)));
    let settings = own.map(|(_, settings)| settings);
    let name = if is_default(mode) {
        network::DEFAULT_NETWORK
    } else {
        mode
    };
    let mut first = match settings {
        Some(settings) => join(name, settings)?,
        None => Join {
            network: name.to_owned(),
            ..Join::default()
        },
    };
    if !request.mac_address.is_empty() {
        first.mac = Some(mac(&request.mac_address)?);
    }
    let others = endpoints
        .iter()
        .filter(|(name, _)| own.is_none_or(|(own, _)| own != *name))
        .map(|(name, settings)| join(name, settings))
        .collect::<Result<Vec<_>, _>>()?;
    let plain = Join {
        network: network::DEFAULT_NETWORK.to_owned(),
        ..Join::default()
    };
    if others.is_empty() && first == plain {
        return Ok(Network::Default);
    }
    // A mode that names no network beside networks that are named: these are meant.
    if mode.is_empty() && own.is_none() && !others.is_empty() {
        return Ok(Network::Joined(others));
    }
    let mut joins = vec![first];
    joins.extend(others);
    Ok(Network::Joined(joins))
}

/// The network of a mode that puts a container on no network of its own.
fn without_endpoint(mode: &str) -> Option<Network> {
    match mode {
        "none" => Some(Network::None),
        "host" => Some(Network::Host),
        _ => {
            let other = mode.strip_prefix("container:")?;
            Some(Network::Container(other.to_owned()))
        }
    }
}

/// The network of a build's steps.
pub(crate) fn network_of_build(mode: &str) -> Network {
    if DEFAULT.contains(&mode) {
        return Network::Default;
    }
    without_endpoint(mode).unwrap_or_else(|| {
        Network::Joined(vec![Join {
            network: mode.to_owned(),
            ..Join::default()
        }])
    })
}

/// One network with what is asked for on it.
pub(crate) fn join(name: &str, settings: &EndpointSettings) -> Result<Join, ApiError> {
    let bad = |what: &str, text: &str| ApiError::bad(format!("invalid {what}: {text}"));
    if !settings.links.is_empty() {
        return Err(ApiError::bad(
            "links between containers are not supported by ketch: use aliases",
        ));
    }
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let mut join = Join {
        network: name.to_owned(),
        gateway_priority: settings.gw_priority,
        ..Join::default()
    };
    // On the default network nothing answers to names; clients send them all the same.
    if !DEFAULT.contains(&name) {
        join.aliases.clone_from(&settings.aliases);
    }
    if !ipam.ipv4.is_empty() {
        join.ipv4 = Some(
            ipam.ipv4
                .parse()
                .map_err(|_| bad("IPv4 address", &ipam.ipv4))?,
        );
    }
    if !ipam.ipv6.is_empty() {
        join.ipv6 = Some(
            ipam.ipv6
                .parse()
                .map_err(|_| bad("IPv6 address", &ipam.ipv6))?,
        );
    }
    for text in &ipam.link_local {
        join.link_local.push(
            text.parse()
                .map_err(|_| bad("link-local IP address", text))?,
        );
    }
    if !settings.mac_address.is_empty() {
        join.mac = Some(mac(&settings.mac_address)?);
    }
    for (key, value) in &settings.driver_opts {
        match key.as_str() {
            "com.docker.network.endpoint.ifname" if (1..=15).contains(&value.len()) => {
                join.link = Some(value.clone());
            }
            // Those of other programs are kept and shown, as by Docker.
            other if !other.starts_with(DRIVERS) => {}
            _ => return Err(bad("driver option of an endpoint", key)),
        }
    }
    Ok(join)
}

/// Six bytes of a unicast address.
fn mac(text: &str) -> Result<[u8; 6], ApiError> {
    let bad = || ApiError::bad(format!("invalid MAC address: {text}"));
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2)
            .ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    let [first, ..] = mac;
    match parts.next().is_none() && first & 1 == 0 && mac != [0; 6] {
        true => Ok(mac),
        false => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::read;
    use serde_json::json;

    fn of(value: serde_json::Value) -> Result<Network, ApiError> {
        network(&read(value).unwrap(), MANY_ENDPOINTS)
    }

    #[test]
    fn modes_and_endpoints_say_which_networks() {
        let endpoints = json!({ "EndpointsConfig": { "default": {} } });
        let plain =
            json!({ "HostConfig": { "NetworkMode": "default" }, "NetworkingConfig": endpoints });
        assert_eq!(of(plain).unwrap(), Network::Default);
        let host = json!({ "HostConfig": { "NetworkMode": "host" } });
        assert_eq!(of(host).unwrap(), Network::Host);
        let two = json!({
            "HostConfig": { "NetworkMode": "a" },
            "NetworkingConfig": { "EndpointsConfig": {
                "b": { "Aliases": ["x"] }, "a": { "MacAddress": "02:00:00:00:00:01" },
            } },
        });
        let Network::Joined(joins) = of(two).unwrap() else {
            panic!("joined")
        };
        let names: Vec<&str> = joins.iter().map(|join| join.network.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(joins[0].mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(joins[1].aliases, ["x"]);
        assert!(of(json!({ "HostConfig": { "Links": ["db"] } })).is_err());
    }
}
