//! Links of the host on their way into a container: moved under their name there, with the addresses
//! that they had, and up (runtime-spec v1.3 `config-linux.md#namespaced-network-devices`).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::InitPlan;
use rustix::fs::{Mode, OFlags};
use sys::clone::namespace;
use sys::netlink::{Batch, Netlink, Protocol, address, link};

use crate::start::StartError;

/// Moves all links of the plan into the network of `pid`, or into the one that the plan names.
pub(crate) fn move_all(plan: &InitPlan, pid: i32) -> Result<(), StartError> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let failed = |what: &str, error: io::Error| StartError::engine(what, &error);
    let netns = target(plan, pid)
        .map_err(|error| failed("open the container's network namespace", error))?;
    let host = Netlink::open(Protocol::Route)
        .map_err(|errno| failed("talk to the kernel about links", errno.into()))?;
    for (from, to) in &plan.net_devices {
        move_one(&host, netns.as_fd(), from, to).map_err(|error| {
            failed(
                &format!("move the network device `{from}` to `{to}`"),
                error,
            )
        })?;
    }
    Ok(())
}

fn target(plan: &InitPlan, pid: i32) -> io::Result<OwnedFd> {
    let named = plan.namespaces.iter().find(|n| n.flag == namespace::NET);
    match named.and_then(|named| named.path.as_ref()) {
        Some(path) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(&**path, flags, Mode::empty())?)
        }
        None => Ok(sys::net::namespace_of(Some(pid))?),
    }
}

fn move_one(host: &Netlink, netns: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    let index = host.link_index(from)?;
    let kept: Vec<(IpAddr, u8)> = address::addresses(host)?
        .into_iter()
        .filter(|(of, address, _)| *of == index && !is_link_local(*address))
        .map(|(_, address, prefix)| (address, prefix))
        .collect();
    let mut batch = Batch::route();
    link::move_into(&mut batch, index, netns, to);
    host.execute(batch).map_err(|refused| refused.errno)?;
    let inside = sys::net::within(netns, || Netlink::open(Protocol::Route))??;
    let index = inside.link_index(to)?;
    let mut batch = Batch::route();
    for (address, prefix) in kept {
        address::add_address(&mut batch, index, address, prefix);
    }
    link::set_up(&mut batch, index);
    inside.execute(batch).map_err(|refused| refused.errno)?;
    Ok(())
}

/// What the kernel makes again by itself.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
