//! Tracked connections (`linux/netfilter/nfnetlink_conntrack.h`): the entries of an old owner of a
//! port or an address are dropped, so that a flow that goes on reaches the new one.

use std::net::IpAddr;

use super::message::{attributes, flag};
use super::{Attributes, Batch, Netlink, Refused};

use rustix::io::Errno;

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const CT_NEW: u16 = 0;
const CT_GET: u16 = 1;
const CT_DELETE: u16 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC` of `nf_conntrack_netlink.c`.
const FILTER_SOURCE: u32 = 1;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// `struct nfgenmsg`; with version 1 the family counts.
fn header(address: IpAddr) -> [u8; 4] {
    [if address.is_ipv4() { 2 } else { 10 }, 1, 0, 0]
}

fn source(a: &mut Attributes<'_>, address: IpAddr) {
    a.nested(CTA_TUPLE_IP, |a| match address {
        IpAddr::V4(address) => a.bytes(1, &address.octets()),
        IpAddr::V6(address) => a.bytes(3, &address.octets()),
    });
}

/// Which end of a connection an address is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It opened the connection.
    Origin,
    /// It answers.
    Answer,
}

/// Drops the connections of an address (Linux 6.8; older kernels refuse it with `EINVAL`, and
/// nothing is dropped).
///
/// # Errors
/// As [`Netlink::execute`].
pub fn forget(netlink: &Netlink, address: IpAddr, end: End) -> Result<(), Refused> {
    let (tuple, flags) = match end {
        End::Origin => (CTA_TUPLE_ORIG, [FILTER_SOURCE, 0]),
        End::Answer => (CTA_TUPLE_REPLY, [0, FILTER_SOURCE]),
    };
    let mut batch = Batch::route();
    batch.push(kind(CT_DELETE), flag::NONE, &header(address), |a| {
        a.nested(tuple, |a| source(a, address));
        a.nested(CTA_FILTER, |a| {
            a.u32(CTA_FILTER_ORIG_FLAGS, flags[0]);
            a.u32(CTA_FILTER_REPLY_FLAGS, flags[1]);
        });
    });
    netlink.execute(batch)
}

/// Drops the connections of one transport protocol whose first packet went to a port that
/// `is_wanted` names, in the family of `any`.
///
/// # Errors
/// As [`Netlink::dump`]. A connection that ended meanwhile is no error.
pub fn forget_to_ports(
    netlink: &Netlink,
    any: IpAddr,
    protocol: u8,
    is_wanted: impl Fn(u16) -> bool,
) -> Result<(), Errno> {
    let mut request = Batch::route();
    request.push(kind(CT_GET), flag::DUMP, &header(any), |_| {});
    let mut found: Vec<Vec<u8>> = Vec::new();
    netlink.dump(request, |kind_of, body| {
        if kind_of != kind(CT_NEW) {
            return;
        }
        let tuple = attributes(body.get(4..).unwrap_or_default())
            .find_map(|(kind, value)| (kind == CTA_TUPLE_ORIG).then_some(value));
        if let Some(tuple) = tuple
            && destination(tuple)
                .is_some_and(|(number, port)| number == protocol && is_wanted(port))
        {
            found.push(tuple.to_vec());
        }
    })?;
    for tuple in found {
        let mut batch = Batch::route();
        batch.push(kind(CT_DELETE), flag::NONE, &header(any), |a| {
            a.nested(CTA_TUPLE_ORIG, |a| {
                for (kind, value) in attributes(&tuple) {
                    a.bytes(kind | 0x8000, value);
                }
            });
        });
        match netlink.execute(batch) {
            Err(refused) if refused.errno != Errno::NOENT => return Err(refused.errno),
            _ => {}
        }
    }
    Ok(())
}

/// Protocol and destination port of a tuple.
fn destination(tuple: &[u8]) -> Option<(u8, u16)> {
    let (_, protocol) = attributes(tuple).find(|(kind, _)| *kind == CTA_TUPLE_PROTO)?;
    let (mut number, mut port) = (None, None);
    for (kind, value) in attributes(protocol) {
        match kind {
            CTA_PROTO_NUM => number = value.first().copied(),
            CTA_PROTO_DST_PORT => port = Some(u16::from_be_bytes(value.try_into().ok()?)),
            _ => {}
        }
    }
    Some((number?, port?))
}
