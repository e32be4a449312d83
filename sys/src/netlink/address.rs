//! Addresses and routes (`linux/if_addr.h`, `linux/rtnetlink.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use super::message::{attributes, flag, read_u32};
use super::{Batch, Netlink};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// No duplicate address detection: the address is leased, and used at once.
const IFA_F_NODAD: u32 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;

const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTPROT_BOOT: u8 = 3;
const RTPROT_RA: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Calls `with` on the address's family and bytes.
fn family_of(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// Gives a link an address.
pub fn add_address(batch: &mut Batch, index: u32, address: IpAddr, prefix: u8) {
    let (family, bytes) = family_of(address);
    let mut head = [family, prefix, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.push(RTM_NEWADDR, flag::CREATE | flag::EXCL, &head, |a| {
        a.bytes(IFA_ADDRESS, &bytes);
        a.bytes(IFA_LOCAL, &bytes);
        match address {
            IpAddr::V4(address) if prefix < 31 => {
                let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                a.bytes(IFA_BROADCAST, &(address.to_bits() | hosts).to_be_bytes());
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => a.u32(IFA_FLAGS, IFA_F_NODAD),
        }
    });
}

/// Adds a default route: through a gateway, or straight out of the link.
pub fn add_default_route(batch: &mut Batch, index: u32, family_of_route: IpAddr, direct: bool) {
    let (family, bytes) = family_of(family_of_route);
    let scope = if direct {
        RT_SCOPE_LINK
    } else {
        RT_SCOPE_UNIVERSE
    };
    let mut head = [0; 12];
    head[0] = family;
    head[4..8].copy_from_slice(&[RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST]);
    batch.push(RTM_NEWROUTE, flag::CREATE | flag::REPLACE, &head, |a| {
        if !direct {
            a.bytes(RTA_GATEWAY, &bytes);
        }
        a.u32(RTA_OIF, index);
    });
}

/// A route to a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The first address.
    pub destination: IpAddr,
    /// How many bits of it are fixed; 0 is a default route.
    pub prefix: u8,
    /// The link's index, when there is one link.
    pub link: Option<u32>,
    /// A router announced it.
    pub is_announced: bool,
}

/// The unicast routes of all tables but the kernel's own local one.
///
/// # Errors
/// As [`Netlink::dump`].
pub fn routes(netlink: &Netlink) -> Result<Vec<Route>, Errno> {
    let mut routes = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut head = [0; 12];
        head[0] = family;
        let mut batch = Batch::route();
        batch.push(RTM_GETROUTE, flag::DUMP, &head, |_| {});
        netlink.dump(batch, |kind, body| {
            if kind == RTM_NEWROUTE {
                routes.extend(parse_route(body));
            }
        })?;
    }
    Ok(routes)
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let mut table = u32::from(*body.get(4)?);
    let family = *body.first()?;
    let mut route = Route {
        destination: if family == AF_INET {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        },
        prefix: *body.get(1)?,
        link: None,
        is_announced: *body.get(5)? == RTPROT_RA,
    };
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            RTA_DST => route.destination = address_from(value)?,
            RTA_OIF => route.link = read_u32(value, 0),
            RTA_TABLE => table = read_u32(value, 0)?,
            _ => {}
        }
    }
    (*body.get(7)? == RTN_UNICAST && table != RT_TABLE_LOCAL).then_some(route)
}

/// The addresses of all links: the link's index, the address, its prefix.
///
/// # Errors
/// As [`Netlink::dump`].
pub fn addresses(netlink: &Netlink) -> Result<Vec<(u32, IpAddr, u8)>, Errno> {
    let mut batch = Batch::route();
    batch.push(RTM_GETADDR, flag::DUMP, &[0; 8], |_| {});
    let mut found = Vec::new();
    netlink.dump(batch, |kind, body| {
        if kind == RTM_NEWADDR {
            found.extend(parse_address(body));
        }
    })?;
    Ok(found)
}

fn parse_address(body: &[u8]) -> Option<(u32, IpAddr, u8)> {
    let (prefix, index) = (*body.get(1)?, read_u32(body, 4)?);
    let mut address = None;
    for (kind, value) in attributes(body.get(8..)?) {
        // With a peer only IFA_LOCAL is this end's.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = address_from(value);
        }
    }
    Some((index, address?, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Protocol;

    #[test]
    fn addresses_hold_the_loopback_address() {
        let netlink = Netlink::open(Protocol::Route).unwrap();
        let found = addresses(&netlink).unwrap();
        assert!(found.contains(&(1, Ipv4Addr::LOCALHOST.into(), 8)));
        routes(&netlink).unwrap();
    }
}
