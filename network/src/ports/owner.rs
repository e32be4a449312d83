//! Who holds a port: another container, or a process of the host.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use state::{ContainerConfig, Layout, read_record};

use super::Transport;
use crate::lease::is_alive;
use crate::live::NetworkState;

/// Names the owner of a port as well as it can be known.
pub(crate) fn owner(layout: &Layout, transport: Transport, address: SocketAddr) -> String {
    container(layout, transport, address)
        .or_else(|| process(transport, address))
        .unwrap_or_else(|| "another process".to_owned())
}

/// Names who has taken a port that the records say is the asking container's.
pub(crate) fn taker(transport: Transport, address: SocketAddr) -> String {
    process(transport, address).unwrap_or_else(|| "another process".to_owned())
}

fn overlaps(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

fn container(layout: &Layout, transport: Transport, address: SocketAddr) -> Option<String> {
    let all = layout.run().join("containers");
    for entry in fs::read_dir(all).ok()?.flatten() {
        let Ok(state) = read_record::<NetworkState>(&entry.path().join(crate::STATE_FILE)) else {
            continue;
        };
        let holds = state.ports.iter().any(|port| {
            port.transport == transport
                && port.host.port() == address.port()
                && overlaps(port.host.ip(), address.ip())
        });
        let id = entry.file_name();
        if holds
            && let Some(id) = id.to_str()
            && is_alive(layout, id)
        {
            let config = ContainerConfig::read(&layout.container(id)).ok();
            let name = config.map_or_else(|| id.to_owned(), |config| config.name);
            return Some(format!("container `{name}`"));
        }
    }
    None
}

fn process(transport: Transport, address: SocketAddr) -> Option<String> {
    let inode = socket_inode(transport, address)?;
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let descriptors = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
        let holds = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == &*wanted));
        if holds {
            let program = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} (`{}`)", program.trim_end()));
        }
    }
    None
}

/// The inode of the socket on a port, from the tables of proc(5): a line has the local address, and
/// the inode as tenth field.
fn socket_inode(transport: Transport, address: SocketAddr) -> Option<String> {
    let files: [&str; 2] = match transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
        Transport::Sctp => return None,
    };
    let port = format!(":{:04X}", address.port());
    for file in files {
        let table = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            // Listening, or for UDP unconnected.
            if local.ends_with(&port) && matches!(*state, "0A" | "07") {
                return Some((*inode).to_owned());
            }
        }
    }
    None
}
