//! Sockets on the host's ports.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use state::Layout;

use super::{Mapping, PortRequest, Publish, Transport, owner, taker};
use crate::NetworkError;
use crate::plan::NetworkPlan;

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

/// How often a port that the kernel chose for one family may be taken in the other.
const ATTEMPTS: u32 = 32;

/// A mapping and the socket that holds its port; SCTP has none, its map element is the allocation.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) mapping: Mapping,
    pub(crate) socket: Option<OwnedFd>,
}

/// The container's addresses that ports lead to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
}

impl Target {
    /// The address for a port of the host: of the same family when there is one.
    fn of(self, host: IpAddr) -> Option<IpAddr> {
        if host.is_ipv4() {
            self.ipv4.or(self.ipv6)
        } else {
            self.ipv6.or(self.ipv4)
        }
    }
}

/// Binds every port of the plan, or none.
pub(crate) fn bind_all(plan: &NetworkPlan, target: Target) -> Result<Vec<Bound>, NetworkError> {
    let layout = plan.layout();
    raise_descriptor_limit(plan.ports.len());
    let mut bound = Vec::with_capacity(plan.ports.len() * 2);
    for request in &plan.ports {
        bound.extend(bind_one(plan, &layout, request, target)?);
    }
    Ok(bound)
}

/// Binds the host's ends of mappings, or none: they are those of a container whose monitor was killed.
pub(crate) fn bind_again(mappings: &[Mapping]) -> Result<Vec<Bound>, NetworkError> {
    raise_descriptor_limit(mappings.len());
    let bind = |mapping: &Mapping| {
        let (transport, host) = (mapping.transport, mapping.host);
        match socket(transport, host) {
            Ok((socket, _)) => Ok(Bound {
                mapping: *mapping,
                socket,
            }),
            Err(Errno::ADDRINUSE) => Err(NetworkError::PortInUse {
                address: host.to_string(),
                protocol: transport.name(),
                owner: taker(transport, host),
            }),
            Err(errno) => Err(NetworkError::Publish {
                address: host.to_string(),
                protocol: transport.name(),
                source: errno.into(),
            }),
        }
    };
    mappings.iter().map(bind).collect()
}

/// Many ports need many descriptors; the container has its own limit already.
fn raise_descriptor_limit(ports: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(ports).unwrap_or(0).saturating_mul(2) + 256;
    if limit.current.is_some_and(|current| current < needed) {
        // A port that finds no descriptor says so.
        let _refused = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
}

fn bind_one(
    plan: &NetworkPlan,
    layout: &Layout,
    request: &PortRequest,
    target: Target,
) -> Result<Vec<Bound>, NetworkError> {
    let default = &plan.publish_addresses;
    let hosts = request
        .host
        .as_ref()
        .map_or(&default[..], std::slice::from_ref);
    let (first, last) = request.host_ports.unwrap_or((0, 0));
    let mut refused = (SocketAddr::from(([0, 0, 0, 0], first)), Errno::ADDRNOTAVAIL);
    let tries = if first == 0 {
        ATTEMPTS
    } else {
        u32::from(last - first) + 1
    };
    for attempt in 0..tries {
        let port = if first == 0 {
            0
        } else {
            first.saturating_add(u16::try_from(attempt).unwrap_or(0))
        };
        match bind_port(plan, request, hosts, port, target) {
            Ok(bound) => return Ok(bound),
            Err((address, errno)) => {
                refused = (address, errno);
                if errno != Errno::ADDRINUSE {
                    break;
                }
            }
        }
    }
    Err(refusal(layout, request, first, last, refused))
}

fn refusal(
    layout: &Layout,
    request: &PortRequest,
    first: u16,
    last: u16,
    (address, errno): (SocketAddr, Errno),
) -> NetworkError {
    let protocol = request.transport.name();
    let text = if last > first {
        format!("{}:{first}-{last}", address.ip())
    } else {
        address.to_string()
    };
    if errno == Errno::ADDRINUSE {
        return NetworkError::PortInUse {
            address: text,
            protocol,
            owner: owner(layout, request.transport, address),
        };
    }
    if errno == Errno::ACCESS {
        return NetworkError::PortForbidden {
            address: text,
            protocol,
            first: first_unprivileged(),
        };
    }
    NetworkError::Publish {
        address: text,
        protocol,
        source: errno.into(),
    }
}

/// The first port that everybody may bind (`ip-sysctl.rst`).
fn first_unprivileged() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

/// Binds one port number on every address.
fn bind_port(
    plan: &NetworkPlan,
    request: &PortRequest,
    hosts: &[IpAddr],
    port: u16,
    target: Target,
) -> Result<Vec<Bound>, (SocketAddr, Errno)> {
    let mut port = port;
    let mut bound: Vec<Bound> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let Some(container) = target.of(*host) else {
            continue;
        };
        let wanted = SocketAddr::new(*host, port);
        match socket(request.transport, wanted) {
            Ok((socket, address)) => {
                port = address.port();
                bound.push(Bound {
                    mapping: Mapping {
                        transport: request.transport,
                        host: address,
                        container: SocketAddr::new(container, request.container_port),
                        proxied: plan.publish == Publish::Proxy,
                    },
                    socket,
                });
            }
            // A host without IPv6 publishes on IPv4 alone, unless IPv6 was asked for.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
                if host.is_ipv6() && request.host.is_none() && !bound.is_empty() => {}
            Err(errno) => return Err((wanted, errno)),
        }
    }
    if bound.is_empty() {
        return Err((SocketAddr::new(hosts[0], port), Errno::ADDRNOTAVAIL));
    }
    Ok(bound)
}

/// A socket that holds a port, and its address.
fn socket(
    transport: Transport,
    wanted: SocketAddr,
) -> Result<(Option<OwnedFd>, SocketAddr), Errno> {
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
        Transport::Sctp if wanted.port() == 0 => return Err(Errno::INVAL),
        Transport::Sctp => return Ok((None, wanted)),
    };
    let family = if wanted.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if wanted.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if transport == Transport::Tcp {
        // Connections of an earlier owner that are only fading away do not count.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &wanted)?;
    if transport == Transport::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let address = rustix::net::getsockname(socket.as_fd())?;
    let address = SocketAddr::try_from(address)?;
    Ok((Some(socket), address))
}
