//! The network of a container as the user asked for it, and its way into the monitor's plan. The
//! record `network.json` in the container's directory changes when the container is put on a network
//! or taken off one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use network::{
    DEFAULT_NETWORK, DnsOptions, Driver, EndpointPlan, Helper, HostTarget, NetworkError,
    NetworkPlan, NetworkState, Networks, PortRange, PortRequest, Publish, UserWay,
};
use runtime::Request;
use serde::{Deserialize, Serialize};
use state::{VERSION, read_record, write_record};
use sys::durable::Durability;

use crate::options::{Join, Network, NetworkOptions};
use crate::{Container, Engine, EngineError};

/// The record's name.
const FILE: &str = "network.json";

/// Whose network namespace a container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Its own, with the loopback link.
    None,
    /// The host's.
    Host,
    /// Another container's, by its id.
    Container(String),
    /// Its own, on networks.
    Joined,
    /// An ordinary user's own: a helper carries its packets, or nobody does and its published ports
    /// alone are passed on.
    User(Option<Helper>),
}

/// `network.json` of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerNetwork {
    /// The version of the record.
    pub version: u32,
    /// Whose namespace it has.
    pub mode: NetworkMode,
    /// The networks that it is on.
    pub endpoints: Vec<EndpointPlan>,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// Ports that the image and the user name, published or not.
    pub exposed: Vec<String>,
    /// How ports are published.
    pub publish: Publish,
    /// The host's addresses of ports that name none.
    pub publish_addresses: Vec<IpAddr>,
    /// Its host name.
    pub hostname: String,
    /// Its domain.
    pub domainname: Option<String>,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<(String, HostTarget)>,
    /// How names are resolved.
    pub dns: DnsOptions,
}

impl ContainerNetwork {
    /// Reads the record in a container's directory.
    pub(crate) fn read(dir: &Path) -> Result<Self, EngineError> {
        Ok(read_record(&dir.join(FILE))?)
    }

    /// Replaces the record in a container's directory.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), EngineError> {
        Ok(write_record(&dir.join(FILE), self, Durability::Atomic)?)
    }

    /// Docker's word for the mode.
    #[must_use]
    pub fn mode_text(&self) -> String {
        match &self.mode {
            NetworkMode::None | NetworkMode::User(None) => "none".to_owned(),
            NetworkMode::User(Some(helper)) => helper.name().to_owned(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::Container(id) => format!("container:{id}"),
            NetworkMode::Joined => self
                .endpoints
                .first()
                .map_or_else(|| "none".to_owned(), |endpoint| endpoint.name.clone()),
        }
    }
}

fn refused(text: &str) -> EngineError {
    EngineError::Unsupported(text.to_owned())
}

impl Engine {
    /// The networks of this engine.
    #[must_use]
    pub fn networks(&self) -> Networks {
        Networks::new(self.layout().clone())
    }

    /// What a running container has of the network; nothing when it does not run or has none.
    #[must_use]
    pub fn network_state(&self, container: &Container) -> NetworkState {
        let path = self.layout().container_run(&container.config.id);
        if !container.is_running() {
            return NetworkState::default();
        }
        read_record(&path.join(network::STATE_FILE)).unwrap_or_default()
    }

    /// The network of a container as it was asked for.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn container_network(
        &self,
        container: &Container,
    ) -> Result<ContainerNetwork, EngineError> {
        ContainerNetwork::read(&self.layout().container(&container.config.id))
    }

    /// Settles what was asked for: networks by id, ports to publish.
    pub(crate) fn settle_network(
        &self,
        network: &Network,
        options: &NetworkOptions,
        exposed: &[String],
        hostname: &str,
        warnings: &mut Vec<String>,
    ) -> Result<ContainerNetwork, EngineError> {
        let (mode, endpoints) = match network {
            Network::None => (NetworkMode::None, Vec::new()),
            Network::Default => self.default_network(options, warnings)?,
            Network::Joined(joins) if self.is_in_user_namespace() => {
                (user_network(joins)?, Vec::new())
            }
            Network::Host => (NetworkMode::Host, Vec::new()),
            Network::Container(reference) => {
                let other = self.container(reference)?;
                (NetworkMode::Container(other.config.id), Vec::new())
            }
            Network::Joined(joins) => (NetworkMode::Joined, self.endpoints(joins)?),
        };
        let mut all: Vec<String> = exposed.to_vec();
        all.extend(options.exposed.iter().cloned());
        let mut ports = options.ports.clone();
        if options.publish_all {
            for text in &all {
                let range = PortRange::parse(text)
                    .map_err(|why| refused(&format!("cannot expose port `{text}`: {why}")))?;
                let new = range.anywhere().filter(|port| {
                    let same = |other: &PortRequest| {
                        other.container_port == port.container_port
                            && other.transport == port.transport
                    };
                    !options.ports.iter().any(same)
                });
                ports.extend(new);
            }
        }
        let network = ContainerNetwork {
            version: VERSION,
            mode,
            endpoints,
            ports,
            exposed: all,
            publish: options.publish,
            publish_addresses: options.publish_addresses.clone(),
            hostname: hostname.to_owned(),
            domainname: options.domainname.clone(),
            extra_hosts: options.extra_hosts.clone(),
            dns: options.dns.clone(),
        };
        check(&network)?;
        Ok(network)
    }

    /// The default network; none, with a warning, where this host cannot have it and nothing is to
    /// be published.
    fn default_network(
        &self,
        options: &NetworkOptions,
        warnings: &mut Vec<String>,
    ) -> Result<(NetworkMode, Vec<EndpointPlan>), EngineError> {
        let published = options.publish_all || !options.ports.is_empty();
        let mut none = |why: &str| {
            warnings.push(format!(
                "the container has no network: {why} (`--network none` asks for that)"
            ));
            (NetworkMode::None, Vec::new())
        };
        if self.is_in_user_namespace() {
            return Ok(match Helper::choose() {
                Ok(helper) => (NetworkMode::User(Some(helper)), Vec::new()),
                Err(_) if published => (NetworkMode::User(None), Vec::new()),
                Err(why) => none(&why),
            });
        }
        let join = Join {
            network: DEFAULT_NETWORK.to_owned(),
            ..Join::default()
        };
        match self.endpoints(std::slice::from_ref(&join)) {
            Ok(endpoints) => Ok((NetworkMode::Joined, endpoints)),
            Err(EngineError::Network(error @ NetworkError::Missing { .. })) if !published => {
                Ok(none(&error.line()))
            }
            Err(error) => Err(error),
        }
    }

    /// The networks, for somebody who makes or changes one.
    ///
    /// # Errors
    /// When the user is an ordinary one, who cannot.
    pub fn networks_to_change(&self) -> Result<Networks, EngineError> {
        if self.is_in_user_namespace() {
            return Err(refused(
                "cannot make or change networks: an ordinary user has no rights on the host's links",
            ));
        }
        Ok(self.networks())
    }

    fn endpoints(&self, joins: &[Join]) -> Result<Vec<EndpointPlan>, EngineError> {
        let mut endpoints: Vec<EndpointPlan> = Vec::with_capacity(joins.len());
        for join in joins {
            let endpoint = self.endpoint(join)?;
            if endpoints
                .iter()
                .any(|other| other.network == endpoint.network)
            {
                let text = format!("cannot use network `{}` twice", endpoint.name);
                return Err(refused(&text));
            }
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    /// An endpoint of what was asked for.
    pub(crate) fn endpoint(&self, join: &Join) -> Result<EndpointPlan, EngineError> {
        if self.is_in_user_namespace() {
            return Err(EngineError::Network(NetworkError::OrdinaryUser {
                network: join.network.clone(),
            }));
        }
        let config = self.networks().find(&join.network)?;
        if matches!(config.driver, Driver::Host | Driver::Null) {
            return Err(refused(&format!(
                "cannot put a container on network `{}` beside others",
                config.name
            )));
        }
        if !join.aliases.is_empty() && config.name == DEFAULT_NETWORK {
            return Err(refused(
                "cannot use --network-alias on network `bridge`: names are known on networks that you create",
            ));
        }
        Ok(EndpointPlan {
            aliases: join.aliases.clone(),
            ipv4: join.ipv4.map(IpAddr::from),
            ipv6: join.ipv6.map(IpAddr::from),
            mac: join.mac,
            link_local: join.link_local.clone(),
            gateway_priority: join.gateway_priority,
            link: join.link.clone(),
            ..EndpointPlan::on(&config.id, &config.name)
        })
    }

    /// What the monitor is told; nothing without networks of its own.
    pub(crate) fn network_plan(
        &self,
        id: &str,
        name: &str,
        network: &ContainerNetwork,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let user = match network.mode {
            NetworkMode::User(helper) => Some(UserWay { helper }),
            NetworkMode::Joined if !network.endpoints.is_empty() => None,
            _ => return Ok(None),
        };
        let layout = self.layout();
        let plan = NetworkPlan {
            root: layout.root().to_owned(),
            run: layout.run().to_owned(),
            container: id.to_owned(),
            name: name.to_owned(),
            hostname: network.hostname.clone(),
            domainname: network.domainname.clone(),
            endpoints: network.endpoints.clone(),
            ports: network.ports.clone(),
            publish: network.publish,
            publish_addresses: network.publish_addresses.clone(),
            extra_hosts: network.extra_hosts.clone(),
            dns: network.dns.clone(),
            files: layout.container(id),
            user,
        };
        Ok(Some(plan.encode()?))
    }

    /// The namespace file of the container whose network is shared.
    pub(crate) fn shared_namespace(&self, id: &str) -> Result<String, EngineError> {
        let other = self.container(id)?;
        match other.state.pid.filter(|_| other.is_running()) {
            Some(pid) => Ok(format!("/proc/{pid}/ns/net")),
            None => Err(EngineError::NotRunning(other.config.name)),
        }
    }
}

/// The network that an ordinary user has named.
fn user_network(joins: &[Join]) -> Result<NetworkMode, EngineError> {
    let Some(join) = joins.first() else {
        return Ok(NetworkMode::None);
    };
    let Some(helper) = Helper::parse(&join.network) else {
        return Err(EngineError::Network(NetworkError::OrdinaryUser {
            network: join.network.clone(),
        }));
    };
    let name = helper.name();
    let bare = Join {
        network: join.network.clone(),
        ..Join::default()
    };
    if joins.len() != 1 || *join != bare {
        return Err(refused(&format!(
            "cannot use network `{name}`: it takes no address, no alias and no second network"
        )));
    }
    helper
        .check()
        .map_err(|why| refused(&format!("cannot use network `{name}`: {why}")))?;
    Ok(NetworkMode::User(Some(helper)))
}

/// Refuses what a mode cannot do.
fn check(network: &ContainerNetwork) -> Result<(), EngineError> {
    let publishes = matches!(network.mode, NetworkMode::Joined | NetworkMode::User(_));
    if !publishes && !network.ports.is_empty() {
        return Err(refused(&format!(
            "cannot publish ports on network `{}`: they are published on networks of containers",
            network.mode_text()
        )));
    }
    if let NetworkMode::Container(_) = network.mode {
        let dns = &network.dns;
        let own = !network.extra_hosts.is_empty()
            || network.domainname.is_some()
            || *dns != DnsOptions::default();
        if own {
            return Err(refused(
                "cannot set --add-host, --dns or --domainname: the container shares another one's network and its files",
            ));
        }
    }
    Ok(())
}

/// The addresses of every host: where ports are published that name none.
pub(crate) fn every_address() -> Vec<IpAddr> {
    vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
}

/// `hosts` and `resolv.conf` as they are before the container is on a network.
pub(crate) fn first_files(network: &ContainerNetwork) -> (String, String) {
    let dns = &network.dns;
    let host = || network::Resolv::of_host(false);
    let own = match &network.domainname {
        Some(domain) => format!("{}.{domain} {}", network.hostname, network.hostname),
        None => network.hostname.clone(),
    };
    let extra = &network.extra_hosts;
    match network.mode {
        NetworkMode::Host => {
            let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            for (name, target) in extra {
                let address = match target {
                    HostTarget::Address(address) => *address,
                    HostTarget::Gateway => Ipv4Addr::LOCALHOST.into(),
                };
                hosts.push_str(&format!("{address}\t{name}\n"));
            }
            let resolv = if *dns == DnsOptions::default() {
                std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
            } else {
                network::resolv_conf(host(), dns, network::Resolver::Shared)
            };
            (hosts, resolv)
        }
        _ => {
            let address = (network.mode == NetworkMode::None).then_some(Ipv4Addr::LOCALHOST.into());
            let hosts = network::hosts_text(&own, address.into_iter(), extra, None);
            (
                hosts,
                network::resolv_conf(host(), dns, network::Resolver::Shared),
            )
        }
    }
}

impl Engine {
    /// The ids of the networks that any container, running or not, is on.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn networks_in_use(&self) -> Result<BTreeSet<String>, EngineError> {
        let mut used = BTreeSet::new();
        for container in self.containers()? {
            // One without a record is being removed.
            if let Ok(network) = self.container_network(&container) {
                used.extend(
                    network
                        .endpoints
                        .into_iter()
                        .map(|endpoint| endpoint.network),
                );
            }
        }
        Ok(used)
    }

    /// Puts a container on a further network; at once when it runs.
    ///
    /// # Errors
    /// When it is on it already, shares another network, or its monitor cannot do it.
    pub fn connect_network(&self, container: &Container, join: &Join) -> Result<(), EngineError> {
        let name = &container.config.name;
        let mut network = self.container_network(container)?;
        let endpoint = self.endpoint(join)?;
        match network.mode {
            NetworkMode::Joined | NetworkMode::None => {}
            _ => {
                return Err(refused(&format!(
                    "cannot put container `{name}` on network `{}`: it has the network of {}",
                    endpoint.name,
                    network.mode_text()
                )));
            }
        }
        if network
            .endpoints
            .iter()
            .any(|other| other.network == endpoint.network)
        {
            return Err(EngineError::Network(NetworkError::AlreadyOn {
                container: name.clone(),
                network: endpoint.name,
            }));
        }
        if container.is_running() {
            self.connect(container)?
                .ask(&Request::JoinNetwork(endpoint.encode()?))?;
        }
        let (id, name) = (endpoint.network.clone(), endpoint.name.clone());
        network.mode = NetworkMode::Joined;
        network.endpoints.push(endpoint);
        network.write(&self.layout().container(&container.config.id))?;
        self.record_network_event("connect", &id, &name, container);
        Ok(())
    }

    fn record_network_event(&self, action: &str, id: &str, name: &str, container: &Container) {
        let attributes = [("container", container.config.id.as_str()), ("name", name)];
        self.record_event("network", action, id, &attributes);
    }

    /// Takes a container off a network; at once when it runs.
    ///
    /// # Errors
    /// When it is not on it, or its monitor cannot do it.
    pub fn disconnect_network(
        &self,
        container: &Container,
        reference: &str,
    ) -> Result<(), EngineError> {
        let mut network = self.container_network(container)?;
        let id = self.networks().find(reference)?.id;
        let before = network.endpoints.len();
        network.endpoints.retain(|endpoint| endpoint.network != id);
        if network.endpoints.len() == before {
            return Err(EngineError::Network(NetworkError::NotOn {
                container: container.config.name.clone(),
                network: reference.to_owned(),
            }));
        }
        if container.is_running() {
            self.connect(container)?
                .ask(&Request::LeaveNetwork(id.clone()))?;
        }
        network.write(&self.layout().container(&container.config.id))?;
        self.record_network_event("disconnect", &id, reference, container);
        Ok(())
    }
}
