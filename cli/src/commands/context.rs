//! `ketch context`: the daemons that have a name, in docker's store.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use sys::durable::{Durability, replace_file};

use super::{Invocation, parse_named};
use crate::format::{Field, Format, Row};
use crate::remote::{self, Context, DEFAULT, Endpoint};
use crate::render::{self, Usage};
use crate::template::Template;

const COMMANDS: [(&str, &str); 7] = [
    ("create", "Give a daemon a name"),
    ("use", "Use a context from now on"),
    ("ls", "List contexts"),
    ("rm", "Forget contexts"),
    ("inspect", "Show everything about contexts"),
    ("export", "Write a context to an archive"),
    ("import", "Take a context from an archive"),
];

const FIELDS: [Field; 4] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Current", "CURRENT"),
];

/// Runs the subcommand that the arguments name.
pub(crate) fn context(context: &Invocation, args: &[&str]) -> anyhow::Result<u8> {
    let Some((command, rest)) = args.split_first() else {
        return super::group_help("context", &COMMANDS);
    };
    let own = COMMANDS.iter().find(|(name, _)| name == command);
    let about = own.map_or("", |(_, about)| about);
    let name = format!("context {command}");
    match *command {
        "create" => create(context, &parse_named(&name, about, rest)?),
        "use" => choose(context, &parse_named(&name, about, rest)?),
        "ls" | "list" => ls(context, &parse_named(&name, about, rest)?),
        "rm" | "remove" => rm(context, &parse_named(&name, about, rest)?),
        "inspect" => inspect(context, &parse_named(&name, about, rest)?),
        "export" => export(context, &parse_named(&name, about, rest)?),
        "import" => import(context, &parse_named(&name, about, rest)?),
        "--help" | "-h" | "help" => super::group_help("context", &COMMANDS),
        other => {
            let text = format!("`context {other}` is not a command (see `ketch context --help`)");
            Err(Usage(text).into())
        }
    }
}

/// Options of `context create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// What it is
    #[arg(long, default_value = "")]
    description: String,
    /// The daemon: `host=unix://PATH`, `tcp://HOST:PORT` or `ssh://[USER@]HOST[:PORT]`, then ca=FILE, cert=FILE and key=FILE for TLS
    #[arg(long, value_name = "host=ADDRESS[,…]")]
    docker: String,
    /// Name
    name: String,
}

/// Arguments of `context use`.
#[derive(Debug, Args)]
struct UseArgs {
    /// Name; default means this host
    name: String,
}

/// Options of `context ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// Print with a template such as {{.Name}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `context rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// Also the one that is used
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Options of `context inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// Print with a template such as {{.Name}}
    #[arg(short, long)]
    format: Option<String>,
    /// Names (default: the one that is used)
    names: Vec<String>,
}

/// Arguments of `context export`.
#[derive(Debug, Args)]
struct ExportArgs {
    /// Name
    name: String,
    /// Archive, or - for standard output (default: NAME.dockercontext)
    file: Option<PathBuf>,
}

/// Arguments of `context import`.
#[derive(Debug, Args)]
struct ImportArgs {
    /// Name
    name: String,
    /// Archive, or - for standard input
    file: PathBuf,
}

fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    let mut host = None;
    let mut tls = Vec::new();
    for part in args.docker.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let file = match key {
            "host" => {
                host = Some(value.parse::<Endpoint>()?);
                continue;
            }
            "ca" => "ca.pem",
            "cert" => "cert.pem",
            "key" => "key.pem",
            _ => {
                let text =
                    format!("cannot use --docker `{part}`: there are host, ca, cert and key");
                return Err(Usage(text).into());
            }
        };
        let bytes = std::fs::read(value).with_context(|| format!("cannot read `{value}`"))?;
        tls.push((file.to_owned(), bytes));
    }
    let host = host.ok_or_else(|| Usage("--docker needs host=ADDRESS".to_owned()))?;
    if !tls.is_empty() && tls.len() != 3 {
        return Err(Usage("TLS needs all of ca, cert and key".to_owned()).into());
    }
    let made = Context::new(&args.name, &args.description, &host)?;
    remote::contexts(&context.settings)?.add(&made, &tls)?;
    render::print(&args.name)?;
    Ok(0)
}

fn choose(context: &Invocation, args: &UseArgs) -> anyhow::Result<u8> {
    // The directory of the choice is made with the root.
    context.places()?;
    remote::contexts(&context.settings)?.set_current(&args.name)?;
    render::print(&args.name)?;
    Ok(0)
}

fn ls(context: &Invocation, args: &LsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let contexts = remote::contexts(&context.settings)?;
    let current = contexts.current()?.unwrap_or_else(|| DEFAULT.to_owned());
    let row = |name: &str, description: &str, host: &str| {
        Row::new([
            ("Name", name.to_owned()),
            ("Description", description.to_owned()),
            ("DockerEndpoint", host.to_owned()),
            ("Current", if name == current { "*" } else { "" }.to_owned()),
        ])
    };
    let mut rows = vec![row(DEFAULT, "This host", "")];
    let all = contexts.list()?;
    rows.extend(
        all.iter()
            .map(|one| row(&one.name, one.description(), one.host())),
    );
    if args.quiet {
        for row in &rows {
            render::print(
                row.fields
                    .get("Name")
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            )?;
        }
        return Ok(0);
    }
    format.print(
        &FIELDS,
        &["Name", "Description", "DockerEndpoint", "Current"],
        &rows,
    )?;
    Ok(0)
}

fn rm(context: &Invocation, args: &RmArgs) -> anyhow::Result<u8> {
    let contexts = remote::contexts(&context.settings)?;
    let current = contexts.current()?;
    let mut code = 0;
    for name in &args.names {
        let is_used = current.as_ref() == Some(name);
        let removed = match is_used && !args.force {
            true => Err(anyhow::anyhow!(
                "cannot remove the context `{name}`: it is the one that is used (--force removes it all the same)"
            )),
            false => contexts.remove(name),
        };
        match removed {
            Ok(()) => {
                if is_used {
                    contexts.set_current(DEFAULT)?;
                }
                render::print(name)?;
            }
            Err(error) => {
                render::report(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let contexts = remote::contexts(&context.settings)?;
    let mut names = args.names.clone();
    if names.is_empty() {
        names.push(contexts.current()?.unwrap_or_else(|| DEFAULT.to_owned()));
    }
    let record = |name: &String| -> anyhow::Result<Value> {
        if name == DEFAULT {
            return Ok(
                json!({ "Name": DEFAULT, "Metadata": {}, "Endpoints": {}, "TLSMaterial": {} }),
            );
        }
        let mut record = contexts.get(name)?.meta;
        let files: &[&str] = match contexts.tls(name) {
            Some(_) => &["ca.pem", "cert.pem", "key.pem"],
            None => &[],
        };
        record["TLSMaterial"] = match files.is_empty() {
            true => json!({}),
            false => json!({ "docker": files }),
        };
        record["Storage"] = contexts.storage(name);
        Ok(record)
    };
    let records = names
        .iter()
        .map(record)
        .collect::<anyhow::Result<Vec<_>>>()?;
    match &args.format {
        None => render::print(&serde_json::to_string_pretty(&records)?)?,
        Some(text) => {
            let template = Template::parse(text)?;
            for record in &records {
                render::print(&template.render(record)?)?;
            }
        }
    }
    Ok(0)
}

fn export(context: &Invocation, args: &ExportArgs) -> anyhow::Result<u8> {
    let contexts = remote::contexts(&context.settings)?;
    let mut archive = Vec::new();
    contexts.export(&args.name, &mut archive)?;
    let default = || PathBuf::from(format!("{}.dockercontext", args.name));
    let path = args.file.clone().unwrap_or_else(default);
    if path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Usage("an archive does not go to a terminal".to_owned()).into());
        }
        io::Write::write_all(&mut io::stdout().lock(), &archive)?;
        return Ok(0);
    }
    if path.exists() {
        anyhow::bail!("cannot write `{}`: it is there already", path.display());
    }
    replace_file(&std::path::absolute(&path)?, &archive, Durability::Synced)
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    render::print(&path.display().to_string())?;
    Ok(0)
}

fn import(context: &Invocation, args: &ImportArgs) -> anyhow::Result<u8> {
    let contexts = remote::contexts(&context.settings)?;
    if args.file.as_os_str() == "-" {
        contexts.import(&args.name, io::stdin().lock())?;
    } else {
        let file = File::open(&args.file)
            .with_context(|| format!("cannot read `{}`", args.file.display()))?;
        contexts.import(&args.name, file)?;
    }
    render::print(&args.name)?;
    Ok(0)
}
