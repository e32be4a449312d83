//! Ports as users write them: `[ADDRESS:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]`.

use std::net::IpAddr;

use super::{PortRequest, Transport};

/// A range of ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// The protocol.
    pub transport: Transport,
}

impl PortRange {
    /// Reads `PORT[-PORT][/PROTOCOL]`; the protocol is TCP when none is named. Gives what is wrong
    /// otherwise.
    ///
    /// # Errors
    /// A clause for a message, such as "the port is 1 to 65535".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let transport = protocol.parse();
        let transport = transport.map_err(|()| "the protocol is tcp, udp or sctp")?;
        let (first, last) = range(ports)?;
        Ok(Self {
            first,
            last,
            transport,
        })
    }

    /// Each port of the range, published on any port of the host.
    pub fn anywhere(self) -> impl Iterator<Item = PortRequest> {
        (self.first..=self.last).map(move |container_port| PortRequest {
            host: None,
            host_ports: None,
            container_port,
            transport: self.transport,
        })
    }
}

fn port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number != 0);
    number.ok_or("a port is a number from 1 to 65535")
}

fn range(text: &str) -> Result<(u16, u16), &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err("a range begins with its lower port");
    }
    Ok((first, last))
}

impl PortRequest {
    /// Reads the argument of `--publish`. Gives what is wrong otherwise.
    ///
    /// # Errors
    /// A clause for a message.
    pub fn parse(text: &str) -> Result<Vec<Self>, &'static str> {
        let (host, rest) = split_address(text)?;
        let (host_text, container) = rest.rsplit_once(':').unwrap_or(("", rest));
        let container = PortRange::parse(container)?;
        let count = container.last - container.first;
        let host_ports = match host_text {
            "" => None,
            text => Some(range(text)?),
        };
        let requests = (0..=count).zip(container.first..=container.last);
        match host_ports {
            // One port of the container takes the first that is free of a range of the host.
            Some((first, last)) if count > 0 && last - first != count => {
                Err("both ranges must have the same length")
            }
            _ => Ok(requests
                .map(|(at, container_port)| Self {
                    host,
                    host_ports: host_ports.map(|(first, last)| {
                        if count == 0 {
                            (first, last)
                        } else {
                            (first + at, first + at)
                        }
                    }),
                    container_port,
                    transport: container.transport,
                })
                .collect()),
        }
    }
}

/// The address before the ports, in brackets when it is of IPv6.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), &'static str> {
    const WRONG: &str = "the address before the ports is none";
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once("]:").ok_or(WRONG)?;
        return Ok((Some(address.parse().map_err(|_| WRONG)?), rest));
    }
    let mut parts = text.rsplitn(3, ':');
    let (Some(_), Some(_), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok((None, text));
    };
    let rest = text.get(address.len() + 1..).unwrap_or_default();
    if address.is_empty() {
        return Ok((None, rest));
    }
    Ok((Some(address.parse().map_err(|_| WRONG)?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> PortRequest {
        let all = PortRequest::parse(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all[0]
    }

    #[test]
    fn publish_forms_are_dockers() {
        assert_eq!(one("80").host_ports, None);
        assert_eq!(one("8080:80").host_ports, Some((8080, 8080)));
        assert_eq!(one("127.0.0.1:8080:80").host, "127.0.0.1".parse().ok());
        assert_eq!(one("127.0.0.1::80").host_ports, None);
        assert_eq!(one("[::1]:8080:80").host, "::1".parse().ok());
        assert_eq!(one("53:53/udp").transport, Transport::Udp);
        assert_eq!(one("8000-8010:80").host_ports, Some((8000, 8010)));
        let range = PortRequest::parse("9000-9002:80-82/sctp").unwrap();
        assert_eq!(range[2].host_ports, Some((9002, 9002)));
        assert_eq!((range.len(), range[2].container_port), (3, 82));
    }

    #[test]
    fn malformed_ports_are_refused() {
        for bad in [
            "",
            "x",
            "0",
            "65536",
            "80:",
            "1:2:3:4",
            "80/icmp",
            "9-8:80",
            "1-3:80-81",
            "a:80:80",
            "[::1:80:80",
            "-1:80",
            "+80",
        ] {
            assert!(PortRequest::parse(bad).is_err(), "{bad}");
        }
    }
}
