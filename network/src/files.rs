//! `/etc/hosts` and `/etc/resolv.conf` of a container, as Docker writes them. They are mounted one
//! by one, so they are rewritten in place.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::NetworkError;
use crate::lease::Endpoint;
use crate::plan::{DnsOptions, HostTarget, NetworkPlan};

/// What every container's `hosts` begins with.
const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Where the resolver inside a container listens.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Where the host's resolvers are.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The same without systemd-resolved's own stub.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// No file of resolvers is longer.
const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// What a `resolv.conf` says (resolv.conf(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolv {
    /// Resolvers.
    pub servers: Vec<IpAddr>,
    /// Domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl Resolv {
    /// Reads the lines that mean something; a link after `%` is left out of an address.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.split('%').next());
                    found
                        .servers
                        .extend(address.and_then(|a| a.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    /// The host's resolvers now. Where the only one is systemd-resolved's stub, those behind it when
    /// `behind_stub` is set: a container's own loopback is not the host's.
    #[must_use]
    pub fn of_host(behind_stub: bool) -> Self {
        let own = Self::parse(&bounded(Path::new(RESOLV_CONF)));
        let stub = own.servers.iter().all(IpAddr::is_loopback);
        if behind_stub && stub {
            let behind = Self::parse(&bounded(Path::new(RESOLVED_CONF)));
            if !behind.servers.is_empty() {
                return Self {
                    servers: behind.servers,
                    ..own
                };
            }
        }
        own
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            line(&mut text, "nameserver", &server.to_string());
        }
        if !self.search.is_empty() {
            line(&mut text, "search", &self.search.join(" "));
        }
        if !self.options.is_empty() {
            line(&mut text, "options", &self.options.join(" "));
        }
        text
    }

    /// With what the user asked for.
    fn with(mut self, dns: &DnsOptions) -> Self {
        if !dns.servers.is_empty() {
            self.servers.clone_from(&dns.servers);
        }
        if !dns.search.is_empty() {
            let none = dns.search == ["."];
            self.search = if none { Vec::new() } else { dns.search.clone() };
        }
        if !dns.options.is_empty() {
            self.options.clone_from(&dns.options);
        }
        self
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _never = writeln!(text, "{key} {value}");
}

fn bounded(path: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map(|file| file.take(MAX_RESOLV_CONF));
    // What cannot be read names no resolver.
    drop(file.and_then(|mut file| file.read_to_end(&mut bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Who answers a container's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// The host's resolvers, asked by the container itself.
    Host,
    /// The host's resolvers, which the container reaches as the host does.
    Shared,
    /// The responder inside the container.
    Responder,
}

/// `resolv.conf` of a container.
#[must_use]
pub fn resolv_conf(host: Resolv, dns: &DnsOptions, resolver: Resolver) -> String {
    let mut resolv = host.with(dns);
    match resolver {
        Resolver::Host => {
            resolv.servers.retain(|server| !server.is_loopback());
        }
        Resolver::Shared => {}
        Resolver::Responder => {
            resolv.servers = vec![IpAddr::V4(RESOLVER)];
            // Names of containers have no dots: they are asked as they are, before any domain.
            if !resolv
                .options
                .iter()
                .any(|option| option.starts_with("ndots:"))
            {
                resolv.options.push("ndots:0".to_owned());
            }
        }
    }
    resolv.text()
}

/// `hosts` of a container with these endpoints.
pub(crate) fn hosts(plan: &NetworkPlan, endpoints: &[&Endpoint]) -> String {
    let gateway = endpoints
        .iter()
        .find_map(|endpoint| endpoint.gateway4.or(endpoint.gateway6));
    let own = match &plan.domainname {
        Some(domain) => format!("{}.{domain} {}", plan.hostname, plan.hostname),
        None => plan.hostname.clone(),
    };
    let addresses = endpoints
        .iter()
        .flat_map(|endpoint| [endpoint.ipv4, endpoint.ipv6])
        .flatten()
        .map(|(address, _)| address);
    hosts_text(&own, addresses, &plan.extra_hosts, gateway)
}

/// `hosts` of a container.
#[must_use]
pub fn hosts_text(
    own_names: &str,
    addresses: impl Iterator<Item = IpAddr>,
    extra: &[(String, HostTarget)],
    gateway: Option<IpAddr>,
) -> String {
    let mut text = HOSTS.to_owned();
    for (name, target) in extra {
        let address = match target {
            HostTarget::Address(address) => Some(*address),
            HostTarget::Gateway => gateway,
        };
        if let Some(address) = address {
            // Writing to a string cannot fail.
            let _never = writeln!(text, "{address}\t{name}");
        }
    }
    for address in addresses {
        let _never = writeln!(text, "{address}\t{own_names}");
    }
    text
}

/// Gives a mounted file new content.
pub(crate) fn rewrite(path: &Path, text: &str) -> Result<(), NetworkError> {
    let written = fs::File::options()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(NetworkError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2 # dns\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0 ndots:3\n";

    #[test]
    fn resolv_conf_is_parsed() {
        let resolv = Resolv::parse(HOST);
        assert_eq!(resolv.servers.len(), 3);
        assert_eq!(resolv.search, ["a.example", "b.example"]);
        assert_eq!(resolv.options, ["edns0", "ndots:3"]);
    }

    #[test]
    fn loopback_resolver_of_the_host_is_left_out() {
        let text = resolv_conf(Resolv::parse(HOST), &DnsOptions::default(), Resolver::Host);
        assert_eq!(
            text,
            "nameserver 10.0.0.2\nnameserver fe80::1\nsearch a.example b.example\noptions edns0 ndots:3\n"
        );
    }

    #[test]
    fn responder_takes_the_place_of_all_resolvers() {
        let dns = DnsOptions {
            servers: vec!["9.9.9.9".parse().unwrap()],
            search: vec![".".to_owned()],
            options: Vec::new(),
        };
        let mut host = Resolv::parse(HOST);
        host.options = Vec::new();
        assert_eq!(
            resolv_conf(host, &dns, Resolver::Responder),
            "nameserver 127.0.0.11\noptions ndots:0\n"
        );
    }

    #[test]
    fn hosts_have_extra_names_and_own_addresses() {
        let extra = [("host.internal".to_owned(), HostTarget::Gateway)];
        let own: IpAddr = "172.30.0.2".parse().unwrap();
        let text = hosts_text("web", [own].into_iter(), &extra, "172.30.0.1".parse().ok());
        assert!(text.contains("\n172.30.0.1\thost.internal\n"));
        assert!(text.ends_with("172.30.0.2\tweb\n"));
    }
}
