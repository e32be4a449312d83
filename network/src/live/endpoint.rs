//! One network of a running container: addresses leased, the link made and given its addresses.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sys::durable::remove_tree;
use sys::netlink::address::add_address;
use sys::netlink::{Batch, link};

use super::joined::{Attached, Joined};
use crate::bridge::{self, Pair};
use crate::lease::{Endpoint, Leases, Wanted};
use crate::plan::EndpointPlan;
use crate::record::{Driver, NetworkConfig};
use crate::store::Networks;
use crate::{NetworkError, child};

/// How long a monitor takes at most to give back the addresses of a container that has ended.
const RETURN_TIME: Duration = Duration::from_millis(200);

impl Joined {
    /// Puts the container on one network.
    pub(super) fn attach(&mut self, plan: EndpointPlan) -> Result<(), NetworkError> {
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
        let number = self.free_number();
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
    fn free_number(&self) -> usize {
        let taken = |number: &usize| {
            let end = number.to_string();
            self.attached.iter().any(|attached| {
                let link = &attached.endpoint.link;
                link.trim_end_matches(|c: char| c.is_ascii_digit()).len() + end.len() == link.len()
                    && link.ends_with(&end)
            })
        };
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

    /// Removes one link, and gives its addresses back.
    pub(super) fn detach(&self, attached: &Attached) {
        // With one end the other goes too, and with it its addresses and routes.
        drop(bridge::delete_link(&self.inside, &attached.endpoint.link));
        drop(remove_tree(&attached.lease));
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
