//! The published ports of a running container: bound, translated by the kernel or passed on, and
//! given back.

use std::net::IpAddr;

use rustix::io::Errno;
use sys::durable::remove_tree;
use sys::netlink::conntrack;

use super::joined::{Attached, Joined};
use crate::ports::{Bound, Mapping, Target, Transport, bind_all};
use crate::proxy::Proxies;
use crate::record::Driver;
use crate::{NetworkError, restore};

/// Events of proxies begin here.
const FIRST_PROXY: u64 = 1 << 32;

impl Joined {
    /// The way outside: of the networks that have one, that with the highest priority, the first
    /// among equals.
    pub(super) fn way_outside(&self, is_ipv4: bool) -> Option<(&Attached, IpAddr)> {
        let mut ways = self.attached.iter().filter_map(|attached| {
            let endpoint = &attached.endpoint;
            let gateway = if is_ipv4 {
                endpoint.gateway4
            } else {
                endpoint.gateway6
            };
            Some((attached, gateway.filter(|_| !attached.config.internal)?))
        });
        let first = ways.next()?;
        Some(ways.fold(first, |best, way| {
            let priority = |way: &(&Attached, IpAddr)| way.0.plan.gateway_priority;
            if priority(&way) > priority(&best) {
                way
            } else {
                best
            }
        }))
    }

    /// Where published ports lead to: the address on the network that is the way outside. Internal
    /// networks publish nothing.
    fn target(&self) -> Target {
        let address = |is_ipv4: bool| {
            let of = |attached: &Attached| {
                let endpoint = &attached.endpoint;
                let address = if is_ipv4 {
                    endpoint.ipv4
                } else {
                    endpoint.ipv6
                };
                address.map(|(address, _)| address)
            };
            self.way_outside(is_ipv4).and_then(|(attached, _)| {
                of(attached).filter(|_| attached.config.driver == Driver::Bridge)
            })
        };
        Target {
            ipv4: address(true),
            ipv6: address(false),
        }
    }

    pub(super) fn publish(&mut self) -> Result<(), NetworkError> {
        if self.plan.ports.is_empty() {
            return Ok(());
        }
        let target = self.target();
        if target.ipv4.is_none() && target.ipv6.is_none() {
            // As with Docker: on networks without a way outside nothing is published.
            return Ok(());
        }
        self.apply_host_binding();
        let bound = bind_all(&self.plan, target)?;
        let mappings: Vec<Mapping> = bound.iter().map(|bound| bound.mapping).collect();
        self.publish_in_kernel(&mappings)?;
        self.pass_on(bound)
    }

    /// Listens on bound ports, for what the kernel does not translate.
    pub(super) fn pass_on(&mut self, bound: Vec<Bound>) -> Result<(), NetworkError> {
        let proxies = Proxies::new(bound, FIRST_PROXY, &self.epoll);
        self.proxies = Some(proxies.map_err(NetworkError::kernel("watch the published ports"))?);
        Ok(())
    }

    /// The network's own default address for ports that name none.
    fn apply_host_binding(&mut self) {
        let binding = self.way_outside(true).and_then(|(attached, _)| {
            attached
                .config
                .bridge()
                .ok()
                .and_then(|bridge| bridge.host_binding)
        });
        if let Some(address) = binding {
            self.plan.publish_addresses = vec![address];
        }
    }

    fn publish_in_kernel(&self, mappings: &[Mapping]) -> Result<(), NetworkError> {
        let failed = NetworkError::kernel("publish the ports");
        match self.firewall.publish(mappings) {
            Err(refused) if refused.errno == Errno::EXIST => {}
            Err(refused) if refused.errno == Errno::NOENT => {
                restore::if_gone(&self.layout, &self.firewall)?;
            }
            other => return other.map_err(failed),
        }
        // The sockets are bound, so an element with such a port is a dead owner's; SCTP has no
        // socket, there it may be a live one's.
        for mapping in mappings {
            if mapping.transport == Transport::Sctp {
                let owner = crate::ports::owner(&self.layout, mapping.transport, mapping.host);
                if owner.starts_with("container") {
                    return Err(NetworkError::PortInUse {
                        address: mapping.host.to_string(),
                        protocol: mapping.transport.name(),
                        owner,
                    });
                }
            }
            self.firewall.unpublish(std::slice::from_ref(mapping))?;
        }
        self.firewall.publish(mappings).map_err(failed)
    }

    pub(super) fn ports(&self) -> &[Bound] {
        self.proxies
            .as_ref()
            .map(Proxies::ports)
            .unwrap_or_default()
    }

    /// Flows of UDP that were open before to the published ports must find the new owner.
    pub(super) fn forget_old_flows(&self) {
        let udp = |bound: &&Bound| bound.mapping.transport == Transport::Udp;
        for is_ipv4 in [true, false] {
            let mut ports: Vec<u16> = self
                .ports()
                .iter()
                .filter(udp)
                .filter(|bound| bound.mapping.host.is_ipv4() == is_ipv4)
                .map(|bound| bound.mapping.host.port())
                .collect();
            ports.sort_unstable();
            let Some(any) = self.target_of(is_ipv4).filter(|_| !ports.is_empty()) else {
                continue;
            };
            let wanted = |port: u16| ports.binary_search(&port).is_ok();
            let netlink = self.firewall.netlink();
            // A kernel without connection tracking has no such flow.
            let _untracked =
                conntrack::forget_to_ports(netlink, any, Transport::Udp.number(), wanted);
        }
    }

    fn target_of(&self, is_ipv4: bool) -> Option<IpAddr> {
        let target = self.target();
        if is_ipv4 { target.ipv4 } else { target.ipv6 }
    }

    /// Gives the published ports back: before anybody hears that the container has ended, so that
    /// the next one can have them.
    pub fn release_ports(&mut self) {
        let Some(proxies) = self.proxies.take() else {
            return;
        };
        let mappings: Vec<Mapping> = proxies.ports().iter().map(|b| b.mapping).collect();
        self.had_datagrams = mappings.iter().any(|m| m.transport != Transport::Tcp);
        // What stays is found by the next owner of the port.
        drop(self.firewall.unpublish(&mappings));
        drop(remove_tree(&self.state_path()));
    }
}
