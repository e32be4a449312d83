//! Networks of containers: bridges, addresses, published ports and names. It owns the records of
//! networks, the links and the one nftables table that are made from them, and what a monitor serves
//! for its container: port proxies, and the responder for names. It starts no program but the helper
//! of an ordinary user's container, and touches nothing that is not ketch's.
#![forbid(unsafe_code)]

mod bridge;
mod child;
mod dns;
mod error;
mod files;
mod firewall;
mod lease;
mod live;
mod plan;
mod pool;
mod ports;
mod proxy;
mod record;
mod restore;
mod store;
mod subnet;
mod user_mode;

pub use error::NetworkError;
pub use files::{RESOLVER, Resolv, Resolver, hosts_text, resolv_conf};
pub use lease::{Endpoint, release};
pub use live::{Live, NetworkState, clear_left};
pub use plan::{DnsOptions, EndpointPlan, HostTarget, NetworkPlan, UserWay};
pub use ports::{PortRange, PortRequest, Publish, Published, Transport};
pub use record::{Driver, NetworkConfig, Pool, VERSION};
pub use store::{CreateNetwork, Networks};
pub use subnet::Subnet;
pub use user_mode::{Helper, serve_sockets};

/// Why this process cannot have bridge networks, as far as that can be told without making one;
/// nothing when it can.
#[must_use]
pub fn bridge_obstacle() -> Option<String> {
    let rules = firewall::Firewall::open().and_then(|firewall| firewall.is_up());
    rules.err().map(|error| error.line())
}

/// The network of containers that name none; made when it is first used.
pub const DEFAULT_NETWORK: &str = "bridge";

/// What a running container has of the network, in its run directory.
pub const STATE_FILE: &str = "network.json";
