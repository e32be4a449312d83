//! Published ports. The bound socket is the allocation: nothing is written down, and a port is free
//! the moment its monitor ends, however that happens.

mod bind;
mod owner;
mod parse;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use bind::{Bound, Target, bind_again, bind_all};
pub(crate) use owner::{owner, taker};
pub use parse::PortRange;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

/// How ports are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Publish {
    /// The kernel translates addresses: fast, the client's address is kept, and rules for the
    /// host's own ports do not see it.
    #[default]
    Kernel,
    /// The monitor listens and passes on: rules for the host's own ports apply.
    Proxy,
}

/// One port of a container to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The host's address; the default ones when absent.
    pub host: Option<IpAddr>,
    /// The host's port: the first that is free of these, or any when absent.
    pub host_ports: Option<(u16, u16)>,
    /// The container's port.
    pub container_port: u16,
    /// Its protocol.
    pub transport: Transport,
}

/// A port that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The container's port.
    pub container_port: u16,
    /// Its protocol.
    pub transport: Transport,
    /// The host's address and port.
    pub host: SocketAddr,
}

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) transport: Transport,
    pub(crate) host: SocketAddr,
    pub(crate) container: SocketAddr,
    /// Never by the kernel.
    pub(crate) proxied: bool,
}

impl Mapping {
    pub(crate) fn published(&self) -> Published {
        Published {
            container_port: self.container.port(),
            transport: self.transport,
            host: self.host,
        }
    }
}
