//! nftables: tables, chains, sets, maps, elements and rules (`linux/netfilter/nf_tables.h`). A rule
//! is a list of [`Expression`]s that load registers, compare and decide.

use rustix::io::Errno;

use super::message::{SUBSYSTEM_NFTABLES, flag};
use super::{Attributes, Batch, Netlink};

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// No attribute is longer than 65,535 bytes; an element has at most 100.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Which packets a table sees (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
}

fn kind(message: u16) -> u16 {
    SUBSYSTEM_NFTABLES << 8 | message
}

impl Table {
    /// `struct nfgenmsg`.
    fn header(self) -> [u8; 4] {
        [self.family.number(), 0, 0, 0]
    }

    /// Makes the table; one that exists is an error.
    pub fn create(self, batch: &mut Batch) {
        let flags = flag::CREATE | flag::EXCL;
        batch.push(kind(NEWTABLE), flags, &self.header(), |a| {
            a.text(1, self.name);
            a.be32(2, 0);
        });
    }

    /// Deletes the table with all that is in it.
    pub fn delete(self, batch: &mut Batch) {
        batch.push(kind(DELTABLE), flag::NONE, &self.header(), |a| {
            a.text(1, self.name);
        });
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// As [`Netlink::dump`].
    pub fn exists(self, netlink: &Netlink) -> Result<bool, Errno> {
        let mut request = Batch::route();
        request.push(kind(GETTABLE), flag::NONE, &self.header(), |a| {
            a.text(1, self.name);
        });
        match netlink.dump(request, |_, _| {}) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a chain, called by the kernel at `hook` or by other chains only.
    pub fn create_chain(self, batch: &mut Batch, name: &str, hook: Option<Hook>) {
        batch.push(kind(NEWCHAIN), flag::CREATE, &self.header(), |a| {
            a.text(1, self.name);
            a.text(3, name);
            if let Some(hook) = hook {
                a.nested(4, |a| {
                    a.be32(1, hook.place.number());
                    a.be32(2, hook.priority.cast_unsigned());
                });
                a.be32(5, 1);
                a.text(7, hook.chain_type.text());
            }
        });
    }

    /// Makes a set or a map.
    pub fn create_set(self, batch: &mut Batch, set: &Set<'_>) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        let mut flags = if set.intervals { INTERVAL } else { 0 };
        if set.data.is_some() {
            flags |= MAP;
        }
        batch.push(kind(NEWSET), flag::CREATE, &self.header(), |a| {
            a.text(1, self.name);
            a.text(2, set.name);
            a.be32(3, flags);
            a.be32(4, set.key.iter().fold(0, |id, kind| id << 6 | kind.id()));
            a.be32(5, set.key.iter().map(|kind| kind.size()).sum());
            if let Some(data) = set.data {
                a.be32(6, data.iter().fold(0, |id, kind| id << 6 | kind.id()));
                a.be32(7, data.iter().map(|kind| kind.size()).sum());
            }
            // Notes of `nft` to itself, without which it cannot show links' names: the key is in the
            // machine's byte order (NFTNL_UDATA_SET_KEYBYTEORDER).
            if set.key == [KeyType::LinkName] {
                a.bytes(13, &[0, 4, 1, 0, 0, 0]);
            }
            // The kernel wants a number for sets of one transaction; the names are what counts.
            a.be32(10, set.id);
        });
    }

    /// Adds elements to a set or map. One that is there is refused (`EEXIST`), or kept when it is
    /// the same.
    pub fn add_elements(
        self,
        batch: &mut Batch,
        set: &str,
        elements: &[Element],
        present: Present,
    ) {
        let flags = match present {
            Present::Refused => flag::CREATE | flag::EXCL,
            Present::Kept => flag::CREATE,
        };
        self.elements(batch, kind(NEWSETELEM), flags, set, elements);
    }

    /// Removes elements from a set or map; one that is absent is refused (`ENOENT`).
    pub fn delete_elements(self, batch: &mut Batch, set: &str, elements: &[Element]) {
        self.elements(batch, kind(DELSETELEM), flag::NONE, set, elements);
    }

    fn elements(self, batch: &mut Batch, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            batch.push(kind, flags, &self.header(), |a| {
                a.text(1, self.name);
                a.text(2, set);
                a.nested(3, |a| {
                    for element in part {
                        a.nested(NFTA_LIST_ELEM, |a| element.write(a));
                    }
                });
            });
        }
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(self, batch: &mut Batch, chain: &str, rule: &[Expression<'_>]) {
        let flags = flag::CREATE | flag::APPEND;
        batch.push(kind(NEWRULE), flags, &self.header(), |a| {
            a.text(1, self.name);
            a.text(2, chain);
            a.nested(4, |a| {
                for expression in rule {
                    a.nested(NFTA_LIST_ELEM, |a| expression.write(a));
                }
            });
        });
    }
}

/// What happens to an element that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// The transaction is refused.
    Refused,
    /// It stays.
    Kept,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// What the chain may do.
    pub chain_type: ChainType,
    /// When a packet gets there.
    pub place: Place,
    /// Among the chains of one place, lowest first.
    pub priority: i32,
}

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Accept and drop.
    Filter,
    /// Translate the first packet of a connection.
    Nat,
}

impl ChainType {
    fn text(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// Where a packet is (`NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Received, not routed.
    Prerouting,
    /// Received for this host.
    Input,
    /// Passing through.
    Forward,
    /// Made on this host.
    Output,
    /// About to leave.
    Postrouting,
}

impl Place {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// The type of a part of a key: what `nft` shows it as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// The number of a transport protocol.
    Protocol,
    /// A port.
    Port,
    /// A link's name.
    LinkName,
}

impl KeyType {
    /// nft's number for it, six bits of a concatenation.
    fn id(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::LinkName => 41,
        }
    }

    /// Its bytes in a key of several parts.
    fn size(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Port => 4,
            Self::Ipv6 | Self::LinkName => 16,
        }
    }
}

/// A set, or with `data` a map.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// Unique among the sets that one transaction makes.
    pub id: u32,
    /// The parts of its keys.
    pub key: &'a [KeyType],
    /// The parts of its values.
    pub data: Option<&'a [KeyType]>,
    /// Elements are ranges.
    pub intervals: bool,
}

/// An element: key, and value in a map, each part filled up to four bytes ([`key`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub data: Option<Vec<u8>>,
    /// The first key behind a range.
    pub ends_range: bool,
}

impl Element {
    fn write(&self, a: &mut Attributes<'_>) {
        const INTERVAL_END: u32 = 1;
        if self.ends_range {
            a.be32(3, INTERVAL_END);
        }
        a.nested(1, |a| a.bytes(NFTA_DATA_VALUE, &self.key));
        if let Some(data) = &self.data {
            a.nested(2, |a| a.bytes(NFTA_DATA_VALUE, data));
        }
    }
}

/// Parts of a key or value one after the other, each filled up to four bytes.
#[must_use]
pub fn key(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A link's name as a part of a key.
#[must_use]
pub fn link_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

/// A four-byte register, 0 to 15. A longer value goes on in the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    fn number(self) -> u32 {
        const NFT_REG32_00: u32 = 8;
        NFT_REG32_00 + self.0
    }
}

/// What a rule ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Away with it.
    Drop,
    /// Enough of this chain's hook.
    Accept,
    /// On in another chain, and back.
    Jump(&'a str),
    /// Back to the caller.
    Return,
}

/// What is known of a packet besides its bytes (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The name of the link it came by.
    InputName,
    /// The name of the link it leaves by.
    OutputName,
    /// IPv4 or IPv6, as `NFPROTO_*`.
    NetworkProtocol,
    /// TCP, UDP, SCTP.
    TransportProtocol,
}

impl Meta {
    fn number(self) -> u32 {
        match self {
            Self::InputName => 6,
            Self::OutputName => 7,
            Self::NetworkProtocol => 15,
            Self::TransportProtocol => 16,
        }
    }
}

/// A part of a packet's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Source address of IPv4.
    Source4,
    /// Destination address of IPv4.
    Destination4,
    /// Source address of IPv6.
    Source6,
    /// Destination address of IPv6.
    Destination6,
    /// Destination port of TCP, UDP and SCTP.
    DestinationPort,
}

impl Field {
    /// Base header, offset, length.
    fn place(self) -> (u32, u32, u32) {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match self {
            Self::Source4 => (NETWORK, 12, 4),
            Self::Destination4 => (NETWORK, 16, 4),
            Self::Source6 => (NETWORK, 8, 16),
            Self::Destination6 => (NETWORK, 24, 16),
            Self::DestinationPort => (TRANSPORT, 2, 2),
        }
    }
}

/// What is known of a packet's connection (`NFT_CT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// [`connection_state`] bits.
    State,
    /// `IPS_*` bits.
    Status,
}

/// Bits of [`Connection::State`].
pub mod connection_state {
    /// No connection takes it.
    pub const INVALID: u32 = 1;
    /// Part of a known connection.
    pub const ESTABLISHED: u32 = 2;
    /// A message about one, such as an ICMP error.
    pub const RELATED: u32 = 4;
}

/// `IPS_DST_NAT`: its destination was translated.
pub const STATUS_TRANSLATED: u32 = 0x20;

/// One step of a rule. Registers hold what the steps before have loaded.
#[derive(Debug, Clone, Copy)]
pub enum Expression<'a> {
    /// Loads what is known of the packet.
    Meta(Meta, Register),
    /// Loads bytes of the packet.
    Field(Field, Register),
    /// Loads what is known of the connection, four bytes.
    Connection(Connection, Register),
    /// Loads whose the destination address is (`RTN_*`), four bytes.
    DestinationKind(Register),
    /// Goes on when the value is equal.
    Equal(Register, &'a [u8]),
    /// Goes on when the value is not equal.
    NotEqual(Register, &'a [u8]),
    /// Keeps the bits of a four-byte mask.
    Mask(Register, u32),
    /// Keeps the bits of a mask of any length.
    MaskBytes(Register, &'a [u8]),
    /// Goes on when the key is in the set; with a second register the map's value is loaded there.
    Lookup(&'a str, Register, Option<Register>),
    /// Goes on when the key is not in the set.
    LookupNot(&'a str, Register),
    /// Loads bytes.
    Load(Register, &'a [u8]),
    /// Sends the connection to the address, and the port when there is one.
    Destination(Family, Register, Option<Register>),
    /// Gives the connection the address of the link it leaves by.
    Masquerade,
    /// Decides.
    Verdict(Verdict<'a>),
}

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) => "meta",
            Self::Field(..) => "payload",
            Self::Connection(..) => "ct",
            Self::DestinationKind(_) => "fib",
            Self::Equal(..) | Self::NotEqual(..) => "cmp",
            Self::Mask(..) | Self::MaskBytes(..) => "bitwise",
            Self::Lookup(..) | Self::LookupNot(..) => "lookup",
            Self::Load(..) | Self::Verdict(_) => "immediate",
            Self::Destination(..) => "nat",
            Self::Masquerade => "masq",
        }
    }

    fn write(&self, a: &mut Attributes<'_>) {
        a.text(1, self.name());
        a.nested(2, |a| self.write_data(a));
    }

    fn write_data(&self, a: &mut Attributes<'_>) {
        match *self {
            Self::Meta(meta, to) => {
                a.be32(1, to.number());
                a.be32(2, meta.number());
            }
            Self::Field(field, to) => {
                let (base, offset, length) = field.place();
                a.be32(1, to.number());
                a.be32(2, base);
                a.be32(3, offset);
                a.be32(4, length);
            }
            Self::Connection(connection, to) => {
                let key = match connection {
                    Connection::State => 0,
                    Connection::Status => 2,
                };
                a.be32(1, to.number());
                a.be32(2, key);
            }
            Self::DestinationKind(to) => {
                const ADDRTYPE: u32 = 3;
                const DADDR: u32 = 2;
                a.be32(1, to.number());
                a.be32(2, ADDRTYPE);
                a.be32(3, DADDR);
            }
            Self::Equal(register, value) => compare(a, register, 0, value),
            Self::NotEqual(register, value) => compare(a, register, 1, value),
            Self::Mask(register, mask) => bitwise(a, register, &mask.to_ne_bytes()),
            Self::MaskBytes(register, mask) => bitwise(a, register, mask),
            Self::Lookup(set, key, to) => {
                a.text(1, set);
                a.be32(2, key.number());
                if let Some(to) = to {
                    a.be32(3, to.number());
                }
            }
            Self::LookupNot(set, key) => {
                a.text(1, set);
                a.be32(2, key.number());
                a.be32(5, 1);
            }
            Self::Load(to, value) => {
                a.be32(1, to.number());
                a.nested(2, |a| a.bytes(NFTA_DATA_VALUE, value));
            }
            Self::Destination(family, address, port) => destination(a, family, address, port),
            Self::Masquerade => {}
            Self::Verdict(verdict) => verdict_data(a, verdict),
        }
    }
}

fn compare(a: &mut Attributes<'_>, register: Register, operator: u32, value: &[u8]) {
    a.be32(1, register.number());
    a.be32(2, operator);
    a.nested(3, |a| a.bytes(NFTA_DATA_VALUE, value));
}

fn bitwise(a: &mut Attributes<'_>, register: Register, mask: &[u8]) {
    a.be32(1, register.number());
    a.be32(2, register.number());
    a.be32(3, u32::try_from(mask.len()).unwrap_or(0));
    a.nested(4, |a| a.bytes(NFTA_DATA_VALUE, mask));
    a.nested(5, |a| a.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]));
}

fn destination(a: &mut Attributes<'_>, family: Family, address: Register, port: Option<Register>) {
    const NFT_NAT_DNAT: u32 = 1;
    a.be32(1, NFT_NAT_DNAT);
    a.be32(2, u32::from(family.number()));
    a.be32(3, address.number());
    if let Some(port) = port {
        a.be32(5, port.number());
    }
}

fn verdict_data(a: &mut Attributes<'_>, verdict: Verdict<'_>) {
    const NFT_REG_VERDICT: u32 = 0;
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Return => (-5, None),
    };
    a.be32(1, NFT_REG_VERDICT);
    a.nested(2, |a| {
        a.nested(NFTA_DATA_VERDICT, |a| {
            a.be32(1, code.cast_unsigned());
            if let Some(chain) = chain {
                a.text(2, chain);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_fills_each_part_up() {
        assert_eq!(key(&[&[6], &[0x1f, 0x90]]), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    }

    #[test]
    fn long_link_name_keeps_its_nul() {
        assert_eq!(link_name("a-name-of-twenty-letters")[15], 0);
    }
}
