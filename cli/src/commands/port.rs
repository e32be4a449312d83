//! `ketch port`, and how published ports are shown.

use std::fmt::Write as _;
use std::net::SocketAddr;

use clap::Args;
use network::{NetworkState, PortRange, Published};

use super::Invocation;
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 4] = [
    ("ContainerPort", "CONTAINER PORT"),
    ("Protocol", "PROTOCOL"),
    ("HostIp", "HOST IP"),
    ("HostPort", "HOST PORT"),
];

/// Options of `port`.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Print each with a template such as {{.HostPort}}, or json
    #[arg(long)]
    format: Option<String>,
    /// Container, by name or id
    container: String,
    /// Port of the container: PORT[/tcp|udp|sctp] (default: all)
    port: Option<String>,
}

/// Shows where ports are published.
pub(crate) fn port(context: &Invocation, args: &PortArgs) -> anyhow::Result<u8> {
    let format = args.format.as_deref();
    let format = format.map(|text| Format::parse(Some(text))).transpose()?;
    let engine = context.engine()?;
    let container = engine.container(&args.container)?;
    let mut ports = engine.network_state(&container).ports;
    ports.sort_unstable();
    let Some(text) = &args.port else {
        if let Some(format) = &format {
            return formatted(format, ports.iter());
        }
        for port in &ports {
            let (inside, protocol) = (port.container_port, port.transport);
            render::print(&format!("{inside}/{protocol} -> {}", port.host))?;
        }
        return Ok(0);
    };
    let wanted = PortRange::parse(text)
        .map_err(|why| Usage(format!("cannot look for port `{text}`: {why}")))?;
    let is_wanted = |port: &&Published| {
        port.container_port == wanted.first && port.transport == wanted.transport
    };
    let mut found = ports.iter().filter(is_wanted).peekable();
    if found.peek().is_none() {
        let text = format!("no public port `{text}` of container `{}`", args.container);
        return Err(anyhow::anyhow!(text));
    }
    if let Some(format) = &format {
        return formatted(format, found);
    }
    for port in found {
        render::print(&port.host.to_string())?;
    }
    Ok(0)
}

fn formatted<'a>(
    format: &Format,
    ports: impl Iterator<Item = &'a Published>,
) -> anyhow::Result<u8> {
    let row = |port: &Published| {
        Row::new([
            ("ContainerPort", port.container_port.to_string()),
            ("Protocol", port.transport.to_string()),
            ("HostIp", port.host.ip().to_string()),
            ("HostPort", port.host.port().to_string()),
        ])
    };
    let rows: Vec<Row> = ports.map(row).collect();
    let shown = FIELDS.map(|(field, _)| field);
    format.print(&FIELDS, &shown, &rows)?;
    Ok(0)
}

/// The column of `ps`: published ports, neighbours as one range, then the exposed ones.
pub(crate) fn column(state: &NetworkState, exposed: &[String]) -> String {
    let mut ports = state.ports.clone();
    // By address first, so that neighbours stand beside each other.
    ports.sort_unstable_by_key(|port| {
        let host = port.host;
        (
            port.transport,
            !host.is_ipv4(),
            host.ip(),
            host.port(),
            port.container_port,
        )
    });
    let mut groups: Vec<(Published, u16)> = Vec::new();
    for port in ports {
        match groups.last_mut() {
            Some((first, count)) if continues(first, *count, &port) => *count += 1,
            _ => groups.push((port, 1)),
        }
    }
    groups.sort_by_key(|(first, _)| (first.container_port, first.transport, !first.host.is_ipv4()));
    let mut parts: Vec<String> = groups
        .iter()
        .map(|(first, count)| text(first, *count))
        .collect();
    for port in exposed {
        let published = PortRange::parse(port).is_ok_and(|range| {
            state.ports.iter().any(|published| {
                published.container_port == range.first && published.transport == range.transport
            })
        });
        if !published {
            let protocol = if port.contains('/') { "" } else { "/tcp" };
            parts.push(format!("{port}{protocol}"));
        }
    }
    parts.join(", ")
}

fn continues(first: &Published, count: u16, port: &Published) -> bool {
    port.transport == first.transport
        && port.host.ip() == first.host.ip()
        && Some(port.host.port()) == first.host.port().checked_add(count)
        && Some(port.container_port) == first.container_port.checked_add(count)
}

fn text(first: &Published, count: u16) -> String {
    let last = count.saturating_sub(1);
    let mut text = SocketAddr::to_string(&first.host);
    // Writing to a string cannot fail.
    if last > 0 {
        let _never = write!(text, "-{}", first.host.port().saturating_add(last));
    }
    let _never = write!(text, "->{}", first.container_port);
    if last > 0 {
        let _never = write!(text, "-{}", first.container_port.saturating_add(last));
    }
    let _never = write!(text, "/{}", first.transport);
    text
}

/// `NetworkSettings.Ports` of `inspect`: each port with where it is published, `null` when nowhere.
pub(crate) fn json(state: &NetworkState, exposed: &[String]) -> serde_json::Value {
    let mut ports = serde_json::Map::new();
    for text in exposed {
        if let Ok(range) = PortRange::parse(text) {
            for port in range.first..=range.last {
                ports.insert(
                    format!("{port}/{}", range.transport),
                    serde_json::Value::Null,
                );
            }
        }
    }
    for port in &state.ports {
        let key = format!("{}/{}", port.container_port, port.transport);
        let binding = serde_json::json!({
            "HostIp": port.host.ip().to_string(),
            "HostPort": port.host.port().to_string(),
        });
        match ports.get_mut(&key) {
            Some(serde_json::Value::Array(list)) => list.push(binding),
            _ => {
                ports.insert(key, serde_json::Value::Array(vec![binding]));
            }
        }
    }
    ports.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::Transport;

    fn published(host: &str, container_port: u16) -> Published {
        Published {
            container_port,
            transport: Transport::Tcp,
            host: host.parse().unwrap(),
        }
    }

    #[test]
    fn neighbouring_ports_are_one_range() {
        let state = NetworkState {
            ports: vec![
                published("0.0.0.0:8001", 81),
                published("0.0.0.0:8000", 80),
                published("[::]:8000", 80),
                published("127.0.0.1:9000", 443),
            ],
            ..NetworkState::default()
        };
        assert_eq!(
            column(&state, &["80/tcp".to_owned(), "53/udp".to_owned()]),
            "0.0.0.0:8000-8001->80-81/tcp, [::]:8000->80/tcp, 127.0.0.1:9000->443/tcp, 53/udp"
        );
    }

    #[test]
    fn exposed_port_without_a_publication_is_null() {
        let state = NetworkState {
            ports: vec![published("0.0.0.0:8000", 80)],
            ..NetworkState::default()
        };
        let json = json(&state, &["80".to_owned(), "53/udp".to_owned()]);
        assert_eq!(json["80/tcp"][0]["HostPort"], "8000");
        assert!(json["53/udp"].is_null());
    }
}
