//! Links: bridges, veth pairs, macvlan and ipvlan (`linux/if_link.h`, rtnetlink(7)).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::message::{attributes, flag, read_u16, read_u32};
use super::{Attributes, Batch, Netlink};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_FLUSH: u16 = 24;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;

const IFF_UP: u32 = 1;

/// A hardware address.
pub type Mac = [u8; 6];

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// A pair of links, one end in another namespace from birth: moving it there costs 30 ms.
#[derive(Debug)]
pub struct Veth<'a> {
    /// The end in the socket's namespace.
    pub name: &'a str,
    /// The bridge that this end is a port of.
    pub master: u32,
    /// The other end.
    pub peer: Peer<'a>,
}

/// A link inside another namespace.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its name there.
    pub name: &'a str,
    /// The namespace.
    pub netns: BorrowedFd<'a>,
    /// Its hardware address.
    pub mac: Mac,
    /// The MTU, of both ends of a pair; the kernel's when absent.
    pub mtu: Option<u32>,
}

impl Peer<'_> {
    fn write(&self, a: &mut Attributes<'_>) {
        a.text(IFLA_IFNAME, self.name);
        a.bytes(IFLA_ADDRESS, &self.mac);
        if let Some(mtu) = self.mtu {
            a.u32(IFLA_MTU, mtu);
        }
        a.bytes(IFLA_NET_NS_FD, &self.netns.as_raw_fd().to_ne_bytes());
    }
}

/// Makes a veth pair. The end inside the other namespace is not up: while it is made it has no peer
/// yet, and cannot be (`veth_open` in `drivers/net/veth.c`).
pub fn create_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let up = header(0, IFF_UP, IFF_UP);
    batch.push(RTM_NEWLINK, flag::CREATE | flag::EXCL, &up, |a| {
        a.text(IFLA_IFNAME, veth.name);
        a.u32(IFLA_MASTER, veth.master);
        if let Some(mtu) = veth.peer.mtu {
            a.u32(IFLA_MTU, mtu);
        }
        a.nested(IFLA_LINKINFO, |a| {
            a.bytes(IFLA_INFO_KIND, b"veth");
            a.nested(IFLA_INFO_DATA, |a| {
                let down = header(0, 0, 0);
                a.nested_after(VETH_INFO_PEER, &down, |a| veth.peer.write(a));
            });
        });
    });
}

/// How links on one parent see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildMode {
    /// macvlan with a mode of `linux/if_link.h` (1 private, 2 vepa, 4 bridge, 8 passthru).
    Macvlan(u32),
    /// ipvlan with a mode (0 l2, 1 l3, 2 l3s) and flags (0 bridge, 1 private, 2 vepa).
    Ipvlan(u16, u16),
}

/// Makes a macvlan or ipvlan link of `parent` inside another namespace.
pub fn create_child(batch: &mut Batch, parent: u32, mode: ChildMode, link: &Peer<'_>) {
    // It cannot be up at birth: its parent is in another namespace.
    let head = header(0, 0, 0);
    batch.push(RTM_NEWLINK, flag::CREATE | flag::EXCL, &head, |a| {
        a.text(IFLA_IFNAME, link.name);
        a.u32(IFLA_LINK, parent);
        if let ChildMode::Macvlan(_) = mode {
            a.bytes(IFLA_ADDRESS, &link.mac);
        }
        if let Some(mtu) = link.mtu {
            a.u32(IFLA_MTU, mtu);
        }
        a.bytes(IFLA_NET_NS_FD, &link.netns.as_raw_fd().to_ne_bytes());
        a.nested(IFLA_LINKINFO, |a| match mode {
            ChildMode::Macvlan(mode) => {
                a.bytes(IFLA_INFO_KIND, b"macvlan");
                a.nested(IFLA_INFO_DATA, |a| a.u32(IFLA_MACVLAN_MODE, mode));
            }
            ChildMode::Ipvlan(mode, flags) => {
                a.bytes(IFLA_INFO_KIND, b"ipvlan");
                a.nested(IFLA_INFO_DATA, |a| {
                    a.bytes(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
                    a.bytes(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
                });
            }
        });
    });
}

/// Makes a bridge, up.
pub fn create_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: Option<u32>) {
    let up = header(0, IFF_UP, IFF_UP);
    batch.push(RTM_NEWLINK, flag::CREATE | flag::EXCL, &up, |a| {
        a.text(IFLA_IFNAME, name);
        a.bytes(IFLA_ADDRESS, &mac);
        if let Some(mtu) = mtu {
            a.u32(IFLA_MTU, mtu);
        }
        a.nested(IFLA_LINKINFO, |a| a.bytes(IFLA_INFO_KIND, b"bridge"));
    });
}

/// Makes a VLAN link of `parent`.
pub fn create_vlan(batch: &mut Batch, parent: u32, name: &str, id: u16) {
    const IFLA_VLAN_ID: u16 = 1;
    let up = header(0, IFF_UP, IFF_UP);
    batch.push(RTM_NEWLINK, flag::CREATE | flag::EXCL, &up, |a| {
        a.text(IFLA_IFNAME, name);
        a.u32(IFLA_LINK, parent);
        a.nested(IFLA_LINKINFO, |a| {
            a.bytes(IFLA_INFO_KIND, b"vlan");
            a.nested(IFLA_INFO_DATA, |a| {
                a.bytes(IFLA_VLAN_ID, &id.to_ne_bytes());
            });
        });
    });
}

/// Brings a link up.
pub fn set_up(batch: &mut Batch, index: u32) {
    let head = header(index, IFF_UP, IFF_UP);
    batch.push(RTM_NEWLINK, flag::NONE, &head, |_| {});
}

/// Moves a link into another namespace and gives it a name there. It goes down on the way and loses
/// its addresses.
pub fn move_into(batch: &mut Batch, index: u32, netns: BorrowedFd<'_>, name: &str) {
    let head = header(index, 0, 0);
    batch.push(RTM_NEWLINK, flag::NONE, &head, |a| {
        a.bytes(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
        a.text(IFLA_IFNAME, name);
    });
}

/// Keeps a port of a bridge from talking to the other isolated ports.
pub fn isolate_port(batch: &mut Batch, index: u32) {
    change_port(batch, index, |a| a.bytes(IFLA_BRPORT_ISOLATED, &[1]));
}

/// Lets a port of a bridge send back what came in by it: with br_netfilter a packet of a container to
/// its own published port never leaves the bridge.
pub fn reflect_port(batch: &mut Batch, index: u32) {
    change_port(batch, index, |a| a.bytes(IFLA_BRPORT_MODE, &[1]));
}

/// Stops a port of a bridge, and forgets which hardware addresses were behind it.
pub fn disable_port(batch: &mut Batch, index: u32) {
    change_port(batch, index, |a| {
        a.bytes(IFLA_BRPORT_STATE, &[0]);
        a.bytes(IFLA_BRPORT_FLUSH, &[]);
    });
}

fn change_port(batch: &mut Batch, index: u32, fill: impl FnOnce(&mut Attributes<'_>)) {
    let head = header(index, 0, 0);
    batch.push(RTM_NEWLINK, flag::NONE, &head, |a| {
        a.nested(IFLA_LINKINFO, |a| {
            a.bytes(IFLA_INFO_SLAVE_KIND, b"bridge");
            a.nested(IFLA_INFO_SLAVE_DATA, fill);
        });
    });
}

/// Deletes a link.
pub fn delete(batch: &mut Batch, index: u32) {
    batch.push(RTM_DELLINK, flag::NONE, &header(index, 0, 0), |_| {});
}

/// A link that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// `ARPHRD_*`: 1 is Ethernet.
    pub hardware: u16,
    /// Whether it is up.
    pub is_up: bool,
}

/// All links of the socket's namespace.
///
/// # Errors
/// As [`Netlink::dump`].
pub fn list(netlink: &Netlink) -> Result<Vec<Link>, Errno> {
    let mut batch = Batch::route();
    batch.push(RTM_GETLINK, flag::DUMP, &header(0, 0, 0), |_| {});
    let mut links = Vec::new();
    netlink.dump(batch, |kind, body| {
        if kind == RTM_NEWLINK {
            links.extend(parse(body));
        }
    })?;
    Ok(links)
}

fn parse(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: read_u32(body, 4)?,
        name: String::new(),
        kind: String::new(),
        master: None,
        hardware: read_u16(body, 2)?,
        is_up: read_u32(body, 8)? & IFF_UP != 0,
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = read_u32(value, 0),
            IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    if kind == IFLA_INFO_KIND {
                        link.kind = text(value);
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Protocol;

    #[test]
    fn list_holds_the_loopback_link() {
        let links = list(&Netlink::open(Protocol::Route).unwrap()).unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.kind.as_str(), lo.master), ("", None));
    }
}
