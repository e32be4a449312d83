//! The subcommands that go over the wire, and one clear line for those that do not. It is long because
//! there are many, each with its options and a few lines.

use anyhow::Context as _;
use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::client::{Ask, Client, encoded, status_of, with_query};
use super::copy::{self, to_stdout};
use super::images::{self, of_image};
use super::lists;
use super::objects;
use super::progress;
use super::run::{self, inspected};
use super::stats;
use super::streams::Output;
use crate::attach::Terminal;
use crate::commands::parse_named;
use crate::render::{self, Usage};
use crate::template::Template;
use crate::times;

/// Commands that are about this program, its host or its own store. Everything else that is not below
/// is one of them too.
pub(crate) const UNAVAILABLE: &str = "is not available at a daemon";

/// Names of containers.
#[derive(Debug, Args)]
struct Names {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
struct StopArgs {
    /// Seconds before the container is killed (default 10)
    #[arg(short, long, alias = "timeout", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Signal that asks it to stop (default: the image's, or TERM)
    #[arg(short, long)]
    signal: Option<String>,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
struct KillArgs {
    /// Signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// Kill running containers
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
struct RenameArgs {
    /// Container, by name or id
    container: String,
    /// New name
    name: String,
}

#[derive(Debug, Args)]
struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only what was written since then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written until then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only so many lines from the end (default all)
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// Show what the log driver records beside each line
    #[arg(long)]
    details: bool,
    /// Container, by name or id
    container: String,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Print with a template such as {{.State.Pid}}, or json
    #[arg(short, long)]
    format: Option<String>,
    /// What is meant: container, image, network or volume (default: the first of these that is found)
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Show how much a container has written
    #[arg(short, long)]
    size: bool,
    /// Objects, by name or id
    #[arg(required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct TopArgs {
    /// Container, by name or id, then options of ps(1)
    #[arg(
        value_names = ["CONTAINER", "OPTIONS"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    container_and_options: Vec<String>,
}

#[derive(Debug, Args)]
struct EventsArgs {
    /// Show what has happened since then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what fits: KEY=VALUE (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Action}}, or json
    #[arg(long)]
    format: Option<String>,
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// Print with a template, or json
    #[arg(short, long)]
    format: Option<String>,
}

/// Runs the command that the words name at a daemon. A command that no daemon has is refused before
/// anybody is asked.
pub(crate) async fn dispatch(
    connect: impl AsyncFnOnce() -> anyhow::Result<Client>,
    command: &str,
    rest: &[&str],
) -> anyhow::Result<u8> {
    let (name, rest) = spelled(command, rest)?;
    macro_rules! at {
        ($run:expr) => {{
            let args = parse_named(&name, "", rest)?;
            Box::pin($run(&connect().await?, &args)).await
        }};
    }
    match name.as_str() {
        "run" => at!(run::run),
        "create" => at!(run::create_only),
        "start" => at!(run::start),
        "attach" => at!(run::attach),
        "exec" => at!(run::exec),
        "ps" => at!(lists::ps),
        "images" => at!(lists::images),
        "stop" => at!(stop),
        "restart" => at!(restart),
        "kill" => at!(kill),
        "pause" => at!(pause),
        "unpause" => at!(unpause),
        "rm" => at!(rm),
        "rename" => at!(rename),
        "wait" => at!(wait),
        "logs" => at!(logs),
        "inspect" => at!(inspect),
        "top" => at!(top),
        "stats" => at!(stats::stats),
        "cp" => at!(copy::cp),
        "diff" => at!(diff),
        "export" => at!(export),
        "events" => at!(events),
        "info" => at!(info),
        "version" => at!(version),
        "pull" => at!(images::pull),
        "push" => at!(images::push),
        "tag" => at!(images::tag),
        "rmi" => at!(images::rmi),
        "load" => at!(images::load),
        "save" => at!(images::save),
        "build" => at!(copy::build),
        "network ls" => at!(lists::networks),
        "network create" => at!(objects::create_network),
        "network rm" => at!(objects::remove_networks),
        "network inspect" => at!(inspect_networks),
        "network connect" => at!(objects::connect_network),
        "network disconnect" => at!(objects::disconnect_network),
        "volume ls" => at!(lists::volumes),
        "volume create" => at!(objects::create_volume),
        "volume rm" => at!(objects::remove_volumes),
        "volume inspect" => at!(inspect_volumes),
        _ => Err(Usage(format!(
            "`{name}` {UNAVAILABLE}: it is about this host (`--host local` means it)"
        ))
        .into()),
    }
}

/// The one spelling of a command, and what comes after it.
fn spelled<'a, 'b>(command: &str, rest: &'a [&'b str]) -> anyhow::Result<(String, &'a [&'b str])> {
    if !["container", "image", "network", "volume", "system"].contains(&command) {
        return Ok((command.to_owned(), rest));
    }
    let Some((verb, rest)) = rest.split_first() else {
        return Err(Usage(format!(
            "`{command}` needs a command, such as `{command} ls`"
        ))
        .into());
    };
    let verb = match *verb {
        "list" => "ls",
        "remove" => "rm",
        verb => verb,
    };
    let name = match (command, verb) {
        ("container", "ls" | "ps") => "ps".to_owned(),
        ("image", "ls") => "images".to_owned(),
        ("image", "rm") => "rmi".to_owned(),
        ("container", "prune") | ("image", "prune") => format!("{command} {verb}"),
        ("container" | "image", verb) | ("system", verb @ ("info" | "events")) => verb.to_owned(),
        _ => format!("{command} {verb}"),
    };
    Ok((name, rest))
}

/// Does something to each and prints its name; goes on after a failure. The exit code is 1 then.
pub(crate) async fn each(
    names: &[String],
    mut operation: impl AsyncFnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let mut code = 0;
    for name in names {
        match operation(name).await {
            Ok(()) => render::print(name)?,
            Err(error) => {
                render::report(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn of_container(name: &str, verb: &str) -> String {
    format!("/containers/{}/{verb}", encoded(name))
}

async fn ended(client: &Client, args: &StopArgs, verb: &str) -> anyhow::Result<u8> {
    let time = args.time.map(|time| time.to_string());
    let mut query = Vec::new();
    query.extend(time.as_deref().map(|time| ("t", time)));
    query.extend(args.signal.as_deref().map(|signal| ("signal", signal)));
    each(&args.containers, async |name| {
        client
            .done(Ask::post(with_query(&of_container(name, verb), &query)))
            .await
    })
    .await
}

async fn stop(client: &Client, args: &StopArgs) -> anyhow::Result<u8> {
    ended(client, args, "stop").await
}

async fn restart(client: &Client, args: &StopArgs) -> anyhow::Result<u8> {
    ended(client, args, "restart").await
}

async fn kill(client: &Client, args: &KillArgs) -> anyhow::Result<u8> {
    each(&args.containers, async |name| {
        let path = with_query(&of_container(name, "kill"), &[("signal", &args.signal)]);
        client.done(Ask::post(path)).await
    })
    .await
}

async fn pause(client: &Client, args: &Names) -> anyhow::Result<u8> {
    each(&args.containers, async |name| {
        client.done(Ask::post(of_container(name, "pause"))).await
    })
    .await
}

async fn unpause(client: &Client, args: &Names) -> anyhow::Result<u8> {
    each(&args.containers, async |name| {
        client.done(Ask::post(of_container(name, "unpause"))).await
    })
    .await
}

async fn rm(client: &Client, args: &RmArgs) -> anyhow::Result<u8> {
    let query = [
        ("force", if args.force { "1" } else { "0" }),
        ("v", if args.volumes { "1" } else { "0" }),
    ];
    each(&args.containers, async |name| {
        let path = with_query(&format!("/containers/{}", encoded(name)), &query);
        client.done(Ask::delete(path)).await
    })
    .await
}

async fn rename(client: &Client, args: &RenameArgs) -> anyhow::Result<u8> {
    let path = with_query(
        &of_container(&args.container, "rename"),
        &[("name", &args.name)],
    );
    client.done(Ask::post(path)).await?;
    Ok(0)
}

async fn wait(client: &Client, args: &Names) -> anyhow::Result<u8> {
    for name in &args.containers {
        let value = client.value(Ask::post(of_container(name, "wait"))).await?;
        let code = value["StatusCode"].as_i64();
        let code = code.context("the daemon does not say how it ended")?;
        render::print(&code.to_string())?;
    }
    Ok(0)
}

/// A time as seconds and nanoseconds since 1970.
fn moment(text: &str) -> anyhow::Result<String> {
    let at = times::nanoseconds(text)?;
    Ok(format!("{}.{:09}", at / 1_000_000_000, at % 1_000_000_000))
}

async fn logs(client: &Client, args: &LogsArgs) -> anyhow::Result<u8> {
    let record = inspected(client, &args.container).await?;
    let terminal = Terminal::given(record["Config"]["Tty"] == true);
    let since = args.since.as_deref().map(moment).transpose()?;
    let until = args.until.as_deref().map(moment).transpose()?;
    let mut query = vec![
        ("stdout", "1"),
        ("stderr", "1"),
        ("tail", args.tail.as_str()),
    ];
    query.extend(args.follow.then_some(("follow", "1")));
    query.extend(args.timestamps.then_some(("timestamps", "1")));
    query.extend(args.details.then_some(("details", "1")));
    query.extend(since.as_deref().map(|since| ("since", since)));
    query.extend(until.as_deref().map(|until| ("until", until)));
    let path = with_query(&of_container(&args.container, "logs"), &query);
    let mut body = client.ask(Ask::get(path)).await?.into_body();
    let mut output = Output::new(terminal);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the connection to the daemon is broken")?;
        if let Ok(bytes) = frame.into_data() {
            output.write(&bytes)?;
        }
    }
    Ok(0)
}

/// Where objects of a kind are.
fn object_path(kind: &str, name: &str) -> Option<String> {
    if kind == "image" {
        return Some(of_image(name, "/json"));
    }
    let name = encoded(name);
    Some(match kind {
        "container" => format!("/containers/{name}/json"),
        "network" => format!("/networks/{name}"),
        "volume" => format!("/volumes/{name}"),
        _ => return None,
    })
}

async fn inspect(client: &Client, args: &InspectArgs) -> anyhow::Result<u8> {
    let kinds = match args.kind.as_deref() {
        None => vec!["container", "image", "network", "volume"],
        Some(kind) => vec![kind],
    };
    let mut records = Vec::new();
    let mut code = 0;
    for name in &args.names {
        match found(client, &kinds, name, args.size).await {
            Ok(record) => records.push(record),
            Err(error) => {
                render::report(&error);
                code = 1;
            }
        }
    }
    shown(&records, args.format.as_deref())?;
    Ok(code)
}

async fn found(
    client: &Client,
    kinds: &[&str],
    name: &str,
    with_size: bool,
) -> anyhow::Result<Value> {
    for kind in kinds {
        let path = object_path(kind, name);
        let path = path.ok_or_else(|| {
            Usage(format!(
                "cannot use --type `{kind}`: it is container, image, network or volume"
            ))
        })?;
        let path = match with_size && *kind == "container" {
            true => with_query(&path, &[("size", "1")]),
            false => path,
        };
        match client.value(Ask::get(path)).await {
            Err(error) if status_of(&error) == Some(http::StatusCode::NOT_FOUND) => {}
            // What can be no name of one kind may be one of another.
            Err(error)
                if status_of(&error) == Some(http::StatusCode::BAD_REQUEST) && kinds.len() > 1 => {}
            value => return value,
        }
    }
    anyhow::bail!("no such object: {name}")
}

/// Records as a list, or each with a template.
fn shown(records: &[Value], format: Option<&str>) -> anyhow::Result<()> {
    let Some(format) = format else {
        render::print(&serde_json::to_string_pretty(records)?)?;
        return Ok(());
    };
    if format.trim() == "json" {
        render::print(&serde_json::to_string(records)?)?;
        return Ok(());
    }
    let template = Template::parse(format)?;
    for record in records {
        render::print(&template.render(record)?)?;
    }
    Ok(())
}

async fn inspect_of(client: &Client, kind: &str, args: &InspectArgs) -> anyhow::Result<u8> {
    let mut records = Vec::new();
    for name in &args.names {
        records.push(found(client, &[kind], name, false).await?);
    }
    shown(&records, args.format.as_deref())?;
    Ok(0)
}

async fn inspect_networks(client: &Client, args: &InspectArgs) -> anyhow::Result<u8> {
    inspect_of(client, "network", args).await
}

async fn inspect_volumes(client: &Client, args: &InspectArgs) -> anyhow::Result<u8> {
    inspect_of(client, "volume", args).await
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.map(|text| render::clean(text.as_str().unwrap_or_default()))
        .collect()
}

async fn top(client: &Client, args: &TopArgs) -> anyhow::Result<u8> {
    let (name, options) = crate::commands::split_name(&args.container_and_options)?;
    let options = options.join(" ");
    let query: Vec<_> = (!options.is_empty())
        .then_some(("ps_args", options.as_str()))
        .into_iter()
        .collect();
    let value = client
        .value(Ask::get(with_query(&of_container(name, "top"), &query)))
        .await?;
    let titles = strings(&value["Titles"]);
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let rows = value["Processes"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = rows.map(strings).collect();
    render::table(&titles, &rows)?;
    Ok(0)
}

async fn diff(client: &Client, args: &Names) -> anyhow::Result<u8> {
    for name in &args.containers {
        let list = client
            .value(Ask::get(of_container(name, "changes")))
            .await?;
        for change in list.as_array().into_iter().flatten() {
            let kind = match change["Kind"].as_u64() {
                Some(1) => "A",
                Some(2) => "D",
                _ => "C",
            };
            let path = change["Path"].as_str().unwrap_or_default();
            render::print(&format!("{kind} {}", render::clean(path)))?;
        }
    }
    Ok(0)
}

async fn export(client: &Client, args: &Names) -> anyhow::Result<u8> {
    let [name] = args.containers.as_slice() else {
        return Err(Usage("one container is exported at a time".to_owned()).into());
    };
    to_stdout(client.ask(Ask::get(of_container(name, "export"))).await?).await?;
    Ok(0)
}

async fn events(client: &Client, args: &EventsArgs) -> anyhow::Result<u8> {
    let template = match args.format.as_deref() {
        None | Some("json" | "{{json .}}") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let filters = lists::filters(&args.filter)?;
    let since = args.since.as_deref().map(moment).transpose()?;
    let until = args.until.as_deref().map(moment).transpose()?;
    let mut query = Vec::new();
    query.extend(since.as_deref().map(|since| ("since", since)));
    query.extend(until.as_deref().map(|until| ("until", until)));
    query.extend(filters.as_deref().map(|filters| ("filters", filters)));
    let response = client.ask(Ask::get(with_query("/events", &query))).await?;
    progress::objects(response, |event| {
        let line = match (&template, args.format.is_some()) {
            (Some(template), _) => template.render(event)?,
            (None, true) => event.to_string(),
            (None, false) => event_line(event),
        };
        render::print(&line)?;
        Ok(())
    })
    .await?;
    Ok(0)
}

fn event_line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten();
    let attributes: Vec<String> = attributes
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    let time = event["timeNano"]
        .as_i64()
        .map(state::clock::from_nanoseconds);
    render::clean(&format!(
        "{} {} {} {} ({})",
        time.unwrap_or_default(),
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"]),
        attributes.join(", ")
    ))
}

async fn info(client: &Client, args: &FormatArgs) -> anyhow::Result<u8> {
    let value = client.value(Ask::get("/info")).await?;
    if let Some(format) = &args.format {
        shown_one(&value, format)?;
        return Ok(0);
    }
    render::print(&format!("Daemon: {}", client.endpoint()))?;
    for key in [
        "Name",
        "ServerVersion",
        "Containers",
        "ContainersRunning",
        "Images",
        "Driver",
        "CgroupVersion",
        "KernelVersion",
        "OperatingSystem",
        "Architecture",
        "NCPU",
        "MemTotal",
        "DockerRootDir",
    ] {
        let text = match &value[key] {
            Value::Null => continue,
            Value::String(text) => render::clean(text),
            other => other.to_string(),
        };
        render::print(&format!("{key}: {text}"))?;
    }
    for warning in strings(&value["Warnings"]) {
        render::line(&format!("ketch: {warning}"));
    }
    Ok(0)
}

fn shown_one(value: &Value, format: &str) -> anyhow::Result<()> {
    if format.trim() == "json" {
        render::print(&value.to_string())?;
        return Ok(());
    }
    render::print(&Template::parse(format)?.render(value)?)?;
    Ok(())
}

async fn version(client: &Client, args: &FormatArgs) -> anyhow::Result<u8> {
    let server = client.value(Ask::get("/version")).await?;
    let own = env!("CARGO_PKG_VERSION");
    if let Some(format) = &args.format {
        let side = json!({
            "Version": own, "Os": "linux", "Arch": image::Platform::host().architecture(),
            "ApiVersion": client.version(),
        });
        shown_one(&json!({ "Client": side, "Server": server }), format)?;
        return Ok(0);
    }
    let text = |key: &str| render::clean(server[key].as_str().unwrap_or_default());
    render::print(&format!("ketch {own}"))?;
    render::print(&format!(
        "daemon at {}: {} {} (API {}, spoken {})",
        client.endpoint(),
        render::clean(server["Platform"]["Name"].as_str().unwrap_or_default()),
        text("Version"),
        text("ApiVersion"),
        client.version(),
    ))?;
    Ok(0)
}
