//! Servers that run in a subject, for this process to talk to.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail};

use crate::subject::Idle;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes that come back, and bytes that are counted: `net serve` (`fixtures/guests/net.rs`).
    Tcp,
    /// `GET /`: `net http` for Linux, the component `http` for wasm.
    Http,
}

/// How it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// Over the subject's bridge, at an address of its own.
    Bridge,
    /// Over the host's loopback.
    Host,
}

/// A server that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    pub(crate) kind: Kind,
    pub(crate) via: Via,
    pub(crate) port: u16,
}

impl Service {
    pub(crate) fn new(kind: Kind, via: Via) -> anyhow::Result<Self> {
        let port = free_port()?;
        Ok(Self { kind, via, port })
    }

    /// Arguments of the program `net`.
    pub(crate) fn args(self) -> [String; 2] {
        let verb = match self.kind {
            Kind::Tcp => "serve",
            Kind::Http => "http",
        };
        [verb.to_owned(), self.port.to_string()]
    }

    /// The network's name on the command line of an engine.
    pub(crate) fn network(self) -> &'static str {
        match self.via {
            Via::Bridge => "bridge",
            Via::Host => "host",
        }
    }

    /// A server on the host's network.
    pub(crate) fn here(self, idle: Idle) -> Served {
        Served {
            idle,
            address: (Ipv4Addr::LOCALHOST, self.port).into(),
        }
    }

    /// A server at an address that an engine says.
    pub(crate) fn at(self, idle: Idle, address: &str) -> anyhow::Result<Served> {
        let address = address.trim().parse::<Ipv4Addr>();
        let address = address.context("the container has no address on its bridge")?;
        Ok(Served {
            idle,
            address: (address, self.port).into(),
        })
    }
}

/// A server that runs, though it may not listen yet.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) idle: Idle,
    pub(crate) address: SocketAddr,
}

/// A port that was free a moment ago, below those that the kernel gives to clients: to one of these a
/// client that waits for the server could connect from itself.
fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    let own = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap_or(0);
    for _ in 0..PORTS {
        let next = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(own) % PORTS;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, FIRST + next)).is_ok() {
            return Ok(FIRST + next);
        }
    }
    bail!("no port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_one_in_use_is_passed_over() {
        let first = free_port().unwrap();
        let _used = TcpListener::bind((Ipv4Addr::UNSPECIFIED, first + 1)).unwrap();

        let next = free_port().unwrap();

        assert!(next > first + 1 || next < first, "{first} then {next}");
    }
}
