//! The network of an ordinary user's container, who may make no link on the host: a helper carries
//! packets between the container's namespace and ordinary sockets (pasta, else slirp4netns), or the
//! container has its loopback link alone.
//!
//! pasta publishes ports itself, which keeps the client's address. Otherwise the monitor listens,
//! and connects inside the container by sockets that another small process makes there
//! ([`sockets`]): who has left the host's namespace without being its root cannot come back.

mod helper;
mod pasta;
mod slirp;
mod sockets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use state::{Layout, write_record};
use sys::durable::{Durability, remove_tree};

use crate::files::{self, Resolv, Resolver};
use crate::lease::Endpoint;
use crate::live::{NetworkState, recorded};
use crate::plan::{HostTarget, NetworkPlan, UserWay};
use crate::ports::{Bound, Mapping, Target, Transport, bind_again, bind_all};
use crate::proxy::{self, Proxies};
use crate::{NetworkError, STATE_FILE};

pub use helper::Helper;
pub use sockets::serve as serve_sockets;

use helper::Running;

pub(crate) use sockets::Dialer;

/// The container's address, its gateway and the resolver that stands for the host's: slirp4netns's
/// own, and pasta is told the same.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const PREFIX: u8 = 24;

/// The link's name in the container.
const LINK: &str = "eth0";

/// How many events are taken at once.
const EVENTS: usize = 32;

/// Events of proxies begin here.
const FIRST_PROXY: u64 = 1 << 32;

/// The network of one running container of an ordinary user.
#[derive(Debug)]
pub struct UserMode {
    plan: NetworkPlan,
    layout: Layout,
    epoll: OwnedFd,
    helper: Option<Running>,
    proxies: Option<Proxies>,
    /// What is published, by whomever.
    mappings: Vec<Mapping>,
    buffer: Vec<u8>,
}

impl UserMode {
    /// Makes the network of a container whose program waits; `pid` is its init.
    ///
    /// # Errors
    /// What could not be done; then everything is given back.
    pub(crate) fn start(
        plan: NetworkPlan,
        way: &UserWay,
        netns: OwnedFd,
        pid: i32,
    ) -> Result<Self, NetworkError> {
        let mut live = Self::new(plan)?;
        let made = live.make(way, netns, pid);
        if let Err(error) = made {
            live.release_ports();
            live.release();
            return Err(error);
        }
        Ok(live)
    }

    fn new(plan: NetworkPlan) -> Result<Self, NetworkError> {
        let epoll =
            epoll::create(CreateFlags::CLOEXEC).map_err(NetworkError::kernel("wait for events"))?;
        Ok(Self {
            layout: plan.layout(),
            plan,
            epoll,
            helper: None,
            proxies: None,
            mappings: Vec::new(),
            buffer: proxy::buffer(),
        })
    }

    fn make(&mut self, way: &UserWay, netns: OwnedFd, pid: i32) -> Result<(), NetworkError> {
        let bound = self.bind(way.helper)?;
        self.mappings = bound.iter().map(|bound| bound.mapping).collect();
        match way.helper {
            Some(Helper::Pasta) => {
                let files = self.layout.container_run(&self.plan.container);
                if bound.is_empty() || pasta::forwards_well() {
                    // The ports were free and this user may have them; now pasta takes them.
                    drop(bound);
                    self.helper = Some(pasta::start(&files, netns, &self.mappings)?);
                } else {
                    let own = netns
                        .try_clone()
                        .map_err(NetworkError::kernel("keep the container's network"))?;
                    self.helper = Some(pasta::start(&files, own, &[])?);
                    self.serve(bound, netns)?;
                }
            }
            Some(Helper::Slirp4netns) => {
                self.helper = Some(slirp::start(pid)?);
                self.serve(bound, netns)?;
            }
            None => self.serve(bound, netns)?,
        }
        self.write_files(way.helper)?;
        self.record(way.helper)
    }

    /// Goes on with the network of a container whose monitor was killed; `pid` is its init.
    ///
    /// # Errors
    /// What is not the container's any more.
    pub(crate) fn resume(
        plan: NetworkPlan,
        way: &UserWay,
        netns: OwnedFd,
        pid: i32,
    ) -> Result<Self, NetworkError> {
        let mappings = recorded(&plan)?.mappings();
        let mut live = Self::new(plan)?;
        live.mappings = mappings;
        match way.helper {
            Some(Helper::Pasta) => {
                let helper = pasta::running(&live.layout.container_run(&live.plan.container));
                live.helper = Some(helper?);
                if !pasta::forwards_well() {
                    live.serve(bind_again(&live.mappings)?, netns)?;
                }
            }
            // It ended with the earlier monitor, and its link in the container with it.
            Some(Helper::Slirp4netns) => {
                live.helper = Some(slirp::start(pid)?);
                live.serve(bind_again(&live.mappings)?, netns)?;
            }
            None => live.serve(bind_again(&live.mappings)?, netns)?,
        }
        Ok(live)
    }

    /// Binds every published port: who has one that is taken can be named, and one that was asked
    /// for without a number gets it.
    fn bind(&self, helper: Option<Helper>) -> Result<Vec<Bound>, NetworkError> {
        if let Some(port) = self
            .plan
            .ports
            .iter()
            .find(|p| p.transport == Transport::Sctp)
        {
            return Err(NetworkError::BadOption {
                option: format!("--publish {}/sctp", port.container_port),
                why: "SCTP is published on networks of root alone".to_owned(),
            });
        }
        let address = match helper {
            Some(_) => ADDRESS,
            None => Ipv4Addr::LOCALHOST,
        };
        let target = Target {
            ipv4: Some(address.into()),
            ipv6: None,
        };
        bind_all(&self.plan, target)
    }

    /// Listens on the published ports.
    fn serve(&mut self, bound: Vec<Bound>, netns: OwnedFd) -> Result<(), NetworkError> {
        if bound.is_empty() {
            return Ok(());
        }
        let dialer = Dialer::start(netns)?;
        let proxies = Proxies::new(bound, FIRST_PROXY, &self.epoll)
            .map_err(NetworkError::kernel("watch the published ports"))?;
        self.proxies = Some(proxies.through(dialer));
        Ok(())
    }

    fn write_files(&self, helper: Option<Helper>) -> Result<(), NetworkError> {
        let plan = &self.plan;
        let own = match &plan.domainname {
            Some(domain) => format!("{}.{domain} {}", plan.hostname, plan.hostname),
            None => plan.hostname.clone(),
        };
        let address: IpAddr = match helper {
            Some(_) => ADDRESS.into(),
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let asks = |(_, target): &(_, HostTarget)| *target == HostTarget::Gateway;
        let host = plan.extra_hosts.iter().any(asks).then(host_address);
        let hosts = files::hosts_text(
            &own,
            [address].into_iter(),
            &plan.extra_hosts,
            host.flatten(),
        );
        files::rewrite(&plan.files.join("hosts"), &hosts)?;
        let mut resolv = Resolv::of_host(false);
        if helper.is_some() {
            resolv.servers = vec![RESOLVER.into()];
        }
        let text = files::resolv_conf(resolv, &plan.dns, Resolver::Shared);
        files::rewrite(&plan.files.join("resolv.conf"), &text)
    }

    fn state_path(&self) -> std::path::PathBuf {
        self.layout
            .container_run(&self.plan.container)
            .join(STATE_FILE)
    }

    fn record(&self, helper: Option<Helper>) -> Result<(), NetworkError> {
        let endpoint = |helper: Helper| Endpoint {
            network: String::new(),
            network_name: helper.name().to_owned(),
            container: self.plan.container.clone(),
            name: self.plan.name.clone(),
            names: Vec::new(),
            aliases: Vec::new(),
            ipv4: Some((ADDRESS.into(), PREFIX)),
            ipv6: None,
            gateway4: Some(GATEWAY.into()),
            gateway6: None,
            mac: String::new(),
            link: LINK.to_owned(),
            host_link: String::new(),
        };
        let state = NetworkState {
            endpoints: helper.map(endpoint).into_iter().collect(),
            ports: self.mappings.iter().map(Mapping::published).collect(),
            targets: self.mappings.iter().map(|m| m.container).collect(),
            proxied: true,
        };
        write_record(&self.state_path(), &state, Durability::Atomic)?;
        Ok(())
    }

    /// Handles what is ready, without waiting.
    pub(crate) fn turn(&mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let none = rustix::time::Timespec::default();
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, spare, Some(&none)).is_err() {
            return;
        }
        for event in events {
            let (token, flags): (u64, EventFlags) = (event.data.u64(), event.flags);
            if let Some(proxies) = &mut self.proxies {
                proxies.handle(token, flags, &self.epoll, &mut self.buffer);
            }
        }
    }

    /// Gives the published ports back, pasta's with pasta itself.
    pub(crate) fn release_ports(&mut self) {
        self.proxies = None;
        if !self.mappings.is_empty() {
            self.helper = None;
        }
        drop(remove_tree(&self.state_path()));
    }

    /// Ends the helper.
    pub(crate) fn release(&mut self) {
        self.helper = None;
        drop(remove_tree(&self.state_path()));
    }
}

impl AsFd for UserMode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Ends what carried the packets of a container that has ended, when its monitor was killed.
pub(crate) fn clear_left(plan: &NetworkPlan) {
    let files = plan.layout().container_run(&plan.container);
    if plan
        .user
        .is_some_and(|way| way.helper == Some(Helper::Pasta))
    {
        // It may have ended with the container's namespace. Dropped, it is told to end.
        drop(pasta::running(&files));
    }
}

/// The host's own address on its way outside. No packet is sent: the address is one of those that
/// are for documentation (RFC 5737).
fn host_address() -> Option<IpAddr> {
    const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).ok()?;
    rustix::net::connect(&socket, &ELSEWHERE).ok()?;
    let own = SocketAddr::try_from(rustix::net::getsockname(&socket).ok()?).ok()?;
    Some(own.ip())
}
