//! Where a registry's API is, in which scheme, and which mirrors stand before it.

use std::net::IpAddr;

use super::error::RegistryError;
use super::options::RegistryOptions;
use crate::reference::Reference;

/// Where the API of `docker.io` is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Whether a registry may be spoken to without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// By TLS only.
    Tls,
    /// Also in plain HTTP: it is on this machine, or the user said so.
    PlainAllowed,
    /// In plain HTTP only: the address says so.
    Plain,
}

impl Transport {
    /// The rule for `registry`; `insecure` lists registries, or hosts with any port.
    pub(super) fn of(registry: &str, insecure: &[String]) -> Self {
        let host = host_of(registry);
        let listed = insecure
            .iter()
            .any(|entry| entry.eq_ignore_ascii_case(registry) || entry.eq_ignore_ascii_case(host));
        if listed || is_loopback(host) {
            Self::PlainAllowed
        } else {
            Self::Tls
        }
    }
}

/// One repository at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The registry or mirror, as it is shown and as credentials are looked up.
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) transport: Transport,
}

impl Endpoint {
    /// The registry of the reference itself.
    pub(super) fn origin(reference: &Reference, options: &RegistryOptions) -> Self {
        let registry = reference.registry();
        Self {
            registry: registry.to_owned(),
            repository: reference.repository().to_owned(),
            transport: Transport::of(registry, &options.insecure),
        }
    }

    /// The mirrors in their order, then the registry itself.
    pub(super) fn all(
        reference: &Reference,
        options: &RegistryOptions,
    ) -> Result<Vec<Self>, RegistryError> {
        let mut all = Vec::new();
        for mirror in &options.mirrors {
            if mirror.registry.eq_ignore_ascii_case(reference.registry()) {
                let endpoint = mirror_of(&mirror.location, reference, options);
                all.push(endpoint.ok_or_else(|| RegistryError::InvalidMirror {
                    mirror: mirror.location.clone(),
                })?);
            }
        }
        all.push(Self::origin(reference, options));
        Ok(all)
    }

    /// The authority of the API.
    pub(super) fn api_host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" => DOCKER_HUB_API,
            other => other,
        }
    }
}

fn mirror_of(location: &str, reference: &Reference, options: &RegistryOptions) -> Option<Endpoint> {
    let (scheme, rest) = match location.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, location),
    };
    let (registry, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let transport = match scheme {
        None => Transport::of(registry, &options.insecure),
        Some("https") => Transport::Tls,
        Some("http") => Transport::Plain,
        Some(_) => return None,
    };
    let prefix = prefix.trim_matches('/');
    let repository = if prefix.is_empty() {
        reference.repository().to_owned()
    } else {
        format!("{prefix}/{}", reference.repository())
    };
    // Checks host, port and repository by the one rule that there is.
    let parsed = Reference::parse(&format!("{registry}/{repository}")).ok()?;
    (parsed.registry() == registry).then_some(Endpoint {
        registry: registry.to_owned(),
        repository,
        transport,
    })
}

pub(super) fn host_of(registry: &str) -> &str {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    registry.split(':').next().unwrap_or(registry)
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Mirror;

    #[test]
    fn transport_plain_is_for_loopback_and_listed_hosts_only() {
        let insecure = ["reg.lan".to_owned(), "other.lan:5000".to_owned()];
        let table = [
            ("docker.io", Transport::Tls),
            ("localhost", Transport::PlainAllowed),
            ("localhost:5000", Transport::PlainAllowed),
            ("127.0.0.1:5000", Transport::PlainAllowed),
            ("127.9.9.9", Transport::PlainAllowed),
            ("[::1]:5000", Transport::PlainAllowed),
            ("[fe80::1]:5000", Transport::Tls),
            ("10.0.0.1:5000", Transport::Tls),
            ("localhost.evil.io", Transport::Tls),
            ("127.0.0.1.evil.io", Transport::Tls),
            ("reg.lan", Transport::PlainAllowed),
            ("reg.lan:80", Transport::PlainAllowed),
            ("other.lan:5000", Transport::PlainAllowed),
            ("other.lan", Transport::Tls),
            ("x.reg.lan", Transport::Tls),
        ];
        for (registry, expected) in table {
            assert_eq!(Transport::of(registry, &insecure), expected, "{registry}");
        }
    }

    #[test]
    fn mirrors_come_in_order_with_their_prefix() {
        let mirror = |registry: &str, location: &str| Mirror {
            registry: registry.to_owned(),
            location: location.to_owned(),
        };
        let options = RegistryOptions {
            mirrors: vec![
                mirror("docker.io", "http://cache.lan:5000/hub"),
                mirror("quay.io", "elsewhere.lan"),
                mirror("docker.io", "second.lan/"),
            ],
            ..RegistryOptions::default()
        };
        let reference = Reference::parse("alpine").unwrap();
        let all = Endpoint::all(&reference, &options).unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|e| format!("{} {} {:?}", e.registry, e.repository, e.transport))
            .collect();
        assert_eq!(
            shown,
            [
                "cache.lan:5000 hub/library/alpine Plain",
                "second.lan library/alpine Tls",
                "docker.io library/alpine Tls",
            ]
        );
        for bad in ["ftp://x.lan", "x", "http://u:p@x.lan", "https://x.lan/A b"] {
            let options = RegistryOptions {
                mirrors: vec![mirror("docker.io", bad)],
                ..RegistryOptions::default()
            };
            assert!(Endpoint::all(&reference, &options).is_err(), "{bad}");
        }
    }
}
