//! Which subnets a network gets: those that were asked for, or free ones of a large pool. Default
//! routes never stand in the way, not even the two halves that some VPNs use; a route that does is
//! named.

use std::net::{IpAddr, Ipv6Addr};

use sys::netlink::address::{self, Route};
use sys::netlink::{Netlink, Protocol};

use crate::record::{Driver, NetworkConfig, Pool};
use crate::store::CreateNetwork;
use crate::{NetworkError, Subnet};

/// Where subnets come from when none is asked for.
const POOLS: [&str; 2] = ["172.30.0.0/15", "10.176.0.0/12"];

/// What a network gets of them: 256 addresses.
const PREFIX: u8 = 24;

/// A route that is shorter covers so much that it is a default route.
const SHORTEST_ROUTE: u8 = 8;

/// What stands in the way of a subnet.
enum Obstacle {
    Network(Subnet, String),
    Route(Subnet, Option<u32>),
}

/// The pools of a new network.
pub(crate) fn settle(
    options: &CreateNetwork,
    id: &str,
    others: &[NetworkConfig],
) -> Result<[Option<Pool>; 2], NetworkError> {
    let of = |is_ipv4: bool| {
        let mut subnets = options.subnets.iter().filter(|s| s.is_ipv4() == is_ipv4);
        match (subnets.next(), subnets.next()) {
            (first, None) => Ok(first.copied()),
            (_, Some(second)) => Err(bad(
                &format!("--subnet {second}"),
                "a network has one subnet of each family",
            )),
        }
    };
    let (subnet4, subnet6) = (of(true)?, of(false)?);
    let netlink =
        Netlink::open(Protocol::Route).map_err(NetworkError::kernel("open a routing socket"))?;
    let routes = address::routes(&netlink).map_err(NetworkError::kernel("list the routes"))?;
    let host = Host {
        routes: &routes,
        others,
        netlink: &netlink,
    };

    let has_ipv6 = options
        .ipv6
        .unwrap_or(options.driver == Driver::Bridge && has_ipv6_stack());
    let subnet4 = match subnet4 {
        _ if !options.ipv4 => None,
        Some(subnet) => Some(host.check(subnet, options.driver)?),
        None => Some(host.free()?),
    };
    let subnet6 = match subnet6 {
        Some(subnet) => Some(host.check(subnet, options.driver)?),
        None if has_ipv6 => Some(host.check(unique_local(id), options.driver)?),
        None => None,
    };
    if subnet4.is_none() && subnet6.is_none() {
        return Err(bad("--ipv4=false", "without --ipv6 no address is left"));
    }
    let pools = [
        subnet4.map(|subnet| pool(options, subnet)).transpose()?,
        subnet6.map(|subnet| pool(options, subnet)).transpose()?,
    ];
    all_used(options, &pools)?;
    Ok(pools)
}

fn bad(option: &str, why: &str) -> NetworkError {
    NetworkError::BadOption {
        option: option.to_owned(),
        why: why.to_owned(),
    }
}

/// Whether the kernel speaks IPv6.
pub(crate) fn has_ipv6_stack() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// Gateway, range and reserved addresses of a subnet.
fn pool(options: &CreateNetwork, subnet: Subnet) -> Result<Pool, NetworkError> {
    if subnet.is_ipv4() && subnet.prefix() > 30 {
        return Err(bad(
            &format!("--subnet {subnet}"),
            "it has no room for containers",
        ));
    }
    let range = options
        .ranges
        .iter()
        .find(|r| subnet.contains(r.base()) && r.prefix() >= subnet.prefix());
    let given = options
        .gateways
        .iter()
        .find(|g| subnet.contains(**g))
        .copied();
    // macvlan and ipvlan: the first address is some router's, unless nothing leads outside.
    let first = range.and_then(|range| range.nth(u128::from(range.base() == subnet.base())));
    let gateway = match given {
        Some(gateway) => Some(gateway),
        None if options.internal && options.driver != Driver::Bridge => None,
        None => first
            .filter(|_| options.driver == Driver::Bridge)
            .or(subnet.nth(1)),
    };
    let reserved = options.reserved.iter();
    Ok(Pool {
        subnet,
        gateway,
        range: range.copied(),
        reserved: reserved
            .filter(|(_, address)| subnet.contains(**address))
            .map(|(name, address)| (name.clone(), *address))
            .collect(),
    })
}

/// What was asked for lies in some subnet, or it is an error.
fn all_used(options: &CreateNetwork, pools: &[Option<Pool>; 2]) -> Result<(), NetworkError> {
    let inside = |address: IpAddr| {
        let mut pools = pools.iter().flatten();
        pools.any(|pool| pool.subnet.contains(address))
    };
    let outside = |option: String| Err(bad(&option, "it is outside the subnet"));
    if let Some(gateway) = options.gateways.iter().find(|g| !inside(**g)) {
        return outside(format!("--gateway {gateway}"));
    }
    if let Some((name, address)) = options.reserved.iter().find(|(_, a)| !inside(**a)) {
        return outside(format!("--aux-address {name}={address}"));
    }
    for range in &options.ranges {
        let used = pools
            .iter()
            .flatten()
            .any(|p| p.range.as_ref() == Some(range));
        if !used {
            return outside(format!("--ip-range {range}"));
        }
    }
    Ok(())
}

/// A subnet of the locally assigned addresses (RFC 4193), from the network's random id.
fn unique_local(id: &str) -> Subnet {
    let random = id
        .get(..10)
        .and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let global = u128::from(random.unwrap_or(0)) << 80;
    let base = Ipv6Addr::from_bits(0xfd << 120 | global);
    Subnet::of(base.into(), 64).expect("64 is a prefix of IPv6")
}

struct Host<'a> {
    routes: &'a [Route],
    others: &'a [NetworkConfig],
    netlink: &'a Netlink,
}

impl Host<'_> {
    fn obstacle(&self, subnet: Subnet, with_routes: bool) -> Option<Obstacle> {
        for other in self.others {
            if let Some(pool) = other.pools().find(|pool| pool.subnet.overlaps(&subnet)) {
                return Some(Obstacle::Network(pool.subnet, other.name.clone()));
            }
        }
        let routes = self.routes.iter().filter(|route| {
            with_routes
                && route.prefix >= SHORTEST_ROUTE
                && route.destination.is_ipv4() == subnet.is_ipv4()
        });
        for route in routes {
            let Ok(destination) = Subnet::of(route.destination, route.prefix) else {
                continue;
            };
            if destination.overlaps(&subnet) && !is_link_local(destination.base()) {
                return Some(Obstacle::Route(destination, route.link));
            }
        }
        None
    }

    fn refuse(&self, subnet: Subnet, obstacle: Obstacle) -> NetworkError {
        match obstacle {
            Obstacle::Network(other, name) => NetworkError::SubnetInUse {
                subnet,
                other,
                name,
            },
            Obstacle::Route(route, link) => NetworkError::RouteConflict {
                subnet,
                route,
                link: link
                    .and_then(|index| self.netlink.link_name(index).ok())
                    .unwrap_or_else(|| "several links".to_owned()),
            },
        }
    }

    /// A subnet that was asked for. The links of macvlan and ipvlan stand in the subnet of their
    /// parent, to which the host has a route of course.
    fn check(&self, subnet: Subnet, driver: Driver) -> Result<Subnet, NetworkError> {
        match self.obstacle(subnet, driver == Driver::Bridge) {
            None => Ok(subnet),
            Some(obstacle) => Err(self.refuse(subnet, obstacle)),
        }
    }

    /// The first free subnet of the pool.
    fn free(&self) -> Result<Subnet, NetworkError> {
        for pool in POOLS {
            let pool: Subnet = pool.parse()?;
            let step = 1_u128 << (32 - PREFIX);
            for number in (0..=pool.last()).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let Some(base) = pool.nth(number) else { break };
                let subnet = Subnet::of(base, PREFIX)?;
                if self.obstacle(subnet, true).is_none() {
                    return Ok(subnet);
                }
            }
        }
        Err(NetworkError::PoolExhausted(POOLS.join(" and ")))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
