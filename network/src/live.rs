//! The network of one running container, owned by its monitor: made when the container starts,
//! served while it runs, given back when it has ended.
//!
//! ```text
//! leases ── links ── addresses, routes ── published ports ── hosts, resolv.conf ── record
//! ```

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use state::{Layout, write_record};
use sys::durable::{Durability, remove_tree};
use sys::netlink::address::{add_address, add_default_route};
use sys::netlink::conntrack::{self, End};
use sys::netlink::{Batch, Netlink, Protocol, link};

use crate::bridge::{self, Pair};
use crate::dns::{self, Names, Outside, Responder};
use crate::files::{self, Resolv, Resolver};
use crate::firewall::Firewall;
use crate::lease::{Endpoint, Leases, Wanted};
use crate::plan::{EndpointPlan, NetworkPlan};
use crate::ports::{Bound, Mapping, Published, Target, Transport, bind_all};
use crate::proxy::{self, Proxies};
use crate::record::{Driver, NetworkConfig};
use crate::store::Networks;
use crate::{NetworkError, STATE_FILE, child, restore};

/// The event of the socket that tells of deleted rules.
const WATCH: u64 = 1;
/// Events of proxies begin here.
const FIRST_PROXY: u64 = 1 << 32;

/// How long a monitor takes at most to give back the addresses of a container that has ended.
const RETURN_TIME: Duration = Duration::from_millis(200);

/// How many events are taken at once.
const EVENTS: usize = 32;

/// What a running container has of the network: `network.json` in its run directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The networks that it is on.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Vec<Published>,
    /// Where the kernel sends each of them.
    pub targets: Vec<SocketAddr>,
    /// The ports are all passed on by the monitor.
    pub proxied: bool,
}

impl NetworkState {
    /// The mappings of the published ports.
    pub(crate) fn mappings(&self) -> Vec<Mapping> {
        let pairs = self.ports.iter().zip(&self.targets);
        pairs
            .map(|(port, target)| Mapping {
                transport: port.transport,
                host: port.host,
                container: *target,
                proxied: self.proxied,
            })
            .collect()
    }
}

/// An endpoint with what is needed to give it back.
#[derive(Debug)]
struct Attached {
    plan: EndpointPlan,
    config: NetworkConfig,
    endpoint: Endpoint,
    lease: PathBuf,
}

/// The network of one running container.
#[derive(Debug)]
pub struct Live {
    plan: NetworkPlan,
    layout: Layout,
    netns: OwnedFd,
    /// Routing, in the host's namespace.
    host: Netlink,
    /// Routing, in the container's namespace.
    inside: Netlink,
    firewall: Firewall,
    attached: Vec<Attached>,
    epoll: OwnedFd,
    proxies: Option<Proxies>,
    responder: Option<Responder>,
    watch: Option<Netlink>,
    /// It had published ports of another protocol than TCP.
    had_datagrams: bool,
    buffer: Vec<u8>,
}

impl Live {
    /// Makes the network of a container whose namespace is there and whose program waits.
    ///
    /// # Errors
    /// What could not be done; then everything is given back.
    pub fn start(plan: NetworkPlan, netns: OwnedFd) -> Result<Self, NetworkError> {
        let inside = sys::net::within(netns.as_fd(), || Netlink::open(Protocol::Route))
            .and_then(|opened| opened)
            .map_err(NetworkError::kernel("open a socket in the container"))?;
        let epoll =
            epoll::create(CreateFlags::CLOEXEC).map_err(NetworkError::kernel("wait for events"))?;
        let mut live = Self {
            layout: plan.layout(),
            netns,
            host: bridge::open()?,
            inside,
            firewall: Firewall::open()?,
            attached: Vec::with_capacity(plan.endpoints.len()),
            epoll,
            proxies: None,
            responder: None,
            watch: None,
            had_datagrams: false,
            buffer: proxy::buffer(),
            plan,
        };
        match live.make() {
            Ok(()) => Ok(live),
            Err(error) => {
                live.release_ports();
                live.release();
                Err(error)
            }
        }
    }

    fn make(&mut self) -> Result<(), NetworkError> {
        for plan in self.plan.endpoints.clone() {
            self.attach(plan)?;
        }
        self.set_default_routes()?;
        self.publish()?;
        self.serve_names()?;
        self.write_files()?;
        self.record()
    }

    /// The names on the container's networks; nobody has one on the default network.
    fn names(&self) -> Names {
        let named = self.attached.iter().filter(|a| !a.config.is_default());
        Names::new(self.layout.clone(), named.map(|a| a.config.id.clone()))
    }

    fn outside(&self) -> Outside {
        if self
            .attached
            .iter()
            .all(|attached| attached.config.internal)
        {
            Outside::Barred
        } else {
            Outside::Reachable
        }
    }

    /// Starts the responder, or tells it of other networks.
    fn serve_names(&mut self) -> Result<(), NetworkError> {
        if self.resolver() == Resolver::Host && self.responder.is_none() {
            return Ok(());
        }
        let (names, outside) = (self.names(), self.outside());
        if let Some(responder) = &mut self.responder {
            responder.change(names, outside);
            return Ok(());
        }
        let netns = self.netns.try_clone();
        let netns = netns.map_err(NetworkError::kernel("keep the container's network"))?;
        let servers = &self.plan.dns.servers;
        self.responder = Some(Responder::start(
            netns,
            names,
            outside,
            servers,
            &self.epoll,
        )?);
        Ok(())
    }

    /// Puts the container on one network.
    fn attach(&mut self, plan: EndpointPlan) -> Result<(), NetworkError> {
        let networks = Networks::new(self.layout.clone());
        let config = networks.by_id(&plan.network).map_err(|error| match error {
            NetworkError::NotFound(_) => NetworkError::NotFound(plan.name.clone()),
            other => other,
        })?;
        let bridge = match config.driver {
            Driver::Bridge => Some(bridge::ensure(
                &self.layout,
                &config,
                &self.host,
                &self.firewall,
            )?),
            _ => None,
        };
        let attached = self.lease(plan, config)?;
        let endpoint = attached.endpoint.clone();
        let mac = parse_mac(&endpoint.mac);
        let config = attached.config.clone();
        // From here on it is given back by `release`.
        self.attached.push(attached);
        let netns = self.netns.as_fd();
        match bridge {
            Some(bridge) => {
                let pair = Pair {
                    host: &endpoint.host_link,
                    container: &endpoint.link,
                    netns,
                    mac,
                    bridge,
                    reflects: !self.plan.ports.is_empty(),
                };
                bridge::attach(&self.host, &config, &pair)?;
            }
            None => child::attach(&self.host, &config, &endpoint.link, netns, mac)?,
        }
        self.configure(&endpoint)
    }

    /// Leases addresses and writes the endpoint down.
    fn lease(&self, plan: EndpointPlan, config: NetworkConfig) -> Result<Attached, NetworkError> {
        let wanted = Wanted {
            ipv4: plan.ipv4,
            ipv6: plan.ipv6,
        };
        let (leases, [ipv4, ipv6]) = self.lease_addresses(&config, wanted)?;
        let mac = plan.mac.unwrap_or_else(|| {
            ipv4.or(ipv6)
                .map_or([2, 0x42, 0, 0, 0, 1], bridge::address_mac)
        });
        let number = self.free_number(&plan);
        let prefix = config.bridge().ok().and_then(|bridge| bridge.link_prefix);
        let link = plan
            .link
            .clone()
            .unwrap_or_else(|| format!("{}{number}", prefix.as_deref().unwrap_or("eth")));
        let id = &self.plan.container;
        let short = id.get(..12).unwrap_or(id);
        let mut names = vec![self.plan.name.clone(), short.to_owned()];
        names.extend(plan.aliases.iter().cloned());
        if !names.contains(&self.plan.hostname) {
            names.push(self.plan.hostname.clone());
        }
        let gateway = |pool: &Option<crate::Pool>| pool.as_ref().and_then(|pool| pool.gateway);
        let prefixed = |address: Option<IpAddr>, pool: &Option<crate::Pool>| {
            address.zip(pool.as_ref().map(|pool| pool.subnet.prefix()))
        };
        let endpoint = Endpoint {
            network: config.id.clone(),
            network_name: config.name.clone(),
            container: id.clone(),
            name: self.plan.name.clone(),
            names,
            aliases: plan.aliases.clone(),
            ipv4: prefixed(ipv4, &config.ipv4),
            ipv6: prefixed(ipv6, &config.ipv6),
            gateway4: gateway(&config.ipv4),
            gateway6: gateway(&config.ipv6),
            mac: mac_text(mac),
            link,
            host_link: match config.driver {
                Driver::Bridge => format!("kv{}{number:x}", id.get(..11).unwrap_or(id)),
                _ => String::new(),
            },
        };
        let lease = leases.record(&endpoint)?;
        Ok(Attached {
            plan,
            config,
            endpoint,
            lease,
        })
    }

    /// Leases addresses. One that was asked for may still be a container's that has just ended: its
    /// monitor gives it back in a moment.
    fn lease_addresses(
        &self,
        config: &NetworkConfig,
        wanted: Wanted,
    ) -> Result<(Leases<'_>, [Option<IpAddr>; 2]), NetworkError> {
        let deadline = Instant::now() + RETURN_TIME;
        loop {
            let leases = Leases::lock(&self.layout, &config.id)?;
            match leases.lease(config, wanted) {
                Err(NetworkError::AddressInUse { .. }) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
                Ok(addresses) => return Ok((leases, addresses)),
            }
            drop(leases);
            std::thread::sleep(RETURN_TIME / 20);
        }
    }

    /// The first number that no link of the container has.
    fn free_number(&self, plan: &EndpointPlan) -> usize {
        let taken = |number: &usize| {
            let end = number.to_string();
            self.attached.iter().any(|attached| {
                let link = &attached.endpoint.link;
                link.trim_end_matches(|c: char| c.is_ascii_digit()).len() + end.len() == link.len()
                    && link.ends_with(&end)
            })
        };
        let _own = plan;
        (0..).find(|number| !taken(number)).unwrap_or(0)
    }

    /// Gives the link its addresses, inside the container.
    fn configure(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let name = &endpoint.link;
        let what = format!("give `{name}` its addresses");
        let index = self.inside.link_index(name);
        let index = index.map_err(NetworkError::kernel(what.as_str()))?;
        if endpoint.ipv6.is_none() {
            self.within(|| bridge::set_link_ipv6(name, "disable_ipv6", "1"))??;
        }
        let mut batch = Batch::route();
        for (address, prefix) in [endpoint.ipv4, endpoint.ipv6].into_iter().flatten() {
            add_address(&mut batch, index, address, prefix);
        }
        let plan = self.attached.last().map(|attached| &attached.plan);
        for address in plan.into_iter().flat_map(|plan| &plan.link_local) {
            let prefix = if address.is_ipv4() { 16 } else { 64 };
            add_address(&mut batch, index, *address, prefix);
        }
        link::set_up(&mut batch, index);
        self.inside
            .execute(batch)
            .map_err(NetworkError::kernel(what))
    }

    fn within<T>(&self, inside: impl FnOnce() -> T) -> Result<T, NetworkError> {
        sys::net::within(self.netns.as_fd(), inside)
            .map_err(NetworkError::kernel("enter the container's network"))
    }

    /// The way outside: of the networks that have one, that with the highest priority, the first
    /// among equals.
    fn way_outside(&self, is_ipv4: bool) -> Option<(&Attached, IpAddr)> {
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

    fn set_default_routes(&self) -> Result<(), NetworkError> {
        let mut batch = Batch::route();
        for is_ipv4 in [true, false] {
            let Some((attached, gateway)) = self.way_outside(is_ipv4) else {
                continue;
            };
            let index = self.inside.link_index(&attached.endpoint.link);
            let index = index.map_err(NetworkError::kernel("find the way outside"))?;
            add_default_route(&mut batch, index, gateway, false);
        }
        let done = self.inside.execute(batch);
        done.map_err(NetworkError::kernel("set the container's default route"))
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

    fn publish(&mut self) -> Result<(), NetworkError> {
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

    fn write_files(&self) -> Result<(), NetworkError> {
        let endpoints: Vec<&Endpoint> = self.attached.iter().map(|a| &a.endpoint).collect();
        let hosts = files::hosts(&self.plan, &endpoints);
        files::rewrite(&self.plan.files.join("hosts"), &hosts)?;
        let resolver = self.resolver();
        let host = Resolv::of_host(resolver == Resolver::Host);
        let text = files::resolv_conf(host, &self.plan.dns, resolver);
        files::rewrite(&self.plan.files.join("resolv.conf"), &text)
    }

    /// On the default network nobody has a name, so the host's resolvers are asked directly, unless
    /// only the host itself can reach them.
    fn resolver(&self) -> Resolver {
        let named = self.attached.iter().any(|a| !a.config.is_default());
        if named || self.responder.is_some() {
            return Resolver::Responder;
        }
        let own = &self.plan.dns.servers;
        let host = || Resolv::of_host(true).servers;
        let servers = if own.is_empty() { host() } else { own.clone() };
        if !servers.is_empty() && servers.iter().all(IpAddr::is_loopback) {
            Resolver::Responder
        } else {
            Resolver::Host
        }
    }

    fn ports(&self) -> &[Bound] {
        self.proxies
            .as_ref()
            .map(Proxies::ports)
            .unwrap_or_default()
    }

    /// What the container has of the network.
    #[must_use]
    pub fn state(&self) -> NetworkState {
        let mappings = self.ports().iter().map(|bound| bound.mapping);
        NetworkState {
            endpoints: self.attached.iter().map(|a| a.endpoint.clone()).collect(),
            ports: mappings
                .clone()
                .map(|mapping| mapping.published())
                .collect(),
            targets: mappings.map(|mapping| mapping.container).collect(),
            proxied: self.plan.publish == crate::Publish::Proxy,
        }
    }

    fn state_path(&self) -> PathBuf {
        self.layout
            .container_run(&self.plan.container)
            .join(STATE_FILE)
    }

    fn record(&self) -> Result<(), NetworkError> {
        write_record(&self.state_path(), &self.state(), Durability::Atomic)?;
        Ok(())
    }

    /// Puts the running container on a further network.
    ///
    /// # Errors
    /// What could not be done; then nothing has changed.
    pub fn join(&mut self, plan: EndpointPlan) -> Result<(), NetworkError> {
        let before = self.attached.len();
        let joined = self
            .attach(plan)
            .and_then(|()| self.set_default_routes())
            .and_then(|()| self.serve_names())
            .and_then(|()| self.write_files());
        if joined.is_err()
            && self.attached.len() > before
            && let Some(attached) = self.attached.pop()
        {
            self.detach(&attached);
        }
        joined?;
        self.record()
    }

    /// Takes the running container off a network. Ports stay published where they lead.
    ///
    /// # Errors
    /// When it is not on the network.
    pub fn leave(&mut self, network: &str) -> Result<(), NetworkError> {
        let place = self.attached.iter().position(|a| a.config.id == network);
        let Some(place) = place else {
            return Err(NetworkError::NotOn {
                container: self.plan.name.clone(),
                network: network.to_owned(),
            });
        };
        let attached = self.attached.remove(place);
        self.detach(&attached);
        self.set_default_routes()?;
        self.serve_names()?;
        self.write_files()?;
        self.record()
    }

    /// Removes one link, and gives its addresses back.
    fn detach(&self, attached: &Attached) {
        // With one end the other goes too, and with it its addresses and routes.
        drop(bridge::delete_link(&self.inside, &attached.endpoint.link));
        drop(remove_tree(&attached.lease));
    }

    /// What is left to be done once the container runs: nothing that its program waits for.
    pub fn settle(&mut self) {
        self.forget_old_flows();
        if self
            .attached
            .iter()
            .any(|a| a.config.driver == Driver::Bridge)
        {
            self.watch_rules();
        }
    }

    /// Flows of UDP that were open before to the published ports must find the new owner.
    fn forget_old_flows(&self) {
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

    /// Hears of deleted rules, to repair what a flush of everything took along.
    fn watch_rules(&mut self) {
        const NFNLGRP_NFTABLES: u32 = 7;
        let Ok(watch) = Netlink::open_in_groups(Protocol::Netfilter, 1 << (NFNLGRP_NFTABLES - 1))
        else {
            return;
        };
        let filtered = watch.hear_deletions_only();
        let data = EventData::new_u64(WATCH);
        if filtered.is_ok() && epoll::add(&self.epoll, &watch, data, EventFlags::IN).is_ok() {
            self.watch = Some(watch);
        }
    }

    /// Handles what is ready, without waiting.
    pub fn turn(&mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let none = rustix::time::Timespec::default();
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, spare, Some(&none)).is_err() {
            return;
        }
        for event in events {
            let token = event.data.u64();
            if token == WATCH {
                self.repair_rules();
            } else if token >= dns::FIRST {
                if let Some(responder) = &mut self.responder {
                    responder.handle(token, &self.epoll, &mut self.buffer);
                }
            } else if let Some(proxies) = &mut self.proxies {
                proxies.handle(token, event.flags, &self.epoll, &mut self.buffer);
            }
        }
    }

    fn repair_rules(&self) {
        let news = self.watch.as_ref().map(Netlink::take_news);
        if matches!(news, Some(Ok(true))) {
            // What fails now is tried again by the next container that starts. Another root's ketch
            // may have made the table anew, without what is ours.
            drop(restore::if_gone(&self.layout, &self.firewall));
            for attached in &self.attached {
                if attached.config.driver == Driver::Bridge {
                    drop(self.firewall.add_network(&attached.config));
                }
            }
            drop(self.firewall.publish(&self.state().mappings()));
        }
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

    /// Gives addresses and links back. The links themselves go with the container's namespace.
    pub fn release(&mut self) {
        let mut batch = Batch::route();
        for attached in &self.attached {
            if let Ok(index) = self.host.link_index(&attached.endpoint.host_link) {
                link::disable_port(&mut batch, index);
            }
        }
        // A link that is gone is on no bridge.
        drop(self.host.execute(batch));
        for attached in self.attached.drain(..) {
            let endpoint = &attached.endpoint;
            let addresses = [endpoint.ipv4, endpoint.ipv6].into_iter().flatten();
            // Each walks the whole table of connections; those of TCP end by themselves.
            for (address, _) in addresses.filter(|_| self.had_datagrams) {
                forget(&self.firewall, address);
            }
            // A lease without a live container is given back by whoever needs it.
            drop(remove_tree(&attached.lease));
        }
        drop(remove_tree(&self.state_path()));
    }
}

/// Drops the tracked connections of an address, as far as this kernel can.
fn forget(firewall: &Firewall, address: IpAddr) {
    for end in [End::Origin, End::Answer] {
        drop(conntrack::forget(firewall.netlink(), address, end));
    }
}

impl AsFd for Live {
    /// Readable when [`Live::turn`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    let parts: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn parse_mac(text: &str) -> [u8; 6] {
    let mut mac = [0; 6];
    for (to, part) in mac.iter_mut().zip(text.split(':')) {
        *to = u8::from_str_radix(part, 16).unwrap_or(0);
    }
    mac
}
