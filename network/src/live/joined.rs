//! A container on networks: made when it starts, served while it runs, given back when it has ended.
//!
//! ```text
//! leases ── links ── addresses, routes ── published ports ── hosts, resolv.conf ── record
//! ```

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use state::{Layout, write_record};
use sys::durable::{Durability, remove_tree};
use sys::netlink::address::add_default_route;
use sys::netlink::conntrack::{self, End};
use sys::netlink::{Batch, Netlink, Protocol, link};

use crate::bridge;
use crate::dns::{self, Names, Outside, Responder, Rules};
use crate::files::{self, Resolv, Resolver};
use crate::firewall::Firewall;
use crate::lease::Endpoint;
use crate::plan::{EndpointPlan, NetworkPlan};
use crate::proxy::{self, Proxies};
use crate::record::{Driver, NetworkConfig};
use crate::{NetworkError, STATE_FILE, restore};

use super::NetworkState;

/// The event of the socket that tells of deleted rules.
const WATCH: u64 = 1;

/// How many events are taken at once.
const EVENTS: usize = 32;

/// An endpoint with what is needed to give it back.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) plan: EndpointPlan,
    pub(super) config: NetworkConfig,
    pub(super) endpoint: Endpoint,
    pub(super) lease: PathBuf,
}

/// The network of one running container.
#[derive(Debug)]
pub struct Joined {
    pub(super) plan: NetworkPlan,
    pub(super) layout: Layout,
    pub(super) netns: OwnedFd,
    /// Routing, in the host's namespace.
    pub(super) host: Netlink,
    /// Routing, in the container's namespace.
    pub(super) inside: Netlink,
    pub(super) firewall: Firewall,
    pub(super) attached: Vec<Attached>,
    pub(super) epoll: OwnedFd,
    pub(super) proxies: Option<Proxies>,
    responder: Option<Responder>,
    watch: Option<Netlink>,
    /// It had published ports of another protocol than TCP.
    pub(super) had_datagrams: bool,
    buffer: Vec<u8>,
}

impl Joined {
    /// Makes the network of a container whose namespace is there and whose program waits.
    ///
    /// # Errors
    /// What could not be done; then everything is given back.
    pub fn start(plan: NetworkPlan, netns: OwnedFd) -> Result<Self, NetworkError> {
        let mut live = Self::open(plan, netns)?;
        match live.make() {
            Ok(()) => Ok(live),
            Err(error) => {
                live.release_ports();
                live.release();
                Err(error)
            }
        }
    }

    /// The sockets by which links and rules are changed; nothing is yet.
    pub(super) fn open(plan: NetworkPlan, netns: OwnedFd) -> Result<Self, NetworkError> {
        let inside = sys::net::within(netns.as_fd(), || Netlink::open(Protocol::Route))
            .and_then(|opened| opened)
            .map_err(NetworkError::kernel("open a socket in the container"))?;
        let epoll =
            epoll::create(CreateFlags::CLOEXEC).map_err(NetworkError::kernel("wait for events"))?;
        Ok(Self {
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
        })
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
        self.start_responder(Rules::New)
    }

    /// Answers for names from now on.
    pub(super) fn start_responder(&mut self, rules: Rules) -> Result<(), NetworkError> {
        let (names, outside) = (self.names(), self.outside());
        let netns = self.netns.try_clone();
        let netns = netns.map_err(NetworkError::kernel("keep the container's network"))?;
        let servers = &self.plan.dns.servers;
        let responder = Responder::start(netns, (names, outside), servers, &self.epoll, rules)?;
        self.responder = Some(responder);
        Ok(())
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

    pub(super) fn state_path(&self) -> PathBuf {
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

impl AsFd for Joined {
    /// Readable when [`Joined::turn`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
