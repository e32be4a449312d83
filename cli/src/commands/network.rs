//! `ketch network`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use engine::{Engine, Join};
use network::{CreateNetwork, Driver, NetworkConfig, Subnet};

use super::network_options::{driver_option, mac};
use super::{Invocation, parse_named};
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};

const COMMANDS: [(&str, &str); 7] = [
    ("create", "Create a network"),
    ("ls", "List networks"),
    ("inspect", "Show everything about networks"),
    ("connect", "Put a container on a network"),
    ("disconnect", "Take a container off a network"),
    ("rm", "Remove networks"),
    ("prune", "Remove networks that no container uses"),
];

/// Runs the subcommand that the arguments name.
pub(crate) fn network(context: &Invocation, args: &[&str]) -> anyhow::Result<u8> {
    let Some((command, rest)) = args.split_first() else {
        return super::group_help("network", &COMMANDS);
    };
    let about = |name| {
        COMMANDS
            .iter()
            .find(|(own, _)| *own == name)
            .map_or("", |c| c.1)
    };
    let name = format!("network {command}");
    match *command {
        "create" => create(context, &parse_named(&name, about("create"), rest)?),
        "ls" | "list" => ls(context, &parse_named(&name, about("ls"), rest)?),
        "inspect" => inspect(context, &parse_named(&name, about("inspect"), rest)?),
        "connect" => connect(context, &parse_named(&name, about("connect"), rest)?),
        "disconnect" => disconnect(context, &parse_named(&name, about("disconnect"), rest)?),
        "rm" | "remove" => rm(context, &parse_named(&name, about("rm"), rest)?),
        "prune" => prune(context, &parse_named(&name, about("prune"), rest)?),
        "--help" | "-h" | "help" => super::group_help("network", &COMMANDS),
        other => {
            let text = format!("`network {other}` is not a command (see `ketch network --help`)");
            Err(Usage(text).into())
        }
    }
}

/// Options of `network create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Driver: bridge, macvlan or ipvlan
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet: ADDRESS/PREFIX, one of each family (default: a free one)
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// The host's own address in a subnet, or a router's (default: the first)
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of a subnet that containers get addresses of (default: all)
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<String>,
    /// Address that belongs to something else: NAME=ADDRESS (can be repeated)
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Nothing leads outside
    #[arg(long)]
    internal: bool,
    /// Give addresses of IPv4 (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv4: Option<bool>,
    /// Give addresses of IPv6 (default: true on bridges where the host has IPv6)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// Driver option: KEY=VALUE (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Label: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Containers can be put on it by hand: always so
    #[arg(long)]
    attachable: bool,
    /// Name
    name: String,
}

fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}

fn subnets(texts: &[String]) -> anyhow::Result<Vec<Subnet>> {
    Ok(texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, network::NetworkError>>()?)
}

fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    let mut reserved = BTreeMap::new();
    for (name, address) in pairs(&args.aux_address) {
        let wrong = || {
            Usage(format!(
                "cannot use --aux-address `{name}={address}`: it is NAME=ADDRESS"
            ))
        };
        let address = address.parse().map_err(|_| wrong())?;
        reserved.insert(name, address);
    }
    let options = CreateNetwork {
        driver: Driver::parse(&args.driver)?,
        subnets: subnets(&args.subnet)?,
        gateways: args.gateway.clone(),
        ranges: subnets(&args.ip_range)?,
        reserved,
        ipv4: args.ipv4.unwrap_or(true),
        ipv6: args.ipv6,
        internal: args.internal,
        labels: pairs(&args.label),
        options: pairs(&args.opt),
        ..CreateNetwork::named(&args.name)
    };
    let config = context.engine()?.networks_to_change()?.create(&options)?;
    render::print(&config.id)?;
    Ok(0)
}

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 8] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// Options of `network ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// Show only what matches: driver=, id=, name=, label=, type=custom|builtin, scope=local, dangling= (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Name}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

fn ls(context: &Invocation, args: &LsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    let mut networks = engine.networks().list()?;
    if !networks
        .iter()
        .any(|config| config.name == network::DEFAULT_NETWORK)
    {
        // It is made when it is first used; what cannot be made is not listed.
        networks.extend(engine.networks().find(network::DEFAULT_NETWORK));
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    for filter in &args.filter {
        let mut kept = Vec::new();
        for config in networks {
            if matches(&engine, &config, filter)? {
                kept.push(config);
            }
        }
        networks = kept;
    }
    let id = |config: &NetworkConfig| {
        if args.no_trunc {
            config.id.clone()
        } else {
            config.short_id().to_owned()
        }
    };
    if args.quiet && matches!(format, Format::Columns) {
        for config in &networks {
            render::print(&id(config))?;
        }
        return Ok(0);
    }
    let row = |config: &NetworkConfig| {
        Row::new([
            ("ID", id(config)),
            ("Name", config.name.clone()),
            ("Driver", config.driver.name().to_owned()),
            ("Scope", "local".to_owned()),
            ("IPv6", config.ipv6.is_some().to_string()),
            ("Internal", config.internal.to_string()),
            ("CreatedAt", crate::times::local_of(&config.created)),
        ])
        .with_labels(&config.labels)
    };
    let rows: Vec<Row> = networks.iter().map(row).collect();
    format.print(&FIELDS, &["ID", "Name", "Driver", "Scope"], &rows)?;
    Ok(0)
}

pub(crate) fn is_built_in(config: &NetworkConfig) -> bool {
    config.is_default() || matches!(config.driver, Driver::Host | Driver::Null)
}

fn matches(engine: &Engine, config: &NetworkConfig, filter: &str) -> anyhow::Result<bool> {
    let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
    Ok(match key {
        "driver" => config.driver.name() == value,
        "id" => config.id.starts_with(value),
        "name" => config.name.contains(value),
        "scope" => value == "local",
        "type" => (value == "builtin") == is_built_in(config),
        "label" => has_label(config, value),
        "dangling" => {
            let unused = !is_built_in(config) && engine.networks().endpoints(config)?.is_empty();
            unused == (value == "true" || value == "1")
        }
        _ => {
            return Err(Usage(format!(
                "cannot use --filter `{filter}`: this key is not known"
            ))
            .into());
        }
    })
}

fn has_label(config: &NetworkConfig, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => config.labels.get(key).is_some_and(|own| own == value),
        None => config.labels.contains_key(wanted),
    }
}

/// Networks by name or id.
#[derive(Debug, Args)]
struct Names {
    /// Networks, by name or id
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Options of `network inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// Print with a template such as {{.Driver}}, or json
    #[arg(short, long)]
    format: Option<String>,
    #[command(flatten)]
    names: Names,
}

fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let found = |name: &str| Ok(find(&engine, name)?);
    super::inspect::show(&args.names.networks, args.format.as_deref(), &found)
}

/// The network with this name or id, as Docker shows it.
pub(crate) fn find(
    engine: &Engine,
    name: &str,
) -> Result<serde_json::Value, network::NetworkError> {
    record(engine, &engine.networks().find(name)?)
}

/// A network as Docker shows it.
fn record(
    engine: &Engine,
    config: &NetworkConfig,
) -> Result<serde_json::Value, network::NetworkError> {
    Ok(engine::docker::network(
        config,
        &engine.networks().endpoints(config)?,
    ))
}

/// Options of `network rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// One that is absent is no error
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

fn rm(context: &Invocation, args: &RmArgs) -> anyhow::Result<u8> {
    let networks = context.engine()?.networks();
    let mut code = 0;
    for name in &args.names.networks {
        let removed = networks
            .find(name)
            .and_then(|config| networks.remove(&config));
        match removed {
            Ok(()) => render::print(name)?,
            Err(network::NetworkError::NotFound(_)) if args.force => {}
            Err(error) => {
                render::report(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Options of `network prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Ask nothing: nothing is ever asked
    #[arg(short, long)]
    force: bool,
    /// Remove only what matches: label=, label!= (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

fn prune(context: &Invocation, args: &PruneArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let used = engine.networks_in_use()?;
    let mut removed = Vec::new();
    for config in engine.networks().list()? {
        if is_built_in(&config) || used.contains(&config.id) {
            continue;
        }
        let mut wanted = true;
        for filter in &args.filter {
            wanted &= match filter.split_once('=') {
                Some(("label", value)) => has_label(&config, value),
                Some(("label!", value)) => !has_label(&config, value),
                _ => {
                    let text = format!("cannot use --filter `{filter}`: it is label= or label!=");
                    return Err(Usage(text).into());
                }
            };
        }
        if wanted {
            engine.networks().remove(&config)?;
            removed.push(config.name);
        }
    }
    if !removed.is_empty() {
        render::print(&format!("Deleted Networks:\n{}\n", removed.join("\n")))?;
    }
    Ok(0)
}

/// Options of `network connect`.
#[derive(Debug, Args)]
struct ConnectArgs {
    /// Further name of the container on the network (can be repeated)
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address (default: a free one)
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address (default: a free one)
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Hardware address (default: made from the address)
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Address that is valid on the link only (can be repeated)
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<IpAddr>,
    /// Option of the endpoint: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<String>,
    /// The network with the highest number is the way outside
    #[arg(long, default_value = "0", allow_hyphen_values = true)]
    gw_priority: i32,
    /// Network, by name or id
    network: String,
    /// Container, by name or id
    container: String,
}

fn connect(context: &Invocation, args: &ConnectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut join = Join {
        network: args.network.clone(),
        aliases: args.alias.clone(),
        ipv4: args.ip,
        ipv6: args.ip6,
        mac: None,
        link_local: args.link_local_ip.clone(),
        gateway_priority: args.gw_priority,
        link: None,
    };
    if let Some(text) = &args.mac_address {
        let wrong = || {
            Usage(format!(
                "cannot use --mac-address `{text}`: it is six bytes"
            ))
        };
        join.mac = Some(mac(text).ok_or_else(wrong)?);
    }
    for option in &args.driver_opt {
        driver_option(&mut join, option)?;
    }
    engine.connect_network(&engine.container(&args.container)?, &join)?;
    Ok(0)
}

/// Options of `network disconnect`.
#[derive(Debug, Args)]
struct DisconnectArgs {
    /// A container that is absent is no error
    #[arg(short, long)]
    force: bool,
    /// Network, by name or id
    network: String,
    /// Container, by name or id
    container: String,
}

fn disconnect(context: &Invocation, args: &DisconnectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    match engine.container(&args.container) {
        Ok(container) => engine.disconnect_network(&container, &args.network)?,
        Err(engine::EngineError::NoSuchContainer(_)) if args.force => {}
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}
