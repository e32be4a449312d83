//! Networks and volumes of a daemon: made, joined, removed.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Ask, Client, encoded};
use super::commands::each;
use super::spec::{labels, pairs};
use crate::render;

/// Options of `network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateNetworkArgs {
    /// Driver
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Label: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Driver option (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Addresses, such as 10.1.0.0/16 (can be repeated)
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// IPv6 addresses too
    #[arg(long)]
    ipv6: bool,
    /// Name
    name: String,
}

/// Options of `volume create`.
#[derive(Debug, Args)]
pub(crate) struct CreateVolumeArgs {
    /// Driver
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Label: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Driver option (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Name (default: made up)
    name: Option<String>,
}

/// Arguments of `network connect` and `network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Network, by name or id
    network: String,
    /// Container, by name or id
    container: String,
}

/// Names of networks or volumes.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

/// `network create`.
pub(crate) async fn create_network(
    client: &Client,
    args: &CreateNetworkArgs,
) -> anyhow::Result<u8> {
    let subnets: Vec<Value> = args
        .subnet
        .iter()
        .map(|subnet| json!({ "Subnet": subnet }))
        .collect();
    let body = json!({
        "Name": args.name, "Driver": args.driver, "Internal": args.internal,
        "EnableIPv6": args.ipv6, "CheckDuplicate": true, "Labels": labels(&args.label),
        "Options": pairs("--opt", &args.opt)?, "IPAM": { "Driver": "default", "Config": subnets },
    });
    let value = client
        .value(Ask::post("/networks/create").json(&body))
        .await?;
    render::print(value["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}

/// `network rm`.
pub(crate) async fn remove_networks(client: &Client, args: &RemoveArgs) -> anyhow::Result<u8> {
    each(&args.names, async |name| {
        client
            .done(Ask::delete(format!("/networks/{}", encoded(name))))
            .await
    })
    .await
}

/// `volume rm`.
pub(crate) async fn remove_volumes(client: &Client, args: &RemoveArgs) -> anyhow::Result<u8> {
    each(&args.names, async |name| {
        client
            .done(Ask::delete(format!("/volumes/{}", encoded(name))))
            .await
    })
    .await
}

async fn joined(client: &Client, args: &ConnectArgs, verb: &str) -> anyhow::Result<u8> {
    let path = format!("/networks/{}/{verb}", encoded(&args.network));
    client
        .done(Ask::post(path).json(&json!({ "Container": args.container })))
        .await?;
    Ok(0)
}

/// `network connect`.
pub(crate) async fn connect_network(client: &Client, args: &ConnectArgs) -> anyhow::Result<u8> {
    joined(client, args, "connect").await
}

/// `network disconnect`.
pub(crate) async fn disconnect_network(client: &Client, args: &ConnectArgs) -> anyhow::Result<u8> {
    joined(client, args, "disconnect").await
}

/// `volume create`.
pub(crate) async fn create_volume(client: &Client, args: &CreateVolumeArgs) -> anyhow::Result<u8> {
    let body = json!({
        "Name": args.name.as_deref().unwrap_or_default(), "Driver": args.driver,
        "Labels": labels(&args.label), "DriverOpts": pairs("--opt", &args.opt)?,
    });
    let value = client
        .value(Ask::post("/volumes/create").json(&body))
        .await?;
    render::print(value["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}
