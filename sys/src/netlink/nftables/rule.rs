//! Rules: lists of [`Expression`]s that load registers, compare and decide.

use super::super::Attributes;
use super::table::Family;

pub(super) const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

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

    pub(super) fn write(&self, a: &mut Attributes<'_>) {
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
