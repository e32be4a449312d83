//! The macvlan and ipvlan drivers: each container gets a link on a link of the host, without a
//! bridge; what other hosts see is the container itself.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use sys::netlink::link::{self, ChildMode, Mac, Peer};
use sys::netlink::{Batch, Netlink};

use crate::NetworkError;
use crate::bridge::{delete_link, open};
use crate::record::{Driver, Given, NetworkConfig};

/// What the options of a macvlan or ipvlan network say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    parent: String,
    mode: ChildMode,
    mtu: Option<u32>,
}

fn options(config: &NetworkConfig) -> Result<Options, NetworkError> {
    let driver = config.driver;
    let (mut parent, mut mtu) = (None, None);
    let mut macvlan_mode = 4;
    let (mut ipvlan_mode, mut ipvlan_flag) = (0, 0);
    for (key, value) in &config.options {
        let option = Given { key, value };
        match (key.as_str(), driver) {
            ("parent", _) => parent = Some(option.link_name()?),
            ("com.docker.network.driver.mtu" | "mtu", _) => mtu = Some(option.mtu()?),
            ("macvlan_mode", Driver::Macvlan) => {
                macvlan_mode = match value.as_str() {
                    "private" => 1,
                    "vepa" => 2,
                    "bridge" | "" => 4,
                    "passthru" => 8,
                    _ => return Err(option.wrong("it is bridge, private, vepa or passthru")),
                };
            }
            ("ipvlan_mode", Driver::Ipvlan) => {
                ipvlan_mode = match value.as_str() {
                    "l2" | "" => 0,
                    "l3" => 1,
                    "l3s" => 2,
                    _ => return Err(option.wrong("it is l2, l3 or l3s")),
                };
            }
            ("ipvlan_flag", Driver::Ipvlan) => {
                ipvlan_flag = match value.as_str() {
                    "bridge" | "" => 0,
                    "private" => 1,
                    "vepa" => 2,
                    _ => return Err(option.wrong("it is bridge, private or vepa")),
                };
            }
            _ => return Err(option.unknown(driver.name())),
        }
    }
    let parent = parent.ok_or_else(|| NetworkError::BadOption {
        option: "parent".to_owned(),
        why: format!("a {} network needs `-o parent=LINK`", driver.name()),
    })?;
    let mode = if driver == Driver::Macvlan {
        ChildMode::Macvlan(macvlan_mode)
    } else {
        ChildMode::Ipvlan(ipvlan_mode, ipvlan_flag)
    };
    Ok(Options { parent, mode, mtu })
}

/// A VLAN link in the form `LINK.NUMBER`, which is made when it is missing.
fn vlan(parent: &str) -> Option<(&str, u16)> {
    let (link, number) = parent.rsplit_once('.')?;
    let number = number.parse().ok().filter(|n| (1..=4094).contains(n))?;
    Some((link, number))
}

/// Refuses options that are wrong, and a parent that is missing.
pub(crate) fn check(config: &NetworkConfig) -> Result<(), NetworkError> {
    parent(&open()?, &options(config)?.parent).map(drop)
}

/// The index of the parent; a VLAN is made.
fn parent(netlink: &Netlink, name: &str) -> Result<u32, NetworkError> {
    if let Ok(index) = netlink.link_index(name) {
        return Ok(index);
    }
    let failed = || NetworkError::kernel(format!("find the parent link `{name}`"));
    let (base, number) = vlan(name).ok_or(Errno::NODEV).map_err(failed())?;
    let base = netlink.link_index(base).map_err(failed())?;
    let mut batch = Batch::route();
    link::create_vlan(&mut batch, base, name, number);
    netlink
        .execute(batch)
        .map_err(|refused| match refused.errno {
            Errno::OPNOTSUPP => NetworkError::Missing {
                what: format!("VLANs (for `parent={name}`)"),
            },
            errno => NetworkError::kernel(format!("make the VLAN link `{name}`"))(errno),
        })?;
    netlink.link_index(name).map_err(failed())
}

/// Makes a container's link inside its namespace, not up yet.
pub(crate) fn attach(
    netlink: &Netlink,
    config: &NetworkConfig,
    name: &str,
    netns: BorrowedFd<'_>,
    mac: Mac,
) -> Result<(), NetworkError> {
    let options = options(config)?;
    let parent = parent(netlink, &options.parent)?;
    let mut batch = Batch::route();
    let peer = Peer {
        name,
        netns,
        mac,
        mtu: options.mtu,
    };
    link::create_child(&mut batch, parent, options.mode, &peer);
    netlink
        .execute(batch)
        .map_err(|refused| match refused.errno {
            Errno::OPNOTSUPP => NetworkError::Missing {
                what: config.driver.name().to_owned(),
            },
            errno => {
                let what = format!(
                    "make a {} link on `{}`",
                    config.driver.name(),
                    options.parent
                );
                NetworkError::kernel(what)(errno)
            }
        })
}

/// Removes the VLAN link that was made for the network.
pub(crate) fn down(config: &NetworkConfig) -> Result<(), NetworkError> {
    let options = options(config)?;
    match vlan(&options.parent) {
        Some(_) if is_our_vlan(&options.parent)? => delete_link(&open()?, &options.parent),
        _ => Ok(()),
    }
}

/// Whether nothing else stands on a VLAN link: it has no address and no child.
fn is_our_vlan(name: &str) -> Result<bool, NetworkError> {
    let netlink = open()?;
    let Ok(index) = netlink.link_index(name) else {
        return Ok(false);
    };
    let addresses = sys::netlink::address::addresses(&netlink)
        .map_err(NetworkError::kernel("list the addresses"))?;
    Ok(!addresses
        .iter()
        .any(|(link, address, _)| *link == index && address.is_ipv4()))
}
