//! The one table of ketch, `inet ketch`: static rules, and sets and maps that networks and published
//! ports are elements of. No other table is ever read or touched; a packet that another table drops
//! stays dropped.
//!
//! ```text
//! prerouting, output ── to an address of the host? ── publish ── map: host port -> container
//! forward ── user ── known connection, same bridge, published: accept
//!         ── to or from an internal network, to any other bridge: drop
//! postrouting ── from a container to elsewhere: masquerade
//! ```

use std::net::IpAddr;

use rustix::io::Errno;
use sys::netlink::nftables::{
    ChainType, Connection, Element, Expression, Family, Field, Hook, KeyType, Meta, Place, Present,
    Register, STATUS_TRANSLATED, Set, Table, Verdict, connection_state, key, link_name,
};
use sys::netlink::{Batch, Netlink, Protocol, Refused};

use crate::NetworkError;
use crate::ports::{Mapping, Transport};
use crate::record::NetworkConfig;
use crate::subnet::octets;

const TABLE: Table = Table {
    family: Family::Inet,
    name: "ketch",
};

/// The user's own rules for forwarded packets: empty, and called first.
const USER_CHAIN: &str = "user";

/// Names of bridges.
const BRIDGES: &str = "bridges";
/// Each bridge twice: from it, to it.
const SAME_BRIDGE: &str = "same_bridge";
/// Bridges of internal networks.
const INTERNAL: &str = "internal";
/// Subnets that are masqueraded.
const MASQUERADED4: &str = "masqueraded4";
const MASQUERADED6: &str = "masqueraded6";
/// Published ports on every address of the host.
const PORTS4: &str = "ports4";
const PORTS6: &str = "ports6";
/// Published ports on one address of the host.
const ADDRESS_PORTS4: &str = "address_ports4";
const ADDRESS_PORTS6: &str = "address_ports6";

const NF_IP_PRI_FILTER: i32 = 0;
const NF_IP_PRI_NAT_DST: i32 = -100;
const NF_IP_PRI_NAT_SRC: i32 = 100;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// A transaction takes this many bytes; more goes into the next one.
const MAX_BATCH: usize = 128 * 1024;

/// The kernel's packet filter in the caller's network namespace.
#[derive(Debug)]
pub(crate) struct Firewall {
    netlink: Netlink,
}

fn failed(what: &'static str) -> impl FnOnce(Refused) -> NetworkError {
    move |refused| match refused.errno {
        // The subsystem, an expression or a chain type is not built in.
        Errno::OPNOTSUPP | Errno::PROTONOSUPPORT => NetworkError::Missing {
            what: format!("nftables (to {what})"),
        },
        errno => NetworkError::kernel(what)(errno),
    }
}

impl Firewall {
    /// Opens the way to the kernel.
    pub(crate) fn open() -> Result<Self, NetworkError> {
        let netlink = Netlink::open(Protocol::Netfilter).map_err(|errno| match errno {
            Errno::PROTONOSUPPORT => NetworkError::Missing {
                what: "nftables".to_owned(),
            },
            errno => NetworkError::kernel("open a netfilter socket")(errno),
        })?;
        Ok(Self { netlink })
    }

    /// The socket, for connection tracking.
    pub(crate) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Whether the table is there.
    pub(crate) fn is_up(&self) -> Result<bool, NetworkError> {
        let exists = TABLE.exists(&self.netlink);
        exists.map_err(NetworkError::kernel("look for the table `inet ketch`"))
    }

    /// Makes the table with its rules; one that is there stays as it is.
    pub(crate) fn create(&self) -> Result<(), NetworkError> {
        let mut batch = Batch::nftables();
        TABLE.create(&mut batch);
        create_sets(&mut batch);
        create_nat(&mut batch);
        create_filter(&mut batch);
        match self.netlink.execute(batch) {
            Err(refused) if refused.errno == Errno::EXIST => Ok(()),
            // Everything that it names is in the same batch: what is not found is a part of the kernel.
            Err(refused) if refused.errno == Errno::NOENT => Err(NetworkError::Missing {
                what: "nftables with address translation".to_owned(),
            }),
            other => other.map_err(failed("make the table `inet ketch`")),
        }
    }

    /// Puts a network's bridge and subnets in, where they are missing. Says whether there was a
    /// table to put them in.
    pub(crate) fn add_network(&self, config: &NetworkConfig) -> Result<bool, NetworkError> {
        let mut batch = Batch::nftables();
        for (set, elements) in network_elements(config)? {
            TABLE.add_elements(&mut batch, set, &elements, Present::Kept);
        }
        match self.netlink.execute(batch) {
            Ok(()) => Ok(true),
            Err(refused) if refused.errno == Errno::NOENT => Ok(false),
            Err(refused) => Err(failed("add the network to the table `inet ketch`")(refused)),
        }
    }

    /// Takes a network out. What is not there is no error.
    pub(crate) fn remove_network(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        for (set, elements) in network_elements(config)? {
            let mut batch = Batch::nftables();
            TABLE.delete_elements(&mut batch, set, &elements);
            match self.netlink.execute(batch) {
                Err(refused) if refused.errno != Errno::NOENT => {
                    return Err(failed("remove the network from the table `inet ketch`")(
                        refused,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Publishes ports: all or none of them. A port that is in a map already is refused with
    /// `EEXIST`.
    pub(crate) fn publish(&self, mappings: &[Mapping]) -> Result<(), Refused> {
        for (done, part) in parts(mappings).enumerate() {
            let mut batch = Batch::nftables();
            for (map, elements) in by_map(part) {
                TABLE.add_elements(&mut batch, map, &elements, Present::Refused);
            }
            if let Err(refused) = self.netlink.execute(batch) {
                for earlier in parts(mappings).take(done) {
                    // The refusal is what is reported.
                    drop(self.unpublish(earlier));
                }
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Takes published ports back. A table that is gone took them along.
    pub(crate) fn unpublish(&self, mappings: &[Mapping]) -> Result<(), NetworkError> {
        let mut result = Ok(());
        for part in parts(mappings) {
            let mut batch = Batch::nftables();
            for (map, mut elements) in by_map(part) {
                for element in &mut elements {
                    element.data = None;
                }
                TABLE.delete_elements(&mut batch, map, &elements);
            }
            match self.netlink.execute(batch) {
                Err(refused) if refused.errno != Errno::NOENT => {
                    result = Err(failed("take the published ports back")(refused));
                }
                _ => {}
            }
        }
        result
    }
}

/// An element has less than 128 bytes.
fn parts(mappings: &[Mapping]) -> impl Iterator<Item = &[Mapping]> {
    mappings.chunks(MAX_BATCH / 128)
}

/// The map that each mapping belongs to, with its elements.
fn by_map(mappings: &[Mapping]) -> Vec<(&'static str, Vec<Element>)> {
    let mut maps: Vec<(&'static str, Vec<Element>)> = Vec::new();
    for mapping in mappings {
        let Some((map, element)) = element(mapping) else {
            continue;
        };
        match maps.iter_mut().find(|(name, _)| *name == map) {
            Some((_, elements)) => elements.push(element),
            None => maps.push((map, vec![element])),
        }
    }
    maps
}

/// The map and the element of a mapping; none when the kernel cannot do it: a loopback address, or
/// another family.
fn element(mapping: &Mapping) -> Option<(&'static str, Element)> {
    let host = mapping.host;
    if !mapping.is_translated() {
        return None;
    }
    let protocol = [mapping.transport.number()];
    let (port, target) = (
        host.port().to_be_bytes(),
        mapping.container.port().to_be_bytes(),
    );
    let address = octets(host.ip());
    let (map, parts): (_, Vec<&[u8]>) = match (host.ip().is_ipv4(), host.ip().is_unspecified()) {
        (true, true) => (PORTS4, vec![&protocol, &port]),
        (false, true) => (PORTS6, vec![&protocol, &port]),
        (true, false) => (ADDRESS_PORTS4, vec![&address, &protocol, &port]),
        (false, false) => (ADDRESS_PORTS6, vec![&address, &protocol, &port]),
    };
    let element = Element {
        key: key(&parts),
        data: Some(key(&[&octets(mapping.container.ip()), &target])),
        ends_range: false,
    };
    Some((map, element))
}

fn network_elements(
    config: &NetworkConfig,
) -> Result<Vec<(&'static str, Vec<Element>)>, NetworkError> {
    let bridge = config.bridge()?;
    let name = link_name(&bridge.link);
    let one = |key: Vec<u8>| {
        vec![Element {
            key,
            data: None,
            ends_range: false,
        }]
    };
    let mut elements = vec![
        (BRIDGES, one(name.to_vec())),
        (SAME_BRIDGE, one(key(&[&name, &name]))),
    ];
    if config.internal {
        elements.push((INTERNAL, one(name.to_vec())));
    } else if bridge.masquerade {
        for pool in config.pools() {
            let set = if pool.subnet.is_ipv4() {
                MASQUERADED4
            } else {
                MASQUERADED6
            };
            let (first, end) = pool.subnet.range();
            let mut range = one(first);
            range.push(Element {
                key: end,
                data: None,
                ends_range: true,
            });
            elements.push((set, range));
        }
    }
    Ok(elements)
}

fn create_sets(batch: &mut Batch) {
    use KeyType::{Ipv4, Ipv6, LinkName, Port, Protocol};
    let (value4, value6): (&[KeyType], &[KeyType]) = (&[Ipv4, Port], &[Ipv6, Port]);
    type Row<'a> = (&'a str, &'a [KeyType], Option<&'a [KeyType]>, bool);
    let sets: [Row<'_>; 9] = [
        (BRIDGES, &[LinkName], None, false),
        (SAME_BRIDGE, &[LinkName, LinkName], None, false),
        (INTERNAL, &[LinkName], None, false),
        (MASQUERADED4, &[Ipv4], None, true),
        (MASQUERADED6, &[Ipv6], None, true),
        (PORTS4, &[Protocol, Port], Some(value4), false),
        (PORTS6, &[Protocol, Port], Some(value6), false),
        (ADDRESS_PORTS4, &[Ipv4, Protocol, Port], Some(value4), false),
        (ADDRESS_PORTS6, &[Ipv6, Protocol, Port], Some(value6), false),
    ];
    for (id, (name, key, data, intervals)) in (1..).zip(sets) {
        let set = Set {
            name,
            id,
            key,
            data,
            intervals,
        };
        TABLE.create_set(batch, &set);
    }
}

/// The key's register, behind which there is room for its other parts.
const KEY: Register = Register(0);
/// Where the maps' values go.
const VALUE: Register = Register(8);

fn create_nat(batch: &mut Batch) {
    use Expression::{Destination, DestinationKind, Equal, Field as Bytes, Lookup, Meta as Of};
    let nat = |place, priority| Hook {
        chain_type: ChainType::Nat,
        place,
        priority,
    };
    let publish = Expression::Verdict(Verdict::Jump("publish"));
    TABLE.create_chain(batch, "publish", None);
    TABLE.create_chain(
        batch,
        "prerouting",
        Some(nat(Place::Prerouting, NF_IP_PRI_NAT_DST)),
    );
    TABLE.create_chain(batch, "output", Some(nat(Place::Output, NF_IP_PRI_NAT_DST)));
    let local = LOCAL.to_ne_bytes();
    for chain in ["prerouting", "output"] {
        // Loopback addresses are never looked up in the maps: a packet to them cannot leave the
        // host, so the monitor's proxy takes them.
        TABLE.add_rule(
            batch,
            chain,
            &[DestinationKind(KEY), Equal(KEY, &local), publish],
        );
    }
    for (version, family, field, port_at, maps) in [
        (
            NFPROTO_IPV4,
            Family::Ipv4,
            Field::Destination4,
            1,
            [ADDRESS_PORTS4, PORTS4],
        ),
        (
            NFPROTO_IPV6,
            Family::Ipv6,
            Field::Destination6,
            4,
            [ADDRESS_PORTS6, PORTS6],
        ),
    ] {
        let version = [version];
        let is_version = [Of(Meta::NetworkProtocol, KEY), Equal(KEY, &version)];
        let loopback_mask: &[u8] = if port_at == 1 {
            &[255, 0, 0, 0]
        } else {
            &[255; 16]
        };
        let loopback = if port_at == 1 {
            vec![127, 0, 0, 0]
        } else {
            octets(std::net::Ipv6Addr::LOCALHOST.into())
        };
        let mut rule = is_version.to_vec();
        rule.extend([
            Bytes(field, KEY),
            Expression::MaskBytes(KEY, loopback_mask),
            Equal(KEY, &loopback),
            Expression::Verdict(Verdict::Return),
        ]);
        TABLE.add_rule(batch, "publish", &rule);
        let value_port = Register(VALUE.0 + port_at);
        for (map, start) in maps.into_iter().zip([port_at, 0]) {
            let mut rule = is_version.to_vec();
            if start > 0 {
                rule.push(Bytes(field, KEY));
            }
            rule.extend([
                Of(Meta::TransportProtocol, Register(start)),
                Bytes(Field::DestinationPort, Register(start + 1)),
                Lookup(map, KEY, Some(VALUE)),
                Destination(family, VALUE, Some(value_port)),
            ]);
            TABLE.add_rule(batch, "publish", &rule);
        }
    }
    TABLE.create_chain(
        batch,
        "postrouting",
        Some(nat(Place::Postrouting, NF_IP_PRI_NAT_SRC)),
    );
    create_masquerade(batch);
}

/// From a container to anything but a bridge of ketch; and to a published port of a container, so
/// that the answer comes back by the host even from the same bridge.
fn create_masquerade(batch: &mut Batch) {
    use Expression::{Equal, Field as Bytes, Lookup, LookupNot, Mask, Meta as Of, NotEqual};
    for (version, field, set) in [
        (NFPROTO_IPV4, Field::Source4, MASQUERADED4),
        (NFPROTO_IPV6, Field::Source6, MASQUERADED6),
    ] {
        let version = [version];
        let from_container = [
            Of(Meta::NetworkProtocol, KEY),
            Equal(KEY, &version),
            Bytes(field, KEY),
            Lookup(set, KEY, None),
        ];
        let mut rule = from_container.to_vec();
        rule.extend([
            Of(Meta::OutputName, KEY),
            LookupNot(BRIDGES, KEY),
            Expression::Masquerade,
        ]);
        TABLE.add_rule(batch, "postrouting", &rule);
        let mut rule = from_container.to_vec();
        rule.extend([
            Expression::Connection(Connection::Status, KEY),
            Mask(KEY, STATUS_TRANSLATED),
            NotEqual(KEY, &[0; 4]),
            Expression::Masquerade,
        ]);
        TABLE.add_rule(batch, "postrouting", &rule);
    }
}

fn create_filter(batch: &mut Batch) {
    use Expression::{Lookup, Mask, Meta as Of, NotEqual};
    const CHAIN: &str = "forward";
    let accept = Expression::Verdict(Verdict::Accept);
    let drop = Expression::Verdict(Verdict::Drop);
    TABLE.create_chain(batch, USER_CHAIN, None);
    let hook = Hook {
        chain_type: ChainType::Filter,
        place: Place::Forward,
        priority: NF_IP_PRI_FILTER,
    };
    TABLE.create_chain(batch, CHAIN, Some(hook));
    let jump = Expression::Verdict(Verdict::Jump(USER_CHAIN));
    TABLE.add_rule(batch, CHAIN, &[jump]);
    let known = connection_state::ESTABLISHED | connection_state::RELATED;
    let state = [
        Expression::Connection(Connection::State, KEY),
        Mask(KEY, known),
        NotEqual(KEY, &[0; 4]),
        accept,
    ];
    TABLE.add_rule(batch, CHAIN, &state);
    // Only where br_netfilter shows bridged packets to this hook.
    let same = [
        Of(Meta::InputName, KEY),
        Of(Meta::OutputName, Register(4)),
        Lookup(SAME_BRIDGE, KEY, None),
        accept,
    ];
    TABLE.add_rule(batch, CHAIN, &same);
    for side in [Meta::InputName, Meta::OutputName] {
        TABLE.add_rule(
            batch,
            CHAIN,
            &[Of(side, KEY), Lookup(INTERNAL, KEY, None), drop],
        );
    }
    let published = [
        Of(Meta::OutputName, KEY),
        Lookup(BRIDGES, KEY, None),
        Expression::Connection(Connection::Status, KEY),
        Mask(KEY, STATUS_TRANSLATED),
        NotEqual(KEY, &[0; 4]),
        accept,
    ];
    TABLE.add_rule(batch, CHAIN, &published);
    // From other networks, and from outside straight to a container's address.
    TABLE.add_rule(
        batch,
        CHAIN,
        &[Of(Meta::OutputName, KEY), Lookup(BRIDGES, KEY, None), drop],
    );
}

impl Mapping {
    /// Whether the kernel translates it: not for loopback addresses, which never leave the host, and
    /// not from one family to the other.
    pub(crate) fn is_translated(&self) -> bool {
        let (host, container) = (self.host.ip(), self.container.ip());
        let loopback = match host {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback(),
        };
        !self.proxied && !loopback && host.is_ipv4() == container.is_ipv4()
    }
}

impl Transport {
    /// `IPPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}
