//! Networks by name and id: found, created, removed. The records are the truth; links and rules of
//! the kernel are made from them whenever they are missing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use state::{ContainerState, EventLog, Layout, clock, read_record, write_record};
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};

use crate::lease::{self, Endpoint, Leases};
use crate::record::{Driver, NetworkConfig, Pool, VERSION};
use crate::{DEFAULT_NETWORK, NetworkError, Subnet, bridge, child, pool};

/// Making a bridge takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// Monitors give addresses back just after they have reported the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The built-in networks without a record: name, driver, id.
const BUILT_IN: [(&str, Driver, &str); 2] = [
    (
        "host",
        Driver::Host,
        "686f737400000000000000000000000000000000000000000000000000000000",
    ),
    (
        "none",
        Driver::Null,
        "6e6f6e6500000000000000000000000000000000000000000000000000000000",
    ),
];

/// What a network is created with.
#[derive(Debug, Clone)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// How it reaches its containers.
    pub driver: Driver,
    /// Subnets that were asked for, at most one a family.
    pub subnets: Vec<Subnet>,
    /// Gateways, each in one of the subnets.
    pub gateways: Vec<IpAddr>,
    /// Ranges, each in one of the subnets.
    pub ranges: Vec<Subnet>,
    /// Addresses that belong to something else.
    pub reserved: BTreeMap<String, IpAddr>,
    /// Give it IPv4 addresses.
    pub ipv4: bool,
    /// Give it IPv6 addresses; when not said, as the driver does.
    pub ipv6: Option<bool>,
    /// No way out.
    pub internal: bool,
    /// The user's own.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
}

impl CreateNetwork {
    /// A bridge network without options.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            driver: Driver::Bridge,
            subnets: Vec::new(),
            gateways: Vec::new(),
            ranges: Vec::new(),
            reserved: BTreeMap::new(),
            ipv4: true,
            ipv6: None,
            internal: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

/// All networks of one state root.
#[derive(Debug, Clone)]
pub struct Networks {
    layout: Layout,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() < 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        // As with Docker, there may be spaces within.
        && !text.ends_with(' ')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.- ".contains(&b))
}

impl Networks {
    /// The networks of a layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    fn names(&self) -> PathBuf {
        self.layout.networks().join("names")
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.layout.networks().join(id).join("config.json")
    }

    /// Serializes creation, removal and bringing up.
    fn lock(&self) -> Result<FileLock, NetworkError> {
        lock(&self.layout)
    }

    /// All networks: the built-in ones first, then by name.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<NetworkConfig>, NetworkError> {
        let mut found: Vec<NetworkConfig> = BUILT_IN.iter().map(built_in).collect();
        found.extend(self.recorded()?);
        found.sort_by_key(|config| (!is_built_in(&config.name), config.name.clone()));
        Ok(found)
    }

    /// The networks that have a record.
    pub(crate) fn recorded(&self) -> Result<Vec<NetworkConfig>, NetworkError> {
        let dir = self.layout.networks();
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(NetworkError::file("list", &dir))? {
            let name = entry.map_err(NetworkError::file("list", &dir))?.file_name();
            let Some(id) = name.to_str().filter(|id| id.len() == 64) else {
                continue;
            };
            match read_record(&self.record_path(id)) {
                Ok(config) => found.push(config),
                // It was removed in this moment.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// The network with this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_id(&self, id: &str) -> Result<NetworkConfig, NetworkError> {
        if let Some(network) = BUILT_IN.iter().find(|(.., own)| *own == id) {
            return Ok(built_in(network));
        }
        match read_record(&self.record_path(id)) {
            Err(error) if error.is_absent() => Err(NetworkError::NotFound(id.to_owned())),
            other => Ok(other?),
        }
    }

    /// The network with this name, this id, or the only one whose id starts so.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, reference: &str) -> Result<NetworkConfig, NetworkError> {
        if let Some(network) = BUILT_IN.iter().find(|(name, ..)| *name == reference) {
            return Ok(built_in(network));
        }
        if !is_name(reference) {
            return Err(NetworkError::NotFound(reference.to_owned()));
        }
        if let Ok(id) = fs::read_to_string(self.names().join(reference)) {
            return self.by_id(id.trim());
        }
        if reference == DEFAULT_NETWORK {
            return self.create(&CreateNetwork::named(DEFAULT_NETWORK));
        }
        let mut found = self.list()?;
        found.retain(|config| config.id.starts_with(reference));
        match (found.pop(), found.is_empty()) {
            (Some(config), true) => Ok(config),
            (Some(_), false) => Err(NetworkError::Ambiguous(reference.to_owned())),
            (None, _) => Err(NetworkError::NotFound(reference.to_owned())),
        }
    }

    /// Creates a network and brings it up.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be done; then nothing is left of it.
    pub fn create(&self, options: &CreateNetwork) -> Result<NetworkConfig, NetworkError> {
        if !is_name(&options.name) {
            return Err(NetworkError::BadName(options.name.clone()));
        }
        if is_built_in_without_record(&options.name) {
            return Err(NetworkError::NameInUse(options.name.clone()));
        }
        let _lock = self.lock()?;
        if let Ok(id) = fs::read_to_string(self.names().join(&options.name)) {
            // The default network is made by whoever needs it first.
            return match options.name.as_str() {
                DEFAULT_NETWORK => self.by_id(id.trim()),
                _ => Err(NetworkError::NameInUse(options.name.clone())),
            };
        }
        let others = self.recorded()?;
        let id = random_id()?;
        let [ipv4, ipv6] = pool::settle(options, &id, &others)?;
        let mut config = NetworkConfig {
            version: VERSION,
            id,
            name: options.name.clone(),
            created: clock::now(),
            driver: options.driver,
            internal: options.internal,
            ipv4,
            ipv6,
            labels: options.labels.clone(),
            options: options.options.clone(),
        };
        if config.is_default() {
            bridge::avoid_taken_name(&mut config)?;
        }
        match config.driver {
            Driver::Bridge => bridge::check(&config, &others)?,
            Driver::Macvlan | Driver::Ipvlan => child::check(&config)?,
            Driver::Host | Driver::Null => {}
        }
        self.write(&config)?;
        if let Err(error) = bridge::up(&self.layout, &config) {
            // The first error is the one to report.
            drop(self.erase(&config));
            return Err(error);
        }
        self.record_event("create", &config);
        Ok(config)
    }

    /// Writes down that something has happened to a network. An event that cannot be written undoes
    /// nothing.
    fn record_event(&self, action: &str, config: &NetworkConfig) {
        let attributes = [
            ("name", config.name.as_str()),
            ("type", config.driver.name()),
        ];
        let log = EventLog::new(&self.layout.events());
        drop(log.record("network", action, &config.id, &attributes));
    }

    fn write(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        let make = |dir: PathBuf| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(NetworkError::file("make", dir))
        };
        make(self.names())?;
        let tmp = self.layout.tmp().join(&config.id);
        make(tmp.clone())?;
        write_record(&tmp.join("config.json"), config, Durability::Synced)?;
        let dir = self.layout.networks().join(&config.id);
        durable::publish(&tmp, &dir, Durability::Atomic)
            .map_err(NetworkError::file("put in place", &dir))?;
        let claim = self.names().join(&config.name);
        let id = config.id.as_bytes();
        durable::claim_file(&claim, id, Durability::Synced)
            .map_err(NetworkError::file("claim", claim))
    }

    /// Removes a network: its links and rules, then its record.
    ///
    /// # Errors
    /// When containers are on it, or it is built in.
    pub fn remove(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        if is_built_in(&config.name) {
            return Err(NetworkError::BuiltIn {
                what: "remove",
                name: config.name.clone(),
            });
        }
        self.wait_for_ending(config)?;
        let _lock = self.lock()?;
        let leases = Leases::lock(&self.layout, &config.id)?;
        let users = self.endpoints(config)?;
        if !users.is_empty() {
            return Err(NetworkError::InUse {
                name: config.name.clone(),
                containers: users.into_iter().map(|endpoint| endpoint.name).collect(),
            });
        }
        self.erase(config)?;
        drop(leases);
        self.record_event("destroy", config);
        Ok(())
    }

    /// Waits for monitors that have reported their container's end to give its addresses back.
    fn wait_for_ending(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        let is_ending = |entry: &lease::Entry| {
            let state = ContainerState::read(&self.layout.container(&entry.container));
            state.is_ok_and(|state| !state.status.is_owned())
                || !self.layout.container(&entry.container).exists()
        };
        let dir = lease::directory(&self.layout, &config.id);
        for entry in lease::entries(&dir)? {
            while is_ending(&entry)
                && lease::is_alive(&self.layout, &entry.container)
                && Instant::now() < deadline
            {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn erase(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        match config.driver {
            Driver::Bridge => bridge::down(config)?,
            Driver::Macvlan | Driver::Ipvlan => child::down(config)?,
            Driver::Host | Driver::Null => {}
        }
        let dir = self.layout.networks().join(&config.id);
        let trashed = durable::discard(&dir, &self.layout.trash());
        let trashed = trashed.map_err(NetworkError::file("remove", &dir))?;
        let claim = self.names().join(&config.name);
        durable::remove_tree(&claim).map_err(NetworkError::file("remove", &claim))?;
        let run = self.layout.networks_run().join(&config.id);
        durable::remove_tree(&run).map_err(NetworkError::file("remove", &run))?;
        if let Some(trashed) = trashed {
            durable::remove_tree(&trashed).map_err(NetworkError::file("remove", &trashed))?;
        }
        Ok(())
    }

    /// The live endpoints of a network.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn endpoints(&self, config: &NetworkConfig) -> Result<Vec<Endpoint>, NetworkError> {
        let dir = lease::directory(&self.layout, &config.id);
        let mut found: Vec<Endpoint> = lease::entries(&dir)?
            .iter()
            .filter(|entry| lease::is_alive(&self.layout, &entry.container))
            .filter_map(|entry| read_record(&entry.path).ok())
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// The lock of all networks.
pub(crate) fn lock(layout: &Layout) -> Result<FileLock, NetworkError> {
    let path = layout.locks().join("networks");
    FileLock::acquire(&path, Mode::Exclusive, LOCK_TIMEOUT)
        .map_err(NetworkError::file("lock", path))
}

/// Whether a network of this name cannot be removed.
fn is_built_in(name: &str) -> bool {
    name == DEFAULT_NETWORK || is_built_in_without_record(name)
}

fn is_built_in_without_record(name: &str) -> bool {
    BUILT_IN.iter().any(|(own, ..)| *own == name)
}

fn built_in((name, driver, id): &(&str, Driver, &str)) -> NetworkConfig {
    NetworkConfig {
        version: VERSION,
        id: (*id).to_owned(),
        name: (*name).to_owned(),
        created: String::new(),
        driver: *driver,
        internal: false,
        ipv4: None,
        ipv6: None::<Pool>,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

/// 64 random hexadecimal digits.
fn random_id() -> Result<String, NetworkError> {
    let mut bytes = [0_u8; 32];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags)
        .map_err(|errno| NetworkError::kernel("make an id")(io::Error::from(errno)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
