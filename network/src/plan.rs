//! What a monitor is told of its container's network: made by the engine, opaque to everything in
//! between.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use state::Layout;

use crate::NetworkError;
use crate::ports::{PortRequest, Publish};
use crate::user_mode::Helper;

/// A container on a network, before it has addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPlan {
    /// The network's id.
    pub network: String,
    /// The network's name, for messages.
    pub name: String,
    /// Further names on this network.
    pub aliases: Vec<String>,
    /// The IPv4 address; a free one when absent.
    pub ipv4: Option<IpAddr>,
    /// The IPv6 address; a free one when absent.
    pub ipv6: Option<IpAddr>,
    /// The hardware address; one made from the address when absent.
    pub mac: Option<[u8; 6]>,
    /// Addresses that are valid on this link only.
    pub link_local: Vec<IpAddr>,
    /// The network with the highest number is the way outside.
    pub gateway_priority: i32,
    /// The link's name in the container.
    pub link: Option<String>,
}

impl EndpointPlan {
    /// An endpoint without wishes.
    #[must_use]
    pub fn on(network: &str, name: &str) -> Self {
        Self {
            network: network.to_owned(),
            name: name.to_owned(),
            aliases: Vec::new(),
            ipv4: None,
            ipv6: None,
            mac: None,
            link_local: Vec::new(),
            gateway_priority: 0,
            link: None,
        }
    }
}

impl EndpointPlan {
    /// The bytes that travel to the container's monitor.
    ///
    /// # Errors
    /// Never for what this version makes.
    pub fn encode(&self) -> Result<Vec<u8>, NetworkError> {
        postcard::to_stdvec(self).map_err(NetworkError::Plan)
    }

    /// What [`EndpointPlan::encode`] made.
    ///
    /// # Errors
    /// When another version made the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, NetworkError> {
        postcard::from_bytes(bytes).map_err(NetworkError::Plan)
    }
}

/// Who a name in `/etc/hosts` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostTarget {
    /// An address.
    Address(IpAddr),
    /// The host, as the container reaches it.
    Gateway,
}

/// How names are resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// Resolvers in place of the host's.
    pub servers: Vec<IpAddr>,
    /// Domains in place of the host's; `.` alone means none.
    pub search: Vec<String>,
    /// `options` in place of the host's.
    pub options: Vec<String>,
}

/// How an ordinary user's container has a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserWay {
    /// What carries its packets; without it the container has its loopback link alone, and the
    /// monitor passes published ports on.
    pub helper: Option<Helper>,
}

/// Everything about a container's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// The lasting directory of ketch.
    pub root: PathBuf,
    /// The directory that is gone after a reboot.
    pub run: PathBuf,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Its domain, when it has one.
    pub domainname: Option<String>,
    /// The networks that it is on.
    pub endpoints: Vec<EndpointPlan>,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// How they are published.
    pub publish: Publish,
    /// The host's addresses of ports that name none.
    pub publish_addresses: Vec<IpAddr>,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<(String, HostTarget)>,
    /// How names are resolved.
    pub dns: DnsOptions,
    /// Where `hosts` and `resolv.conf` are.
    pub files: PathBuf,
    /// In place of networks, for an ordinary user.
    pub user: Option<UserWay>,
}

impl NetworkPlan {
    /// The bytes that travel in the container's plan.
    ///
    /// # Errors
    /// When a path is no UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>, NetworkError> {
        postcard::to_stdvec(self).map_err(NetworkError::Plan)
    }

    /// What [`NetworkPlan::encode`] made.
    ///
    /// # Errors
    /// When another version made the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, NetworkError> {
        postcard::from_bytes(bytes).map_err(NetworkError::Plan)
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::made(self.root.clone(), self.run.clone())
    }
}
