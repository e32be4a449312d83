//! What a container is created with.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::host_config::HostConfig;

/// The body of `POST /containers/create`. Fields that are not known are ignored, as by Docker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CreateContainer {
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) user: String,
    pub(crate) exposed_ports: BTreeMap<String, Value>,
    pub(crate) tty: bool,
    pub(crate) open_stdin: bool,
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) healthcheck: Option<Healthcheck>,
    pub(crate) image: String,
    pub(crate) volumes: BTreeMap<String, Value>,
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "words")]
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) network_disabled: bool,
    pub(crate) mac_address: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: String,
    pub(crate) stop_timeout: Option<i64>,
    pub(crate) host_config: HostConfig,
    pub(crate) networking_config: NetworkingConfig,
}

/// A health check; durations are nanoseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Healthcheck {
    pub(crate) test: Vec<String>,
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) start_period: u64,
    pub(crate) start_interval: u64,
    pub(crate) retries: u32,
}

/// `NetworkingConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct NetworkingConfig {
    pub(crate) endpoints_config: BTreeMap<String, EndpointSettings>,
}

/// A container on a network: what is asked for. What only responses have is taken and means nothing;
/// anything else is refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    pub(crate) ipam_config: Option<EndpointIpam>,
    pub(crate) links: Vec<String>,
    pub(crate) aliases: Vec<String>,
    pub(crate) mac_address: String,
    pub(crate) driver_opts: BTreeMap<String, String>,
    pub(crate) gw_priority: i32,
    #[serde(rename = "NetworkID")]
    _network_id: Value,
    #[serde(rename = "EndpointID")]
    _endpoint_id: Value,
    #[serde(rename = "Gateway")]
    _gateway: Value,
    #[serde(rename = "IPAddress")]
    _ip_address: Value,
    #[serde(rename = "IPPrefixLen")]
    _ip_prefix_len: Value,
    #[serde(rename = "IPv6Gateway")]
    _ipv6_gateway: Value,
    #[serde(rename = "GlobalIPv6Address")]
    _global_ipv6_address: Value,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    _global_ipv6_prefix_len: Value,
    #[serde(rename = "DNSNames")]
    _dns_names: Value,
}

/// `IPAMConfig` of an endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EndpointIpam {
    #[serde(rename = "IPv4Address")]
    pub(crate) ipv4: String,
    #[serde(rename = "IPv6Address")]
    pub(crate) ipv6: String,
    #[serde(rename = "LinkLocalIPs")]
    pub(crate) link_local: Vec<String>,
}

/// A command: a list, or one word alone.
pub(crate) fn words<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    let words = Option::<Words>::deserialize(deserializer)?;
    Ok(words.map(|words| match words {
        Words::One(word) => vec![word],
        Words::Many(words) => words,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::drop_nulls;
    use crate::call::read;
    use serde_json::json;

    #[test]
    fn request_of_the_command_line_with_its_nulls_is_read() {
        let mut value = json!({
            "Hostname": "", "Env": null, "Cmd": ["echo", "x"], "Entrypoint": null, "Image": "a",
            "Volumes": {}, "OnBuild": null, "Labels": {},
            "HostConfig": {
                "Binds": null, "NetworkMode": "default", "RestartPolicy": { "Name": "no" },
                "PidsLimit": 0, "MemorySwappiness": -1, "ConsoleSize": [0, 0], "Ulimits": [],
            },
            "NetworkingConfig": { "EndpointsConfig": { "default": {
                "IPAMConfig": null, "Aliases": null, "NetworkID": "", "DNSNames": null,
            } } },
        });
        drop_nulls(&mut value);
        let request: CreateContainer = read(value).unwrap();
        assert_eq!(request.cmd.unwrap(), ["echo", "x"]);
        assert_eq!(request.entrypoint, None);
        assert!(
            request
                .networking_config
                .endpoints_config
                .contains_key("default")
        );
    }

    #[test]
    fn one_word_is_a_command_and_an_unknown_endpoint_field_is_refused() {
        let request: CreateContainer = read(json!({ "Cmd": "true" })).unwrap();
        assert_eq!(request.cmd.unwrap(), ["true"]);
        let value = json!({ "NetworkingConfig": { "EndpointsConfig": { "n": { "Alias": 1 } } } });
        assert!(read::<CreateContainer>(value).is_err());
    }
}
