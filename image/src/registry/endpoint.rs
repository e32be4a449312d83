//! Where a registry's API is, and in which scheme.

use std::net::IpAddr;

/// Where the API of `docker.io` is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Whether a registry may be spoken to without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// By TLS only.
    Tls,
    /// Also in plain HTTP: it is on this machine, or the user said so.
    PlainAllowed,
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

/// The authority of the registry's API.
pub(super) fn api_host(registry: &str) -> &str {
    match registry {
        "docker.io" => DOCKER_HUB_API,
        other => other,
    }
}

fn host_of(registry: &str) -> &str {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    registry.split(':').next().unwrap_or(registry)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
