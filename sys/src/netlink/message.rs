//! The form of netlink messages: headers, attributes, padding (`linux/netlink.h`). Writing cannot
//! fail, reading gives nothing where bytes are missing.

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
const ACK: u16 = 0x4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// What of an attribute's type is its type.
const TYPE_MASK: u16 = 0x3fff;

const HEADER: usize = 16;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM_NFTABLES: u16 = 10;

/// `NLM_F_*` of a message besides those that every request has.
pub(super) mod flag {
    pub(in super::super) const NONE: u16 = 0;
    pub(in super::super) const DUMP: u16 = 0x300;
    pub(in super::super) const REPLACE: u16 = 0x100;
    pub(in super::super) const EXCL: u16 = 0x200;
    pub(in super::super) const CREATE: u16 = 0x400;
    pub(in super::super) const APPEND: u16 = 0x800;
}

/// Messages that are sent together.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
    last: usize,
    transaction: bool,
}

impl Batch {
    /// Messages for routing, or single ones for netfilter.
    #[must_use]
    pub fn route() -> Self {
        Self {
            bytes: Vec::with_capacity(512),
            count: 0,
            last: 0,
            transaction: false,
        }
    }

    /// A transaction of nftables.
    #[must_use]
    pub fn nftables() -> Self {
        let mut batch = Self::route();
        batch.transaction = true;
        batch.frame(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// How many bytes there are: a socket's send buffer takes about 200,000 at once.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many messages there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    fn frame(&mut self, kind: u16) {
        let [high, low] = SUBSYSTEM_NFTABLES.to_be_bytes();
        let start = self.bytes.len();
        self.header(kind, REQUEST, 0);
        self.bytes.extend_from_slice(&[0, 0, high, low]);
        self.close(start);
    }

    fn header(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
    }

    fn close(&mut self, start: usize) {
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        put(&mut self.bytes, start, &length.to_ne_bytes());
        pad(&mut self.bytes);
    }

    /// Adds a message: its family's header, then what `fill` writes.
    pub(super) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.count += 1;
        self.last = start;
        self.header(kind, REQUEST | flags, self.count);
        self.bytes.extend_from_slice(family_header);
        pad(&mut self.bytes);
        fill(&mut Attributes {
            bytes: &mut self.bytes,
        });
        self.close(start);
    }

    /// The bytes, and the number of the message that will be acknowledged; nothing when there is no
    /// message.
    pub(super) fn finish(mut self) -> Option<(Vec<u8>, u32)> {
        if self.count == 0 {
            return None;
        }
        let at = self.last + 6;
        let flags = self.bytes.get(at..at + 2)?;
        let flags = u16::from_ne_bytes(flags.try_into().ok()?);
        if flags & flag::DUMP != flag::DUMP || self.transaction {
            put(&mut self.bytes, at, &(flags | ACK).to_ne_bytes());
        }
        if self.transaction {
            self.frame(NFNL_MSG_BATCH_END);
        }
        Some((self.bytes, self.count))
    }
}

/// Writes attributes.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// An attribute of bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    /// A string with its NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// A number in the machine's order, as routing has them.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A number in the network's order, as netfilter has them.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute of attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.nested_after(kind, &[], fill);
    }

    /// An attribute of a fixed header and attributes.
    pub fn nested_after(
        &mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self.bytes.extend_from_slice(header);
        pad(self.bytes);
        fill(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        put(self.bytes, start, &length.to_ne_bytes());
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

/// The messages of one datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Parsed<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(bytes, 0)?).ok()?;
        let message = Parsed {
            kind: read_u16(bytes, 4)?,
            sequence: read_u32(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: type and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A 16-bit number in the machine's order.
pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A 32-bit number in the machine's order.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_message_is_read_again() {
        let mut batch = Batch::route();
        batch.push(16, 0, &[1, 2, 3, 4], |a| {
            a.text(3, "eth0");
            a.nested(18, |a| a.u32(1, 7));
        });
        let (bytes, last) = batch.finish().unwrap();
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.sequence, last), (16, 1, 1));
        let found: Vec<_> = attributes(&message.body[4..]).collect();
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        let inner = attributes(found[1].1).next().unwrap();
        assert_eq!(inner, (1, &7_u32.to_ne_bytes()[..]));
    }

    #[test]
    fn truncated_bytes_give_nothing() {
        assert!(messages(&[9, 0]).next().is_none());
        assert!(messages(&[200; 20]).next().is_none());
        assert!(attributes(&[255, 255, 1, 0, 9]).next().is_none());
        assert!(attributes(&[2, 0, 1, 0]).next().is_none());
    }
}
