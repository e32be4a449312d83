//! What is listed of a daemon: containers, images, networks, volumes.

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Ask, Client, with_query};
use crate::commands::size;
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};
use crate::times::{age, local};

/// Options of `ps` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Show only what matches (KEY=VALUE, can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Names}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show so many, the newest, running or not
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
    /// Show the newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show how much each has written
    #[arg(short, long)]
    size: bool,
}

/// Options of `images` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Show images that others are made of as well
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only what matches (KEY=VALUE, can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Repository}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Only images of this name
    name: Option<String>,
}

/// Options of `network ls` and `volume ls` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show only what matches (KEY=VALUE, can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Name}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show names only, or ids
    #[arg(short, long)]
    quiet: bool,
}

const CONTAINER: [Field; 13] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
];
const CONTAINER_SHOWN: [&str; 8] = [
    "ID",
    "Image",
    "Command",
    "RunningFor",
    "Status",
    "Ports",
    "Names",
    "Size",
];

const IMAGE: [Field; 8] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
];

const NETWORK: [Field; 7] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
];

const VOLUME: [Field; 5] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
];

/// How long a command may be.
const SHORT: usize = 20;

/// `KEY=VALUE` texts as the parameter `filters`.
pub(crate) fn filters(texts: &[String]) -> Result<Option<String>, Usage> {
    let mut all = Map::new();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Usage(format!("cannot use --filter `{text}`: it is KEY=VALUE")))?;
        let values = all.entry(key.to_owned()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(json!(value));
        }
    }
    Ok((!all.is_empty()).then(|| Value::Object(all).to_string()))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The labels of a record.
fn labels(value: &Value) -> Vec<(String, String)> {
    let labels = value["Labels"].as_object().into_iter().flatten();
    let pair = |(key, value): (&String, &Value)| {
        (key.clone(), value.as_str().unwrap_or_default().to_owned())
    };
    labels.map(pair).collect()
}

fn labelled(row: Row, value: &Value) -> Row {
    let labels = labels(value);
    row.with_labels(labels.iter().map(|(key, value)| (key, value)))
}

/// An id without its algorithm, short.
pub(crate) fn short(id: &str, whole: bool) -> String {
    if whole {
        return id.to_owned();
    }
    let hex = id.split(':').next_back().unwrap_or(id);
    hex.get(..12).unwrap_or(hex).to_owned()
}

fn time_of(seconds: &Value) -> Option<time::OffsetDateTime> {
    time::OffsetDateTime::from_unix_timestamp(seconds.as_i64()?).ok()
}

fn age_of(at: time::OffsetDateTime) -> String {
    let text = at.format(&time::format_description::well_known::Rfc3339);
    text.map_or_else(|_| String::new(), |text| format!("{} ago", age(&text)))
}

/// `ps`.
pub(crate) async fn ps(client: &Client, args: &PsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let with_size = args.size
        || args
            .format
            .as_ref()
            .is_some_and(|text| text.contains("Size"));
    let filters = filters(&args.filter)?;
    let last = args
        .last
        .or(args.latest.then_some(1))
        .map(|last| last.to_string());
    let mut query = Vec::new();
    query.extend(args.all.then_some(("all", "1")));
    query.extend(with_size.then_some(("size", "1")));
    query.extend(last.as_deref().map(|last| ("limit", last)));
    query.extend(filters.as_deref().map(|filters| ("filters", filters)));
    let list = client
        .value(Ask::get(with_query("/containers/json", &query)))
        .await?;
    let list = list.as_array().cloned().unwrap_or_default();
    if args.quiet && matches!(format, Format::Columns) {
        for value in &list {
            render::print(&short(text(value, "Id"), args.no_trunc))?;
        }
        return Ok(0);
    }
    let rows: Vec<Row> = list.iter().map(|value| container(value, args)).collect();
    let shown = if args.size {
        &CONTAINER_SHOWN[..]
    } else {
        &CONTAINER_SHOWN[..7]
    };
    format.print(&CONTAINER, shown, &rows)?;
    Ok(0)
}

fn container(value: &Value, args: &PsArgs) -> Row {
    let names = value["Names"].as_array().into_iter().flatten();
    let names: Vec<&str> = names
        .filter_map(|name| name.as_str().map(|name| name.trim_start_matches('/')))
        // What stands behind a further slash is a link's name.
        .filter(|name| !name.contains('/'))
        .collect();
    let mut command = render::clean(text(value, "Command"));
    if !args.no_trunc && command.chars().count() > SHORT {
        command = command.chars().take(SHORT - 1).chain(['…']).collect();
    }
    let created = time_of(&value["Created"]);
    let mounts = value["Mounts"].as_array().into_iter().flatten();
    let mounts: Vec<&str> = mounts
        .map(|mount| match text(mount, "Name") {
            "" => text(mount, "Source"),
            name => name,
        })
        .collect();
    let networks = value["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<&str> = networks
        .into_iter()
        .flat_map(|all| all.keys().map(String::as_str))
        .collect();
    let bytes = |key: &str| size(value[key].as_u64().unwrap_or(0));
    let sizes = match value["SizeRw"].is_null() && value["SizeRootFs"].is_null() {
        true => String::new(),
        false => format!("{} (virtual {})", bytes("SizeRw"), bytes("SizeRootFs")),
    };
    let row = Row::new([
        ("ID", short(text(value, "Id"), args.no_trunc)),
        ("Image", text(value, "Image").to_owned()),
        ("Command", format!("\"{command}\"")),
        ("CreatedAt", created.map(local).unwrap_or_default()),
        ("RunningFor", created.map(age_of).unwrap_or_default()),
        ("Ports", ports(&value["Ports"])),
        ("State", text(value, "State").to_owned()),
        ("Status", text(value, "Status").to_owned()),
        ("Size", sizes),
        ("Names", names.join(",")),
        ("Mounts", mounts.join(",")),
        ("Networks", networks.join(",")),
    ]);
    labelled(row, value)
}

/// Published and exposed ports, one each.
fn ports(list: &Value) -> String {
    let mut all: Vec<(u64, String)> = Vec::new();
    for port in list.as_array().into_iter().flatten() {
        let own = port["PrivatePort"].as_u64().unwrap_or(0);
        let kind = text(port, "Type");
        let shown = match port["PublicPort"].as_u64() {
            None => format!("{own}/{kind}"),
            Some(public) => {
                let address = text(port, "IP");
                let address = match address.contains(':') {
                    true => format!("[{address}]"),
                    false => address.to_owned(),
                };
                format!("{address}:{public}->{own}/{kind}")
            }
        };
        all.push((own, shown));
    }
    all.sort();
    let all: Vec<String> = all.into_iter().map(|(_, shown)| shown).collect();
    all.join(", ")
}

/// `images`.
pub(crate) async fn images(client: &Client, args: &ImagesArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let mut wanted = args.filter.clone();
    wanted.extend(args.name.as_ref().map(|name| format!("reference={name}")));
    let filters = filters(&wanted)?;
    let mut query = Vec::new();
    query.extend(args.all.then_some(("all", "1")));
    query.extend(args.digests.then_some(("digests", "1")));
    query.extend(filters.as_deref().map(|filters| ("filters", filters)));
    let list = client
        .value(Ask::get(with_query("/images/json", &query)))
        .await?;
    let list = list.as_array().cloned().unwrap_or_default();
    if args.quiet && matches!(format, Format::Columns) {
        for value in &list {
            render::print(&short(text(value, "Id"), args.no_trunc))?;
        }
        return Ok(0);
    }
    let rows: Vec<Row> = list
        .iter()
        .flat_map(|value| image(value, args.no_trunc))
        .collect();
    let shown: &[&str] = match args.digests {
        true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    format.print(&IMAGE, shown, &rows)?;
    Ok(0)
}

/// One line for each name of an image.
fn image(value: &Value, no_trunc: bool) -> Vec<Row> {
    const NONE: &str = "<none>";
    let strings = |key: &str| -> Vec<&str> {
        let list = value[key].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect()
    };
    let digests = strings("RepoDigests");
    let named = |name: &str| -> (String, String) {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, NONE));
        (repository.to_owned(), tag.to_owned())
    };
    let mut names: Vec<(String, String)> = strings("RepoTags").into_iter().map(named).collect();
    if names.is_empty() {
        let repository = digests.first().and_then(|text| text.split_once('@'));
        let repository = repository.map_or(NONE, |(repository, _)| repository);
        names.push((repository.to_owned(), NONE.to_owned()));
    }
    let created = time_of(&value["Created"]);
    let rows = names.into_iter().map(|(repository, tag)| {
        let prefix = format!("{repository}@");
        let digest = digests.iter().find_map(|text| text.strip_prefix(&prefix));
        let row = Row::new([
            ("Repository", repository.clone()),
            ("Tag", tag),
            ("Digest", digest.unwrap_or(NONE).to_owned()),
            ("ID", short(text(value, "Id"), no_trunc)),
            ("CreatedSince", created.map(age_of).unwrap_or_default()),
            ("CreatedAt", created.map(local).unwrap_or_default()),
            ("Size", size(value["Size"].as_u64().unwrap_or(0))),
        ]);
        labelled(row, value)
    });
    rows.collect()
}

/// `network ls`.
pub(crate) async fn networks(client: &Client, args: &ListArgs) -> anyhow::Result<u8> {
    let list = listed(client, "/networks", args).await?;
    let list = list.as_array().cloned().unwrap_or_default();
    let row = |value: &Value| {
        let row = Row::new([
            ("ID", short(text(value, "Id"), false)),
            ("Name", text(value, "Name").to_owned()),
            ("Driver", text(value, "Driver").to_owned()),
            ("Scope", text(value, "Scope").to_owned()),
            ("IPv6", (value["EnableIPv6"] == true).to_string()),
            ("Internal", (value["Internal"] == true).to_string()),
        ]);
        labelled(row, value)
    };
    let rows: Vec<Row> = list.iter().map(row).collect();
    shown(
        &NETWORK,
        &["ID", "Name", "Driver", "Scope"],
        "ID",
        &rows,
        args,
    )
}

/// `volume ls`.
pub(crate) async fn volumes(client: &Client, args: &ListArgs) -> anyhow::Result<u8> {
    let list = listed(client, "/volumes", args).await?;
    let list = list["Volumes"].as_array().cloned().unwrap_or_default();
    let row = |value: &Value| {
        let row = Row::new([
            ("Driver", text(value, "Driver").to_owned()),
            ("Name", text(value, "Name").to_owned()),
            ("Scope", text(value, "Scope").to_owned()),
            ("Mountpoint", text(value, "Mountpoint").to_owned()),
        ]);
        labelled(row, value)
    };
    let rows: Vec<Row> = list.iter().map(row).collect();
    shown(&VOLUME, &["Driver", "Name"], "Name", &rows, args)
}

async fn listed(client: &Client, path: &str, args: &ListArgs) -> anyhow::Result<Value> {
    let filters = filters(&args.filter)?;
    let query: Vec<_> = filters
        .as_deref()
        .map(|filters| ("filters", filters))
        .into_iter()
        .collect();
    client.value(Ask::get(with_query(path, &query))).await
}

fn shown(
    known: &[Field],
    columns: &[&str],
    quiet: &str,
    rows: &[Row],
    args: &ListArgs,
) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    if args.quiet && matches!(format, Format::Columns) {
        for row in rows {
            let name = row.fields.get(quiet).and_then(Value::as_str);
            render::print(name.unwrap_or_default())?;
        }
        return Ok(0);
    }
    format.print(known, columns, rows)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_ports_have_dockers_form() {
        let given = ["label=a=b", "label=c", "id=1"].map(str::to_owned);
        let wanted = r#"{"id":["1"],"label":["a=b","c"]}"#;
        assert_eq!(filters(&given).unwrap().unwrap(), wanted);
        assert!(filters(&["x".to_owned()]).is_err() && filters(&[]).unwrap().is_none());
        let list = json!([
            { "PrivatePort": 80, "PublicPort": 8080, "IP": "::", "Type": "tcp" },
            { "PrivatePort": 53, "Type": "udp" },
        ]);
        assert_eq!(ports(&list), "53/udp, [::]:8080->80/tcp");
    }

    #[test]
    fn image_without_a_name_has_one_line() {
        let rows = image(
            &json!({ "Id": "sha256:0123456789abcdef", "RepoTags": null }),
            false,
        );
        let [row] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        assert_eq!(row.fields["ID"], "0123456789ab");
        assert_eq!(
            (&row.fields["Repository"], &row.fields["Tag"]),
            (&json!("<none>"), &json!("<none>"))
        );
    }
}
