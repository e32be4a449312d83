//! The options of `run` and `create` that are about the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use engine::{Join, Network, NetworkOptions};
use network::{DnsOptions, HostTarget, PortRange, PortRequest, Publish};

use crate::render::Usage;
use crate::settings::{self, Settings};

/// Network options, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// Network: a name, none, host, container:NAME, or name=NAME,alias=…,ip=…,ip6=…,mac-address=…,link-local-ip=…,gw-priority=… (can be repeated)
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name of the container on its network (can be repeated)
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// IPv4 address on its network (default: a free one)
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address on its network (default: a free one)
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Hardware address on its network (default: made from the address)
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Address that is valid on the link only (can be repeated)
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<IpAddr>,
    /// Publish ports: `[ADDRESS:][HOST[-HOST]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]` (can be repeated)
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Publish every exposed port on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Name a port that the container serves: `PORT[-PORT][/tcp|udp|sctp]` (can be repeated)
    #[arg(long, value_name = "PORTS")]
    expose: Vec<String>,
    /// Resolver in place of the host's (can be repeated)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Domain in place of the host's, `.` for none (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver option in place of the host's (can be repeated)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Line of /etc/hosts: NAME:ADDRESS, the address may be host-gateway (can be repeated)
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Domain of the container
    #[arg(long, value_name = "DOMAIN")]
    domainname: Option<String>,
}

fn wrong(option: &str, value: &str, why: &str) -> anyhow::Error {
    Usage(format!("cannot use {option} `{value}`: {why}")).into()
}

impl NetworkArgs {
    /// Which networks, as flags and settings say.
    pub(crate) fn network(&self, settings: &Settings) -> anyhow::Result<Network> {
        let default = settings.get(&settings::NETWORK);
        let names: Vec<&str> = match self.network.as_slice() {
            [] if settings.is_default(&settings::NETWORK) && self.has_no_wish() => {
                return Ok(Network::Default);
            }
            [] => vec![default],
            [name] if name == "default" && self.has_no_wish() => return Ok(Network::Default),
            given => given.iter().map(String::as_str).collect(),
        };
        let names = names.into_iter().map(|name| {
            if name == "default" {
                network::DEFAULT_NETWORK
            } else {
                name
            }
        });
        let mut joins = names.map(join).collect::<anyhow::Result<Vec<_>>>()?;
        let alone = match joins.first().map(|join| join.network.as_str()) {
            Some("none") => Some(Network::None),
            Some("host") => Some(Network::Host),
            Some(name) => name
                .strip_prefix("container:")
                .map(|other| Network::Container(other.to_owned())),
            None => None,
        };
        if let Some(network) = alone {
            if joins.len() > 1 || !self.has_no_wish() || joins[0] != bare(&joins[0].network) {
                let name = &joins[0].network;
                let why = "it takes no address, no alias and no second network";
                return Err(wrong("--network", name, why));
            }
            return Ok(network);
        }
        if let Some(first) = joins.first_mut() {
            self.apply(first)?;
        }
        Ok(Network::Joined(joins))
    }

    fn has_no_wish(&self) -> bool {
        self.network_alias.is_empty()
            && self.ip.is_none()
            && self.ip6.is_none()
            && self.mac_address.is_none()
            && self.link_local_ip.is_empty()
    }

    /// The options without a network's name are the first one's.
    fn apply(&self, join: &mut Join) -> anyhow::Result<()> {
        join.aliases.extend(self.network_alias.iter().cloned());
        join.ipv4 = self.ip.or(join.ipv4);
        join.ipv6 = self.ip6.or(join.ipv6);
        if let Some(text) = &self.mac_address {
            join.mac = Some(mac(text).ok_or_else(|| {
                wrong(
                    "--mac-address",
                    text,
                    "it is six bytes, as 02:42:ac:11:00:02",
                )
            })?);
        }
        join.link_local.extend(&self.link_local_ip);
        Ok(())
    }

    /// What does not belong to one network.
    pub(crate) fn options(&self, settings: &Settings) -> anyhow::Result<NetworkOptions> {
        let mut ports = Vec::new();
        for text in &self.publish {
            let parsed = PortRequest::parse(text);
            ports.extend(parsed.map_err(|why| wrong("--publish", text, why))?);
        }
        for text in &self.expose {
            PortRange::parse(text).map_err(|why| wrong("--expose", text, why))?;
        }
        Ok(NetworkOptions {
            ports,
            publish_all: self.publish_all,
            exposed: self.expose.clone(),
            publish: publish(settings.get(&settings::PUBLISH))?,
            publish_addresses: addresses(settings.get(&settings::PUBLISH_DEFAULT))?,
            extra_hosts: self
                .add_host
                .iter()
                .map(|text| extra_host(text))
                .collect::<anyhow::Result<_>>()?,
            dns: DnsOptions {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            domainname: self.domainname.clone(),
        })
    }
}

fn bare(network: &str) -> Join {
    Join {
        network: network.to_owned(),
        ..Join::default()
    }
}

/// One `--network`: a name, or keys with values.
pub(crate) fn join(text: &str) -> anyhow::Result<Join> {
    if !text.contains('=') {
        return Ok(bare(text));
    }
    let mut join = Join::default();
    for pair in text.split(',') {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong("--network", text, "it is KEY=VALUE,…"))?;
        let bad = |why: &str| wrong("--network", pair, why);
        match key {
            "name" => value.clone_into(&mut join.network),
            "alias" => join.aliases.push(value.to_owned()),
            "ip" => join.ipv4 = Some(value.parse().map_err(|_| bad("it is no IPv4 address"))?),
            "ip6" => join.ipv6 = Some(value.parse().map_err(|_| bad("it is no IPv6 address"))?),
            "mac-address" => {
                join.mac = Some(mac(value).ok_or_else(|| bad("it is no hardware address"))?);
            }
            "link-local-ip" => {
                let address = value.parse().map_err(|_| bad("it is no address"))?;
                join.link_local.push(address);
            }
            "gw-priority" => {
                join.gateway_priority = value.parse().map_err(|_| bad("it is a number"))?;
            }
            "driver-opt" => driver_option(&mut join, value)?,
            _ => return Err(bad("this key is not known")),
        }
    }
    if join.network.is_empty() {
        return Err(wrong("--network", text, "it names no network"));
    }
    Ok(join)
}

/// An option of an endpoint.
pub(crate) fn driver_option(join: &mut Join, text: &str) -> anyhow::Result<()> {
    match text.split_once('=') {
        Some(("com.docker.network.endpoint.ifname", name)) if (1..=15).contains(&name.len()) => {
            join.link = Some(name.to_owned());
            Ok(())
        }
        _ => Err(wrong("driver-opt", text, "this option is not known")),
    }
}

/// A hardware address: six bytes, a unicast one.
pub(crate) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let unicast = mac[0] & 1 == 0 && mac != [0; 6];
    (parts.next().is_none() && unicast).then_some(mac)
}

pub(crate) fn extra_host(text: &str) -> anyhow::Result<(String, HostTarget)> {
    let bad = |why| wrong("--add-host", text, why);
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| bad("it is NAME:ADDRESS"))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad("the name is empty or holds a space"));
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let target = match address {
        "host-gateway" => HostTarget::Gateway,
        _ => HostTarget::Address(bare.parse().map_err(|_| bad("the address is none"))?),
    };
    Ok((name.to_owned(), target))
}

pub(crate) fn publish(text: &str) -> anyhow::Result<Publish> {
    match text {
        "kernel" | "nat" => Ok(Publish::Kernel),
        "proxy" => Ok(Publish::Proxy),
        _ => Err(wrong("the setting publish", text, "it is kernel or proxy")),
    }
}

/// The addresses of both families that an address of one stands for.
pub(crate) fn addresses(text: &str) -> anyhow::Result<Vec<IpAddr>> {
    let bad = |_| wrong("the setting publish-default", text, "it is an address");
    let address: IpAddr = text.parse().map_err(bad)?;
    Ok(if address == Ipv4Addr::UNSPECIFIED {
        vec![address, Ipv6Addr::UNSPECIFIED.into()]
    } else if address == Ipv4Addr::LOCALHOST {
        vec![address, Ipv6Addr::LOCALHOST.into()]
    } else {
        vec![address]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form_of_network_is_read() {
        let join = join("name=web,alias=a,alias=b,ip=10.0.0.5,gw-priority=-1").unwrap();
        assert_eq!(join.network, "web");
        assert_eq!(join.aliases, ["a", "b"]);
        assert_eq!(
            (join.ipv4, join.gateway_priority),
            ("10.0.0.5".parse().ok(), -1)
        );
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        for bad in [
            "name=a,x=1",
            "ip=1.2.3.4",
            "name=a,ip=::1",
            "name=a,b",
            "name=a,mac-address=1",
        ] {
            assert!(join(bad).is_err(), "{bad}");
        }
        assert!(extra_host("a").is_err() && extra_host(":1.2.3.4").is_err());
        assert!(mac("01:00:00:00:00:01").is_none());
    }

    #[test]
    fn extra_host_takes_both_separators() {
        let six = extra_host("db:::1").unwrap();
        assert_eq!(six.1, HostTarget::Address("::1".parse().unwrap()));
        assert_eq!(extra_host("h=host-gateway").unwrap().1, HostTarget::Gateway);
    }
}
