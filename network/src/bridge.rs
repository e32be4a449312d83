//! The bridge driver: the bridge and its addresses, made whenever they are missing, and one veth
//! pair a container.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use state::Layout;
use sys::clone::{Side, clone_process};
use sys::exec::{close_all_but, exit_now};
use sys::netlink::link::{self, Mac, Peer, Veth};
use sys::netlink::{Batch, Netlink, Protocol, address};

use crate::firewall::Firewall;
use crate::record::{self, Driver, NetworkConfig};
use crate::store::{self, Networks};
use crate::{NetworkError, restore};

/// Refuses options that are wrong, and a bridge that is something else's.
pub(crate) fn check(config: &NetworkConfig, others: &[NetworkConfig]) -> Result<(), NetworkError> {
    let bridge = config.bridge()?;
    let taken = others
        .iter()
        .find(|other| other.driver == Driver::Bridge && other.bridge_link() == bridge.link);
    let why = match taken {
        Some(other) => format!("the link is network `{}`'s", other.name),
        None => match open()?.link_index(&bridge.link) {
            Err(_) => return Ok(()),
            Ok(_) => "a link of this name exists, and is not ketch's".to_owned(),
        },
    };
    Err(NetworkError::BadOption {
        option: format!("bridge `{}`", bridge.link),
        why,
    })
}

/// Gives the default network another link where its usual one is something else's.
pub(crate) fn avoid_taken_name(config: &mut NetworkConfig) -> Result<(), NetworkError> {
    if open()?.link_index(&config.bridge_link()).is_ok() {
        let name = format!("kt-{}", config.short_id());
        config.options.insert(record::BRIDGE_NAME.to_owned(), name);
    }
    Ok(())
}

/// A routing socket in the caller's namespace.
pub(crate) fn open() -> Result<Netlink, NetworkError> {
    Netlink::open(Protocol::Route).map_err(NetworkError::kernel("open a routing socket"))
}

/// Makes the network's bridge and rules where they are missing. The caller holds the lock of all
/// networks.
pub(crate) fn up(layout: &Layout, config: &NetworkConfig) -> Result<(), NetworkError> {
    if config.driver != Driver::Bridge {
        return Ok(());
    }
    let netlink = open()?;
    let bridge = config.bridge()?;
    if netlink.link_index(&bridge.link).is_err() {
        create(&netlink, config)?;
    }
    if !config.internal {
        forward(config)?;
    }
    let firewall = Firewall::open()?;
    if !firewall.add_network(config)? {
        let networks = Networks::new(layout.clone()).recorded()?;
        restore::all(layout, &firewall, &networks)?;
        firewall.add_network(config)?;
    }
    Ok(())
}

/// Makes sure that the bridge and the rules are there, and gives the bridge's index. Without a lock
/// when they are.
pub(crate) fn ensure(
    layout: &Layout,
    config: &NetworkConfig,
    netlink: &Netlink,
    firewall: &Firewall,
) -> Result<u32, NetworkError> {
    let link = config.bridge()?.link;
    let index = netlink.link_index(&link);
    if let Ok(index) = index
        && firewall.add_network(config)?
    {
        return Ok(index);
    }
    let _lock = store::lock(layout)?;
    up(layout, config)?;
    netlink
        .link_index(&link)
        .map_err(NetworkError::kernel(format!("find the bridge `{link}`")))
}

fn create(netlink: &Netlink, config: &NetworkConfig) -> Result<(), NetworkError> {
    let bridge = config.bridge()?;
    let what = format!("make the bridge `{}`", bridge.link);
    let mut batch = Batch::route();
    link::create_bridge(&mut batch, &bridge.link, bridge_mac(config), bridge.mtu);
    match netlink.execute(batch) {
        Err(refused) if refused.errno == Errno::OPNOTSUPP => {
            return Err(NetworkError::Missing {
                what: "bridges".to_owned(),
            });
        }
        other => other.map_err(NetworkError::kernel(what.as_str()))?,
    }
    let index = netlink
        .link_index(&bridge.link)
        .map_err(NetworkError::kernel(what))?;
    let given = give_addresses(netlink, config, &bridge.link, index, bridge.inhibit_ipv4);
    if given.is_err() {
        let mut batch = Batch::route();
        link::delete(&mut batch, index);
        // The first error is the one to report.
        drop(netlink.execute(batch));
    }
    given
}

fn give_addresses(
    netlink: &Netlink,
    config: &NetworkConfig,
    link: &str,
    index: u32,
    inhibit_ipv4: bool,
) -> Result<(), NetworkError> {
    let disable = if config.ipv6.is_some() { "0" } else { "1" };
    set_link_ipv6(link, "disable_ipv6", disable)?;
    if config.ipv6.is_some() {
        set_link_ipv6(link, "accept_ra", "0")?;
    }
    let mut batch = Batch::route();
    for pool in config.pools() {
        if let Some(gateway) = pool.gateway
            && !(inhibit_ipv4 && gateway.is_ipv4())
        {
            address::add_address(&mut batch, index, gateway, pool.subnet.prefix());
        }
    }
    netlink
        .execute(batch)
        .map_err(NetworkError::kernel(format!("give `{link}` its addresses")))
}

/// Writes a setting of a link's IPv6; without IPv6 there is nothing to set.
pub(crate) fn set_link_ipv6(link: &str, key: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(link).join(key);
    if !path.exists() {
        return Ok(());
    }
    write_setting(&path, value)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the kernel is no file on a disk"
)]
fn write_setting(path: &Path, value: &str) -> Result<(), NetworkError> {
    fs::write(path, value).map_err(NetworkError::file("set", path))
}

/// Lets the host pass packets on, which containers need to reach anything outside. Interfaces that
/// learn their routes from announcements go on doing so (`ip-sysctl.rst`, `accept_ra`).
fn forward(config: &NetworkConfig) -> Result<(), NetworkError> {
    const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
    const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    let is_off = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    if config.ipv4.is_some() && is_off(IPV4) {
        write_setting(Path::new(IPV4), "1")?;
    }
    if config.ipv6.is_some() && is_off(IPV6) {
        keep_announcements()?;
        write_setting(Path::new(IPV6), "1")?;
    }
    Ok(())
}

fn keep_announcements() -> Result<(), NetworkError> {
    let dir = Path::new("/proc/sys/net/ipv6/conf");
    for entry in fs::read_dir(dir)
        .map_err(NetworkError::file("list", dir))?
        .flatten()
    {
        let name = entry.file_name();
        let path = entry.path().join("accept_ra");
        let accepts = fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
        if accepts && name != "lo" && name != "all" {
            write_setting(&path, "2")?;
        }
    }
    Ok(())
}

/// A hardware address that stays when ports come and go, from the network's random id.
fn bridge_mac(config: &NetworkConfig) -> Mac {
    let byte = |at: usize| {
        let hex = config.id.get(at..at + 2);
        hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .unwrap_or(0)
    };
    [0x02, 0x42, byte(0), byte(2), byte(4), byte(6)]
}

/// Docker's hardware address for a container: from its address.
pub(crate) fn address_mac(address: IpAddr) -> Mac {
    let bytes = crate::subnet::octets(address);
    let mut mac = [0x02, 0x42, 0, 0, 0, 0];
    for (to, from) in mac
        .iter_mut()
        .skip(2)
        .zip(bytes.iter().skip(bytes.len() - 4))
    {
        *to = *from;
    }
    mac
}

/// What a container's veth pair needs.
pub(crate) struct Pair<'a> {
    pub(crate) host: &'a str,
    pub(crate) container: &'a str,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) mac: Mac,
    pub(crate) bridge: u32,
    /// The container publishes ports, and may ask for its own.
    pub(crate) reflects: bool,
}

/// Makes a container's veth pair. A link of its name that an earlier monitor left behind is replaced.
pub(crate) fn attach(
    netlink: &Netlink,
    config: &NetworkConfig,
    pair: &Pair<'_>,
) -> Result<(), NetworkError> {
    let bridge = config.bridge()?;
    let make = || {
        let mut batch = Batch::route();
        let peer = Peer {
            name: pair.container,
            netns: pair.netns,
            mac: pair.mac,
            mtu: bridge.mtu,
        };
        let veth = Veth {
            name: pair.host,
            master: pair.bridge,
            peer,
        };
        link::create_veth(&mut batch, &veth);
        netlink.execute(batch)
    };
    let made = match make() {
        Err(refused) if refused.errno == Errno::EXIST => {
            delete_link(netlink, pair.host)?;
            make()
        }
        other => other,
    };
    made.map_err(|refused| match refused.errno {
        Errno::OPNOTSUPP => NetworkError::Missing {
            what: "veth pairs".to_owned(),
        },
        errno => NetworkError::kernel(format!("make the link `{}`", pair.host))(errno),
    })?;
    if bridge.icc && !pair.reflects {
        return Ok(());
    }
    let what = format!("set up the bridge's port `{}`", pair.host);
    let index = netlink.link_index(pair.host);
    let index = index.map_err(NetworkError::kernel(what.as_str()))?;
    let mut batch = Batch::route();
    if !bridge.icc {
        link::isolate_port(&mut batch, index);
    }
    if pair.reflects {
        link::reflect_port(&mut batch, index);
    }
    netlink.execute(batch).map_err(NetworkError::kernel(what))
}

/// Deletes a link by its name; one that is gone is no error.
pub(crate) fn delete_link(netlink: &Netlink, name: &str) -> Result<(), NetworkError> {
    let Ok(index) = netlink.link_index(name) else {
        return Ok(());
    };
    let mut batch = Batch::route();
    link::delete(&mut batch, index);
    match netlink.execute(batch) {
        Err(refused) if refused.errno != Errno::NODEV => Err(NetworkError::kernel(format!(
            "delete the link `{name}`"
        ))(refused)),
        _ => Ok(()),
    }
}

/// Removes the bridge and the network's rules, and returns when both are gone for everybody.
///
/// The kernel lets whoever deletes them wait some fifty milliseconds more, for those who may still look
/// at them (`netdev_run_todo`, and `nft_rcv_nl_event` when the socket is closed). A process of one thread
/// lets a copy of itself wait.
pub(crate) fn down(config: &NetworkConfig) -> Result<(), NetworkError> {
    let link = config.bridge()?.link;
    let netlink = open()?;
    if netlink.link_index(&link).is_ok()
        && let Ok((done, copy)) = pipe_with(PipeFlags::CLOEXEC)
    {
        match clone_process(0, None) {
            Ok(Side::Child) => {
                // A pipe that somebody reads to its end would stay open.
                let removed = close_all_but(0, &[Some(copy.as_fd())]).is_ok()
                    && remove_rules(config).is_ok_and(|_open: Firewall| {
                        rustix::io::write(&copy, b"1").is_ok()
                            && open().is_ok_and(|netlink| delete_link(&netlink, &link).is_ok())
                    });
                exit_now(i32::from(!removed));
            }
            Ok(Side::Parent { pidfd, .. }) => {
                drop(copy);
                let are_rules_gone = rustix::io::read(&done, &mut [0]) == Ok(1);
                while netlink.link_index(&link).is_ok() && !has_ended(pidfd.as_fd()) {}
                if are_rules_gone && netlink.link_index(&link).is_err() {
                    return Ok(());
                }
                // Then what follows says why.
            }
            // Of several threads only this one waits.
            Err(_) => {}
        }
    }
    remove_rules(config)?;
    delete_link(&netlink, &link)
}

/// Whether a process has ended, asked for a moment.
fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 200_000,
    };
    poll(&mut fds, Some(&moment)).is_ok_and(|ready| ready > 0)
}

/// Gives the socket back: closing it waits.
fn remove_rules(config: &NetworkConfig) -> Result<Firewall, NetworkError> {
    let firewall = Firewall::open()?;
    if firewall.is_up()? {
        firewall.remove_network(config)?;
    }
    Ok(firewall)
}
