//! Tables and what is in them: chains, sets, maps, elements.

use rustix::io::Errno;

use super::super::message::{SUBSYSTEM_NFTABLES, flag};
use super::super::{Attributes, Batch, Netlink};
use super::rule::{Expression, NFTA_DATA_VALUE};

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;

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
    pub(super) fn number(self) -> u8 {
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
