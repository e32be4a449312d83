//! Who has which name: the endpoints of the networks that a container is on. Read when a directory
//! has changed, which its time of modification tells.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use state::{Layout, read_record};

use crate::lease::{self, Endpoint};

/// Times of modification are only so exact: a table that was read sooner after the last change may
/// lack one of the same moment.
const EXACTNESS: Duration = Duration::from_millis(20);

/// The addresses of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Vec<IpAddr>,
    pub(crate) ipv6: Vec<IpAddr>,
}

/// The names on the networks of one container.
#[derive(Debug)]
pub(crate) struct Names {
    layout: Layout,
    networks: Vec<Network>,
}

#[derive(Debug)]
struct Network {
    dir: PathBuf,
    /// The directory's time of modification when it was read, if that will show every later change.
    read_at: Option<SystemTime>,
    by_name: HashMap<String, Addresses>,
    by_address: HashMap<IpAddr, String>,
}

impl Names {
    /// The names on networks, by their ids.
    pub(crate) fn new(layout: Layout, networks: impl Iterator<Item = String>) -> Self {
        let networks = networks
            .map(|id| Network {
                dir: lease::directory(&layout, &id),
                read_at: None,
                by_name: HashMap::new(),
                by_address: HashMap::new(),
            })
            .collect();
        Self { layout, networks }
    }

    /// The addresses of a name, in lower case; none when nobody has it.
    pub(crate) fn addresses(&mut self, name: &str) -> Option<Addresses> {
        self.refresh();
        let mut found: Option<Addresses> = None;
        for addresses in self.networks.iter().filter_map(|n| n.by_name.get(name)) {
            let found = found.get_or_insert_default();
            found.ipv4.extend(&addresses.ipv4);
            found.ipv6.extend(&addresses.ipv6);
        }
        found
    }

    /// The name of an address, with its network's.
    pub(crate) fn name_of(&mut self, address: IpAddr) -> Option<String> {
        self.refresh();
        let mut names = self
            .networks
            .iter()
            .filter_map(|n| n.by_address.get(&address));
        names.next().cloned()
    }

    fn refresh(&mut self) {
        for network in &mut self.networks {
            let modified = fs::metadata(&network.dir)
                .and_then(|meta| meta.modified())
                .ok();
            if modified.is_some() && modified == network.read_at {
                continue;
            }
            network.read(&self.layout);
            let is_exact = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > EXACTNESS);
            network.read_at = modified.filter(is_exact);
        }
    }
}

impl Network {
    fn read(&mut self, layout: &Layout) {
        self.by_name.clear();
        self.by_address.clear();
        for entry in lease::entries(&self.dir).unwrap_or_default() {
            if lease::is_alive(layout, &entry.container) {
                self.add(&entry.path);
            }
        }
    }

    fn add(&mut self, path: &Path) {
        // One that ended in this moment has no name any more.
        let Ok(endpoint) = read_record::<Endpoint>(path) else {
            return;
        };
        let address = |of: Option<(IpAddr, u8)>| of.map(|(address, _)| address);
        let own = [address(endpoint.ipv4), address(endpoint.ipv6)];
        for address in own.into_iter().flatten() {
            let full = format!("{}.{}", endpoint.name, endpoint.network_name);
            self.by_address.insert(address, full);
        }
        for name in &endpoint.names {
            let short = name.to_ascii_lowercase();
            let full = format!("{short}.{}", endpoint.network_name.to_ascii_lowercase());
            for name in [short, full] {
                let entry = self.by_name.entry(name).or_default();
                entry.ipv4.extend(own[0]);
                entry.ipv6.extend(own[1]);
            }
        }
    }
}
