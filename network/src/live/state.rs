//! What a running container has of the network, as its monitor writes it down.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::lease::Endpoint;
use crate::ports::{Mapping, Published};

/// What a running container has of the network: `network.json` in its run directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The networks that it is on.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Vec<Published>,
    /// Where the kernel sends each of them.
    pub targets: Vec<SocketAddr>,
    /// The ports are all passed on by a process.
    pub proxied: bool,
}

impl NetworkState {
    /// The mappings of the published ports.
    pub(crate) fn mappings(&self) -> Vec<Mapping> {
        let pairs = self.ports.iter().zip(&self.targets);
        pairs
            .map(|(port, target)| Mapping {
                transport: port.transport,
                host: port.host,
                container: *target,
                proxied: self.proxied,
            })
            .collect()
    }
}
