//! What a network is: its record, written once, and the options that drivers understand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{NetworkError, Subnet};

/// The version of the record.
pub const VERSION: u32 = 1;

/// How a network reaches its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host, a veth pair for each container.
    Bridge,
    /// The host's own namespace.
    Host,
    /// The loopback link alone.
    Null,
    /// Links with hardware addresses of their own on a link of the host.
    Macvlan,
    /// Links that share the hardware address of a link of the host.
    Ipvlan,
}

impl Driver {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }

    /// The driver of a name.
    ///
    /// # Errors
    /// When no driver has it.
    pub fn parse(name: &str) -> Result<Self, NetworkError> {
        match name {
            "bridge" => Ok(Self::Bridge),
            "macvlan" => Ok(Self::Macvlan),
            "ipvlan" => Ok(Self::Ipvlan),
            "host" | "none" | "null" => Err(NetworkError::BadOption {
                option: format!("driver={name}"),
                why: "there is one such network, and it is built in".to_owned(),
            }),
            _ => Err(NetworkError::BadOption {
                option: format!("driver={name}"),
                why: "it is bridge, macvlan or ipvlan".to_owned(),
            }),
        }
    }
}

/// The addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: Subnet,
    /// The host's own, or a router's; none on an internal macvlan or ipvlan.
    pub gateway: Option<IpAddr>,
    /// What containers get addresses from, when that is not the whole subnet.
    pub range: Option<Subnet>,
    /// Addresses that belong to something else, by its name.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// `config.json` of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// [`VERSION`].
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique on this host.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// How it reaches its containers.
    pub driver: Driver,
    /// No way out.
    pub internal: bool,
    /// IPv4 addresses.
    pub ipv4: Option<Pool>,
    /// IPv6 addresses.
    pub ipv6: Option<Pool>,
    /// The user's own.
    pub labels: BTreeMap<String, String>,
    /// Driver options as they were given.
    pub options: BTreeMap<String, String>,
}

/// What `options` of a bridge say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeOptions {
    pub(crate) link: String,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) host_binding: Option<IpAddr>,
    pub(crate) inhibit_ipv4: bool,
    /// Another prefix than `eth` for links in containers.
    pub(crate) link_prefix: Option<String>,
}

/// The option that names a network's bridge.
pub(crate) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const LINK_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// The shortest MTU of IPv4 (RFC 791), and what a link can have.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65_535;

impl NetworkConfig {
    /// The first twelve digits of the id.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The pools that there are, IPv4 first.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    /// Whether it is the network of containers that name none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.name == crate::DEFAULT_NETWORK
    }

    /// The name of its bridge.
    #[must_use]
    pub fn bridge_link(&self) -> String {
        self.bridge().map_or_else(|_| String::new(), |b| b.link)
    }

    pub(crate) fn bridge(&self) -> Result<BridgeOptions, NetworkError> {
        let mut bridge = BridgeOptions {
            link: if self.is_default() {
                "ketch0".to_owned()
            } else {
                format!("kt-{}", self.short_id())
            },
            icc: true,
            masquerade: true,
            mtu: None,
            host_binding: None,
            inhibit_ipv4: false,
            link_prefix: None,
        };
        for (key, value) in &self.options {
            let option = Given { key, value };
            match key.as_str() {
                BRIDGE_NAME => bridge.link = option.link_name()?,
                ICC => bridge.icc = option.switch()?,
                MASQUERADE => bridge.masquerade = option.switch()?,
                INHIBIT_IPV4 => bridge.inhibit_ipv4 = option.switch()?,
                HOST_BINDING => bridge.host_binding = Some(option.address()?),
                MTU | "mtu" => bridge.mtu = Some(option.mtu()?),
                LINK_PREFIX => bridge.link_prefix = Some(option.link_name()?),
                // What it says is so: there is one default bridge.
                DEFAULT_BRIDGE if option.switch()? == self.is_default() => {}
                _ => return Err(option.unknown("bridge")),
            }
        }
        Ok(bridge)
    }
}

/// One driver option.
pub(crate) struct Given<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
}

impl Given<'_> {
    pub(crate) fn wrong(&self, why: &str) -> NetworkError {
        NetworkError::BadOption {
            option: format!("{}={}", self.key, self.value),
            why: why.to_owned(),
        }
    }

    pub(crate) fn unknown(&self, driver: &str) -> NetworkError {
        self.wrong(&format!("the {driver} driver does not know it"))
    }

    pub(crate) fn switch(&self) -> Result<bool, NetworkError> {
        match self.value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.wrong("it is true or false")),
        }
    }

    pub(crate) fn mtu(&self) -> Result<u32, NetworkError> {
        let value = self.value.parse().ok();
        value
            .filter(|mtu| MTU_RANGE.contains(mtu))
            .ok_or_else(|| self.wrong("it is a number from 68 to 65535"))
    }

    fn address(&self) -> Result<IpAddr, NetworkError> {
        self.value
            .parse()
            .map_err(|_| self.wrong("it is an address"))
    }

    /// A link's name: at most 15 bytes, no slash, colon or space.
    pub(crate) fn link_name(&self) -> Result<String, NetworkError> {
        let name = self.value;
        let good = (1..=15).contains(&name.len())
            && !matches!(name, "." | ".." | "all" | "default" | "lo")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
        if good {
            Ok(name.to_owned())
        } else {
            Err(self.wrong("it is no name of a link"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> NetworkConfig {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        NetworkConfig {
            version: VERSION,
            id: "ab".repeat(32),
            name: "web".to_owned(),
            created: String::new(),
            driver: Driver::Bridge,
            internal: false,
            ipv4: None,
            ipv6: None,
            labels: BTreeMap::new(),
            options: options.iter().map(owned).collect(),
        }
    }

    #[test]
    fn bridge_options_are_dockers() {
        let bridge = config(&[(ICC, "false"), (MTU, "1400"), (BRIDGE_NAME, "br7")])
            .bridge()
            .unwrap();
        assert_eq!(
            (bridge.icc, bridge.mtu, bridge.link.as_str()),
            (false, Some(1400), "br7")
        );
        assert_eq!(config(&[]).bridge().unwrap().link, "kt-abababababab");
    }

    #[test]
    fn unknown_option_and_bad_value_are_refused() {
        for pair in [
            ("com.example.x", "1"),
            (ICC, "perhaps"),
            (MTU, "9"),
            (BRIDGE_NAME, "a/b"),
            (BRIDGE_NAME, "a-name-of-sixteen"),
        ] {
            assert!(config(&[pair]).bridge().is_err(), "{pair:?}");
        }
    }
}
