//! pasta: packets of the container's namespace on sockets of the host. Once it is ready it leaves
//! the foreground, so its parent's end is the sign.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use sys::durable::remove_tree;

use super::helper::{self, Helper, Running};
use super::{ADDRESS, GATEWAY, LINK, PREFIX, RESOLVER};
use crate::NetworkError;
use crate::ports::{Mapping, Transport};

const PASTA: Helper = Helper::Pasta;

/// Where it writes its number.
const PID_FILE: &str = "pasta.pid";

/// Builds from before this day may be one that never acknowledges what a server says first
/// (Debian 12 has one, and it does not know its own version).
const GOOD_FORWARDS_SINCE: u32 = 20_240_101;

/// Whether what it forwards to the container can be relied on: a client that waits for the server's
/// first word gets it.
pub(super) fn forwards_well() -> bool {
    let output = PASTA.command().map(|mut command| {
        command
            .arg("--version")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .output()
    });
    let Ok(Ok(output)) = output else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    built(&text).is_some_and(|day| day >= GOOD_FORWARDS_SINCE)
}

/// The day in a version: `pasta 2024_02_20.1e6f92b` or `pasta 0.0~git20240220.1e6f92b-1`.
fn built(version: &str) -> Option<u32> {
    let line = version.lines().next()?.replace('_', "");
    let mut numbers = line.split(|character: char| !character.is_ascii_digit());
    numbers
        .find(|number| number.len() == 8)
        .and_then(|number| number.parse().ok())
}

/// Starts it for a container; `files` is a directory for its own files. It drops the rights by which
/// the namespace of another process is opened before it opens it, so it gets the open file.
pub(super) fn start(
    files: &Path,
    netns: OwnedFd,
    mappings: &[Mapping],
) -> Result<Running, NetworkError> {
    let (pid_file, log) = (files.join(PID_FILE), files.join("pasta.log"));
    let failed = |error: std::io::Error| PASTA.failed(error.to_string());
    for file in [&pid_file, &log] {
        remove_tree(file).map_err(failed)?;
    }
    let mut command = PASTA.command()?;
    command
        .args(["--config-net", "--quiet", "--no-map-gw"])
        .args(["--ns-ifname", LINK])
        .args(["--address", &ADDRESS.to_string()])
        .args(["--netmask", &PREFIX.to_string()])
        .args(["--gateway", &GATEWAY.to_string()])
        .args(["--dns-forward", &RESOLVER.to_string()])
        // Nothing of the host's loopback link is the container's.
        .args(["--tcp-ns", "none", "--udp-ns", "none"]);
    for (option, transport) in [
        ("--tcp-ports", Transport::Tcp),
        ("--udp-ports", Transport::Udp),
    ] {
        let forwards = forwards(mappings, transport);
        if forwards.is_empty() {
            command.args([option, "none"]);
        }
        for forward in forwards {
            command.args([option, &forward]);
        }
    }
    let mut child = command
        .arg("--log-file")
        .arg(&log)
        .arg("--pid")
        .arg(&pid_file)
        .args(["--netns", "/proc/self/fd/0"])
        .stdin(Stdio::from(netns))
        .spawn()
        .map_err(failed)?;
    let ended = helper::wait(&mut child);
    if !ended.is_some_and(|status| status.success()) {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let said = match log.is_empty() {
            true => helper::complaint(&mut child),
            false => helper::last_line(&log),
        };
        return Err(PASTA.failed(said));
    }
    let number = fs::read_to_string(&pid_file).map_err(failed)?;
    let number = number.trim().parse().unwrap_or(0);
    helper::open(number).map(Running::detached).map_err(failed)
}

/// The one that an earlier monitor of the container has started.
pub(super) fn running(files: &Path) -> Result<Running, NetworkError> {
    let gone = || PASTA.failed("it has ended");
    let number = fs::read_to_string(files.join(PID_FILE)).map_err(|_| gone())?;
    let pid = number.trim().parse().map_err(|_| gone())?;
    let found = helper::open(pid).map_err(|_| gone())?;
    // The number may be another process's by now. Builds for newer processors have longer names.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.starts_with(PASTA.name()) {
        Ok(Running::detached(found))
    } else {
        Err(gone())
    }
}

/// What it is told to forward: `[ADDRESS/]PORTS[:PORTS]`, neighbours as one range.
fn forwards(mappings: &[Mapping], transport: Transport) -> Vec<String> {
    let mut ranges: Vec<(IpAddr, u16, u16, u16)> = Vec::new();
    let of = |mapping: &&Mapping| mapping.transport == transport && !is_second(mapping, mappings);
    for mapping in mappings.iter().filter(of) {
        let (host, port, to) = (
            mapping.host.ip(),
            mapping.host.port(),
            mapping.container.port(),
        );
        match ranges.last_mut() {
            Some((address, first, last, first_to))
                if *address == host
                    && last.checked_add(1) == Some(port)
                    && first_to.checked_add(port - *first) == Some(to) =>
            {
                *last = port;
            }
            _ => ranges.push((host, port, port, to)),
        }
    }
    let text = |(address, first, last, to): (IpAddr, u16, u16, u16)| {
        let ports = if first == last {
            format!("{first}:{to}")
        } else {
            format!("{first}-{last}:{to}-{}", to.saturating_add(last - first))
        };
        match address {
            address if address.is_unspecified() && address.is_ipv4() => ports,
            address => format!("{address}/{ports}"),
        }
    };
    ranges.into_iter().map(text).collect()
}

/// Every address of IPv6 beside every address of IPv4: one word for both.
fn is_second(mapping: &Mapping, all: &[Mapping]) -> bool {
    let every = IpAddr::from([0, 0, 0, 0]);
    let first = SocketAddr::new(every, mapping.host.port());
    let is_every = mapping.host.is_ipv6() && mapping.host.ip().is_unspecified();
    is_every
        && all
            .iter()
            .any(|other| other.host == first && other.transport == mapping.transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, container: u16) -> Mapping {
        Mapping {
            transport: Transport::Tcp,
            host: host.parse().unwrap(),
            container: SocketAddr::new(ADDRESS.into(), container),
            proxied: true,
        }
    }

    #[test]
    fn day_of_a_build_is_in_its_version() {
        for (version, day) in [
            ("pasta 2024_02_20.1e6f92b\nCopyright", Some(20_240_220)),
            ("pasta 0.0~git20230627.289301b-1", Some(20_230_627)),
            ("pasta unknown version\nCopyright 20240101", None),
            ("", None),
        ] {
            assert_eq!(built(version), day, "{version}");
        }
    }

    #[test]
    fn neighbours_are_one_range_and_both_families_one_word() {
        let mappings = [
            mapping("0.0.0.0:8080", 80),
            mapping("[::]:8080", 80),
            mapping("0.0.0.0:8081", 81),
            mapping("127.0.0.1:9000", 90),
            mapping("127.0.0.1:9001", 95),
        ];
        assert_eq!(
            forwards(&mappings, Transport::Tcp),
            ["8080-8081:80-81", "127.0.0.1/9000:90", "127.0.0.1/9001:95"]
        );
        assert!(forwards(&mappings, Transport::Udp).is_empty());
    }
}
