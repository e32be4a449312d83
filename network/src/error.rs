//! Why a network operation failed.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use state::RecordError;

use crate::Subnet;

/// A network operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Not a subnet.
    #[error("`{0}` is not a subnet: it is ADDRESS/PREFIX")]
    BadSubnet(String),
    /// Not a name.
    #[error("cannot name a network `{0}`: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")]
    BadName(String),
    /// An option that is unknown, or its value.
    #[error("cannot use the network option `{option}`: {why}")]
    BadOption {
        /// The option as it was given.
        option: String,
        /// What is wrong.
        why: String,
    },
    /// No network has this name or id.
    #[error("no such network: {0}")]
    NotFound(String),
    /// More than one id starts so.
    #[error("more than one network's id starts with `{0}`")]
    Ambiguous(String),
    /// The name belongs to another network.
    #[error("cannot create network `{0}`: a network of this name exists")]
    NameInUse(String),
    /// A network that ketch itself provides.
    #[error("cannot {what} network `{name}`: it is built in")]
    BuiltIn {
        /// The operation.
        what: &'static str,
        /// The network.
        name: String,
    },
    /// The container is on the network already.
    #[error("cannot put container `{container}` on network `{network}`: it is on it already")]
    AlreadyOn {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The container is not on the network.
    #[error("cannot take container `{container}` off network `{network}`: it is not on it")]
    NotOn {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// Containers are on the network.
    #[error("cannot remove network `{name}`: it is in use by {}", containers.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// The containers' names.
        containers: Vec<String>,
    },
    /// The subnet is another network's.
    #[error("cannot use subnet `{subnet}`: it overlaps `{other}` of network `{name}`")]
    SubnetInUse {
        /// What was asked for.
        subnet: Subnet,
        /// The other network's.
        other: Subnet,
        /// The other network.
        name: String,
    },
    /// The host reaches something else there.
    #[error("cannot use subnet `{subnet}`: it overlaps the route to `{route}` by `{link}`")]
    RouteConflict {
        /// What was asked for.
        subnet: Subnet,
        /// The route.
        route: Subnet,
        /// The route's link.
        link: String,
    },
    /// Every subnet of the pool is taken.
    #[error("cannot find a free subnet: all of {0} are in use; choose one by --subnet")]
    PoolExhausted(String),
    /// Every address of a network is leased.
    #[error("cannot lease an address of network `{0}`: all are in use")]
    NoAddress(String),
    /// The address is leased, or reserved.
    #[error("cannot lease {address} of network `{network}`: it is in use by {owner}")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// Who has it.
        owner: String,
    },
    /// Who took a running container over found its address given to somebody else.
    #[error("cannot go on on network `{network}`: the address is not the container's any more")]
    LeaseLost {
        /// The network.
        network: String,
    },
    /// The address does not belong to the network.
    #[error("cannot use address {address} on network `{network}`: {why}")]
    BadAddress {
        /// The address.
        address: String,
        /// The network.
        network: String,
        /// What is wrong.
        why: String,
    },
    /// A port is taken.
    #[error("cannot publish port {address}/{protocol}: it is in use by {owner}")]
    PortInUse {
        /// Host address and port.
        address: String,
        /// tcp, udp or sctp.
        protocol: &'static str,
        /// A container or a process.
        owner: String,
    },
    /// A port cannot be published.
    #[error("cannot publish port {address}/{protocol}")]
    Publish {
        /// Host address and port.
        address: String,
        /// tcp, udp or sctp.
        protocol: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A port that an ordinary user may not have.
    #[error(
        "cannot publish port {address}/{protocol}: an ordinary user's ports begin at {first} (the sysctl net.ipv4.ip_unprivileged_port_start)"
    )]
    PortForbidden {
        /// Host address and port.
        address: String,
        /// tcp, udp or sctp.
        protocol: &'static str,
        /// The first that is allowed.
        first: u16,
    },
    /// A network that an ordinary user cannot have.
    #[error(
        "cannot use network `{network}`: an ordinary user's container has pasta, slirp4netns, host, none or container:NAME"
    )]
    OrdinaryUser {
        /// The network.
        network: String,
    },
    /// The program that carries an ordinary user's packets does not.
    #[error("cannot start {program}: {why}")]
    Helper {
        /// The program.
        program: &'static str,
        /// What it says.
        why: String,
    },
    /// Something that the kernel lacks.
    #[error("cannot use {what}: this kernel lacks it")]
    Missing {
        /// The feature, with the option that asked for it.
        what: String,
    },
    /// A request to the kernel failed.
    #[error("cannot {what}")]
    Kernel {
        /// What was asked for.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A record could not be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A plan that another version has made.
    #[error("cannot decode the container's network plan")]
    Plan(#[source] postcard::Error),
}

impl NetworkError {
    /// Names what was asked of the kernel.
    pub(crate) fn kernel<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self::Kernel {
            what,
            source: error.into(),
        }
    }

    /// Names a file and what was to be done with it.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// The message with its causes, in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&without_number(&error.to_string()));
            cause = error.source();
        }
        text
    }
}

/// An error of the system without its number.
fn without_number(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
