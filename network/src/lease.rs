//! Who is on a network now: one file an endpoint, in the run directory. Its name holds the leased
//! addresses and the container, so that one listing tells what is free; it is gone with the
//! container, after a crash as soon as somebody looks, and after a reboot with everything else.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use state::{ContainerState, Layout, read_record};
use sys::durable::Durability;
use sys::lock::{FileLock, Mode};

use crate::record::{NetworkConfig, Pool};
use crate::{NetworkError, Subnet};

/// Others hold a network's lock for less than a millisecond.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// With more endpoints than this their containers are looked at only when addresses run out.
const CHECKED_ALWAYS: usize = 32;

/// An endpoint: a container on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's id.
    pub network: String,
    /// The network's name.
    pub network_name: String,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// Every name that it answers to on this network.
    pub names: Vec<String>,
    /// The aliases among them that the user gave.
    pub aliases: Vec<String>,
    /// Its IPv4 address and prefix.
    pub ipv4: Option<(IpAddr, u8)>,
    /// Its IPv6 address and prefix.
    pub ipv6: Option<(IpAddr, u8)>,
    /// Its IPv4 router.
    pub gateway4: Option<IpAddr>,
    /// Its IPv6 router.
    pub gateway6: Option<IpAddr>,
    /// Its hardware address.
    pub mac: String,
    /// The name of its link in the container.
    pub link: String,
    /// The name of its link on the host; empty when it has none.
    pub host_link: String,
}

/// What the name of an endpoint's file says.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) container: String,
    pub(crate) path: PathBuf,
}

/// The endpoints of one network, with its lock held.
#[derive(Debug)]
pub(crate) struct Leases<'a> {
    layout: &'a Layout,
    dir: PathBuf,
    _lock: FileLock,
}

/// The directory of a network's endpoints.
pub(crate) fn directory(layout: &Layout, network: &str) -> PathBuf {
    layout.networks_run().join(network).join("endpoints")
}

/// The file of an endpoint.
pub(crate) fn path(layout: &Layout, endpoint: &Endpoint) -> PathBuf {
    let text = |address: Option<(IpAddr, u8)>| {
        address.map_or_else(|| "-".to_owned(), |(address, _)| address.to_string())
    };
    let name = format!(
        "{}_{}_{}",
        text(endpoint.ipv4),
        text(endpoint.ipv6),
        endpoint.container
    );
    directory(layout, &endpoint.network).join(name)
}

/// Whether a container's monitor lives, or its program without it: another monitor takes that over as
/// soon as somebody looks at the container.
pub(crate) fn is_alive(layout: &Layout, container: &str) -> bool {
    if sys::lock::is_held(&layout.container_run(container).join("lock")).unwrap_or(true) {
        return true;
    }
    let state = ContainerState::read(&layout.container(container));
    let program = state.ok().filter(|state| state.status.is_owned());
    program
        .and_then(|state| state.pid.zip(state.pid_start))
        .is_some_and(|(pid, start_time)| sys::process::is_alive(pid, start_time))
}

/// What is on a network, as the names of the files say.
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>, NetworkError> {
    let failed = || NetworkError::file("list", dir);
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut found = Vec::new();
    for file in listing {
        let file = file.map_err(failed())?;
        let name = file.file_name();
        let Some([ipv4, ipv6, container]) = name.to_str().and_then(|name| {
            let mut parts = name.split('_');
            Some([parts.next()?, parts.next()?, parts.next()?])
        }) else {
            continue;
        };
        found.push(Entry {
            addresses: [ipv4, ipv6].iter().filter_map(|a| a.parse().ok()).collect(),
            container: container.to_owned(),
            path: file.path(),
        });
    }
    Ok(found)
}

/// What a container asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
}

impl<'a> Leases<'a> {
    /// Takes the network's lock.
    pub(crate) fn lock(layout: &'a Layout, network: &str) -> Result<Self, NetworkError> {
        let dir = directory(layout, network);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(NetworkError::file("make", &dir))?;
        let path = layout.networks_run().join(network).join("lock");
        let lock = FileLock::acquire(&path, Mode::Exclusive, LOCK_TIMEOUT);
        Ok(Self {
            layout,
            dir,
            _lock: lock.map_err(NetworkError::file("lock", path))?,
        })
    }

    /// Leases addresses: those that are wanted, or the first free ones.
    pub(crate) fn lease(
        &self,
        config: &NetworkConfig,
        wanted: Wanted,
    ) -> Result<[Option<IpAddr>; 2], NetworkError> {
        let mut entries = entries(&self.dir)?;
        if entries.len() <= CHECKED_ALWAYS {
            self.drop_dead(&mut entries);
        }
        match choose(config, wanted, &entries) {
            Err(NetworkError::NoAddress(_) | NetworkError::AddressInUse { .. }) => {
                self.drop_dead(&mut entries);
                choose(config, wanted, &entries).map_err(|error| self.with_owner(error, &entries))
            }
            chosen => chosen,
        }
    }

    /// Gives back what containers that are gone had.
    fn drop_dead(&self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| {
            let alive = is_alive(self.layout, &entry.container);
            if !alive {
                // Another one may be faster.
                drop(sys::durable::remove_tree(&entry.path));
            }
            alive
        });
    }

    /// Says by its name who has the address.
    fn with_owner(&self, error: NetworkError, entries: &[Entry]) -> NetworkError {
        let NetworkError::AddressInUse {
            address,
            network,
            owner,
        } = error
        else {
            return error;
        };
        let entry = entries.iter().find(|e| e.addresses.contains(&address));
        let record = entry.and_then(|entry| read_record::<Endpoint>(&entry.path).ok());
        let owner = record.map_or(owner, |record| format!("container `{}`", record.name));
        NetworkError::AddressInUse {
            address,
            network,
            owner,
        }
    }

    /// Writes the endpoint down: from then on its addresses are leased.
    pub(crate) fn record(&self, endpoint: &Endpoint) -> Result<PathBuf, NetworkError> {
        let path = path(self.layout, endpoint);
        state::write_record(&path, endpoint, Durability::Atomic)?;
        Ok(path)
    }
}

fn choose(
    config: &NetworkConfig,
    wanted: Wanted,
    entries: &[Entry],
) -> Result<[Option<IpAddr>; 2], NetworkError> {
    let used: HashSet<IpAddr> = entries.iter().flat_map(|e| e.addresses.clone()).collect();
    let ipv4 = match (&config.ipv4, wanted.ipv4) {
        (Some(pool), Some(address)) => Some(check(config, pool, address, &used)?),
        (Some(pool), None) => Some(first_free(config, pool, 1, &used)?),
        (None, Some(address)) => return Err(no_family(config, address)),
        (None, None) => None,
    };
    let ipv6 = match (&config.ipv6, wanted.ipv6) {
        (Some(pool), Some(address)) => Some(check(config, pool, address, &used)?),
        (Some(pool), None) => {
            // The same number as in IPv4 is easier to read.
            let number = config.ipv4.as_ref().zip(ipv4);
            let number = number.map_or(1, |(pool, address)| pool.subnet.number_of(address));
            Some(first_free(config, pool, number, &used)?)
        }
        (None, Some(address)) => return Err(no_family(config, address)),
        (None, None) => None,
    };
    Ok([ipv4, ipv6])
}

fn no_family(config: &NetworkConfig, address: IpAddr) -> NetworkError {
    NetworkError::BadAddress {
        address: address.to_string(),
        network: config.name.clone(),
        why: "the network has no addresses of this family".to_owned(),
    }
}

/// An address that was asked for.
fn check(
    config: &NetworkConfig,
    pool: &Pool,
    address: IpAddr,
    used: &HashSet<IpAddr>,
) -> Result<IpAddr, NetworkError> {
    let bad = |why: String| NetworkError::BadAddress {
        address: address.to_string(),
        network: config.name.clone(),
        why,
    };
    if !pool.subnet.contains(address) {
        return Err(bad(format!("it is outside the subnet {}", pool.subnet)));
    }
    if !is_host(&pool.subnet, pool.subnet.number_of(address)) {
        return Err(bad(
            "it is the subnet's own or its broadcast address".to_owned()
        ));
    }
    let taken = |owner: &str| NetworkError::AddressInUse {
        address,
        network: config.name.clone(),
        owner: owner.to_owned(),
    };
    if pool.gateway == Some(address) {
        return Err(taken("the gateway"));
    }
    if let Some((name, _)) = pool.reserved.iter().find(|(_, a)| **a == address) {
        return Err(taken(&format!("the auxiliary address `{name}`")));
    }
    if used.contains(&address) {
        return Err(taken("another container"));
    }
    Ok(address)
}

/// Whether the address with this number is one that a host can have.
fn is_host(subnet: &Subnet, number: u128) -> bool {
    // Point-to-point subnets have neither (RFC 3021, RFC 6164).
    let small = subnet.last() <= 1;
    let broadcast = subnet.is_ipv4() && number == subnet.last();
    small || (number != 0 && !broadcast)
}

fn first_free(
    config: &NetworkConfig,
    pool: &Pool,
    from: u128,
    used: &HashSet<IpAddr>,
) -> Result<IpAddr, NetworkError> {
    let range = pool.range.unwrap_or(pool.subnet);
    let is_free = |address: &IpAddr| {
        let number = pool.subnet.number_of(*address);
        is_host(&pool.subnet, number)
            && pool.gateway != Some(*address)
            && !used.contains(address)
            && !pool.reserved.values().any(|reserved| reserved == address)
    };
    // At most so many can be taken, so a free one is among the next.
    let taken = u128::try_from(used.len() + pool.reserved.len() + 3).unwrap_or(u128::MAX);
    let from = if pool.range.is_some() { 0 } else { from };
    let numbers =
        (from..=range.last().min(from.saturating_add(taken))).chain(0..=range.last().min(taken));
    numbers
        .filter_map(|number| range.nth(number))
        .find(is_free)
        .ok_or_else(|| NetworkError::NoAddress(config.name.clone()))
}

/// Gives back everything that a container has on any network.
///
/// # Errors
/// When a directory cannot be read.
pub fn release(layout: &Layout, container: &str) -> Result<(), NetworkError> {
    let all = layout.networks_run();
    let networks = match fs::read_dir(&all) {
        Ok(networks) => networks,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(NetworkError::file("list", all)(error)),
    };
    for network in networks.flatten() {
        for entry in entries(&network.path().join("endpoints"))? {
            if entry.container == container {
                drop(sys::durable::remove_tree(&entry.path));
            }
        }
    }
    Ok(())
}
