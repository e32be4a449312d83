//! `run`, `create`, `start`, `attach` and `exec` at a daemon.

use anyhow::Context as _;
use clap::Args;
use http::StatusCode;
use serde_json::{Value, json};

use super::client::{Ask, Client, encoded, status_of, whole, with_query};
use super::commands::each;
use super::progress::Shown;
use super::spec::SpecArgs;
use super::streams::{Foreground, StreamEnd, Target};
use crate::attach::{self, SignalProxy, Terminal};
use crate::commands::{ForegroundArgs, detach_keys, environment, split_name};
use crate::render::{self, Usage};
use engine::{DEFAULT_DETACH_KEYS, DetachKeys};

/// Options of `run` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Go on in the background and print the id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    foreground: ForegroundArgs,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Options of `start` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Join standard output and error, and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Join standard input as well
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    foreground: ForegroundArgs,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Options of `attach` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not join standard input
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    foreground: ForegroundArgs,
    /// Container, by name or id
    container: String,
}

/// Options of `exec` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Go on in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or take it over from this environment (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// User, by name or number (default: the container's)
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory (default: the container's)
    #[arg(short, long)]
    workdir: Option<String>,
    /// Give the program every capability
    #[arg(long)]
    privileged: bool,
    /// Keys that leave the terminal, such as ctrl-p,ctrl-q
    #[arg(long, default_value = DEFAULT_DETACH_KEYS, value_name = "KEYS")]
    detach_keys: String,
    /// Container, by name or id, then the command and its arguments
    #[arg(
        value_names = ["CONTAINER", "COMMAND"],
        num_args = 2..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    container_and_command: Vec<String>,
}

/// When the exit code of a container is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    NextExit,
    Removed,
    NotRunning,
}

impl Until {
    fn condition(self) -> &'static str {
        match self {
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
            Self::NotRunning => "not-running",
        }
    }
}

/// Creates a container; its image is fetched first where that is wanted. Gives its id.
async fn created(client: &Client, spec: &SpecArgs, attached: bool) -> anyhow::Result<String> {
    if !["always", "missing", "never"].contains(&spec.pull.as_str()) {
        let text = format!(
            "cannot use --pull `{}`: it is always, missing or never",
            spec.pull
        );
        return Err(Usage(text).into());
    }
    let body = spec.body(attached)?;
    if spec.pull == "always" {
        pull(client, spec).await?;
    }
    let answer = match create(client, spec, &body).await {
        Err(error) if spec.pull == "missing" && is_no_image(&error) => {
            pull(client, spec).await?;
            create(client, spec, &body).await?
        }
        answer => answer?,
    };
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        let text = warning.as_str().unwrap_or_default();
        render::line(&format!("ketch: warning: {}", render::clean(text)));
    }
    let id = answer["Id"].as_str();
    Ok(id.context("the daemon gives no id")?.to_owned())
}

fn is_no_image(error: &anyhow::Error) -> bool {
    status_of(error) == Some(StatusCode::NOT_FOUND)
        && error
            .to_string()
            .to_ascii_lowercase()
            .contains("no such image")
}

async fn create(client: &Client, spec: &SpecArgs, body: &Value) -> anyhow::Result<Value> {
    let mut query = Vec::new();
    query.extend(spec.name.as_deref().map(|name| ("name", name)));
    query.extend(spec.platform.as_deref().map(|text| ("platform", text)));
    let path = with_query("/containers/create", &query);
    client.value(Ask::post(path).json(body)).await
}

async fn pull(client: &Client, spec: &SpecArgs) -> anyhow::Result<()> {
    let image = spec.image();
    render::line(&format!("ketch: pulling `{}`", render::clean(image)));
    super::images::pull_image(client, image, spec.platform.as_deref(), Shown::Progress).await
}

/// `create`.
pub(crate) async fn create_only(client: &Client, spec: &SpecArgs) -> anyhow::Result<u8> {
    let id = created(client, spec, true).await?;
    render::print(&id)?;
    Ok(0)
}

/// `run`.
pub(crate) async fn run(client: &Client, args: &RunArgs) -> anyhow::Result<u8> {
    let keys = args.foreground.keys()?;
    let spec = &args.spec;
    let id = created(client, spec, !args.detach).await?;
    if args.detach {
        start_one(client, &id).await?;
        render::print(&id)?;
        return Ok(0);
    }
    let until = if spec.rm {
        Until::Removed
    } else {
        Until::NextExit
    };
    let stand = Stand {
        client,
        id,
        terminal: Terminal::given(spec.tty),
        stdin: spec.interactive,
        proxy: args.foreground.proxy(),
        keys,
    };
    stand.start_and_stay(until).await
}

async fn start_one(client: &Client, id: &str) -> anyhow::Result<()> {
    client
        .done(Ask::post(format!("/containers/{}/start", encoded(id))))
        .await
}

/// A person at a container.
struct Stand<'a> {
    client: &'a Client,
    id: String,
    terminal: Terminal,
    stdin: bool,
    proxy: SignalProxy,
    keys: DetachKeys,
}

impl<'a> Stand<'a> {
    async fn joined(&self) -> anyhow::Result<hyper::upgrade::Upgraded> {
        let stdin = if self.stdin { "1" } else { "0" };
        let query = [
            ("stream", "1"),
            ("stdin", stdin),
            ("stdout", "1"),
            ("stderr", "1"),
        ];
        let path = format!("/containers/{}/attach", encoded(&self.id));
        self.client
            .hijack(Ask::post(with_query(&path, &query)))
            .await
    }

    /// Asks for the end before it can come.
    async fn waiting(&self, until: Until) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let path = format!("/containers/{}/wait", encoded(&self.id));
        let path = with_query(&path, &[("condition", until.condition())]);
        self.client.ask(Ask::post(path)).await
    }

    fn foreground(&self, signals: std::os::fd::OwnedFd) -> Foreground<'a> {
        Foreground {
            client: self.client,
            target: Target::Container(self.id.clone()),
            terminal: self.terminal,
            stdin: self.stdin,
            signals,
            keys: self.keys.clone(),
        }
    }

    /// Joins the streams, starts the container, and stays until it ends.
    async fn start_and_stay(self, until: Until) -> anyhow::Result<u8> {
        let signals = attach::block_signals(self.proxy).context("cannot take signals")?;
        let upgraded = self.joined().await?;
        let waiting = self.waiting(until).await?;
        start_one(self.client, &self.id).await?;
        self.stay(upgraded, waiting, signals).await
    }

    /// Joins the streams of a container that runs.
    async fn stay_at_running(self) -> anyhow::Result<u8> {
        let signals = attach::block_signals(self.proxy).context("cannot take signals")?;
        let waiting = self.waiting(Until::NotRunning).await?;
        let upgraded = self.joined().await?;
        self.stay(upgraded, waiting, signals).await
    }

    async fn stay(
        self,
        upgraded: hyper::upgrade::Upgraded,
        waiting: http::Response<hyper::body::Incoming>,
        signals: std::os::fd::OwnedFd,
    ) -> anyhow::Result<u8> {
        let foreground = self.foreground(signals);
        foreground.resize().await;
        match foreground.serve(upgraded).await? {
            StreamEnd::Closed => exit_code(waiting).await,
            StreamEnd::Detached => {
                let id = render::clean(&self.id);
                render::line(&format!("ketch: detached; container `{id}` goes on"));
                Ok(0)
            }
            StreamEnd::OutputClosed => Ok(attach::OUTPUT_CLOSED),
        }
    }
}

/// What a wait says.
async fn exit_code(waiting: http::Response<hyper::body::Incoming>) -> anyhow::Result<u8> {
    let bytes = whole(waiting).await?;
    let value: Value = serde_json::from_slice(&bytes).context("cannot read the daemon's answer")?;
    if let Some(text) = value["Error"]["Message"]
        .as_str()
        .filter(|text| !text.is_empty())
    {
        render::line(&format!("ketch: {}", render::clean(text)));
    }
    let code = value["StatusCode"]
        .as_i64()
        .context("the daemon does not say how it ended")?;
    // As a shell sees it.
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// A container as the daemon shows it.
pub(crate) async fn inspected(client: &Client, name: &str) -> anyhow::Result<Value> {
    client
        .value(Ask::get(format!("/containers/{}/json", encoded(name))))
        .await
}

fn terminal_of(record: &Value) -> Terminal {
    Terminal::given(record["Config"]["Tty"] == true)
}

/// `start`.
pub(crate) async fn start(client: &Client, args: &StartArgs) -> anyhow::Result<u8> {
    if !args.attach && !args.interactive {
        return each(&args.containers, async |name| start_one(client, name).await).await;
    }
    let [name] = args.containers.as_slice() else {
        return Err(Usage("only one container can be attached to".to_owned()).into());
    };
    let record = inspected(client, name).await?;
    if record["State"]["Running"] == true {
        anyhow::bail!("cannot start `{name}`: it runs already");
    }
    let until = match record["HostConfig"]["AutoRemove"] == true {
        true => Until::Removed,
        false => Until::NextExit,
    };
    let stand = Stand {
        client,
        id: name.clone(),
        terminal: terminal_of(&record),
        stdin: args.interactive && record["Config"]["OpenStdin"] == true,
        proxy: args.foreground.proxy(),
        keys: args.foreground.keys()?,
    };
    stand.start_and_stay(until).await
}

/// `attach`.
pub(crate) async fn attach(client: &Client, args: &AttachArgs) -> anyhow::Result<u8> {
    let record = inspected(client, &args.container).await?;
    if record["State"]["Running"] != true {
        anyhow::bail!("cannot attach to `{}`: it does not run", args.container);
    }
    let stand = Stand {
        client,
        id: args.container.clone(),
        terminal: terminal_of(&record),
        stdin: !args.no_stdin && record["Config"]["OpenStdin"] == true,
        proxy: args.foreground.proxy(),
        keys: args.foreground.keys()?,
    };
    stand.stay_at_running().await
}

/// `exec`.
pub(crate) async fn exec(client: &Client, args: &ExecArgs) -> anyhow::Result<u8> {
    let (name, command) = split_name(&args.container_and_command)?;
    let keys = detach_keys(&args.detach_keys)?;
    let mut body = json!({
        "AttachStdin": args.interactive && !args.detach,
        "AttachStdout": !args.detach,
        "AttachStderr": !args.detach,
        "Tty": args.tty,
        "Env": environment(&args.env_file, &args.env)?,
        "Cmd": command,
        "Privileged": args.privileged,
        "User": args.user.as_deref().unwrap_or_default(),
        "WorkingDir": args.workdir.as_deref().unwrap_or_default(),
    });
    let size = attach::console();
    if args.tty && size.rows > 0 {
        body["ConsoleSize"] = json!([size.rows, size.columns]);
    }
    let path = format!("/containers/{}/exec", encoded(name));
    let made = client.value(Ask::post(path).json(&body)).await?;
    let id = made["Id"]
        .as_str()
        .context("the daemon gives no id")?
        .to_owned();
    let begin = Ask::post(format!("/exec/{id}/start"));
    let begin = begin.json(&json!({ "Detach": args.detach, "Tty": args.tty }));
    if args.detach {
        client.done(begin).await?;
        return Ok(0);
    }
    let signals = attach::block_signals(SignalProxy::Off).context("cannot take signals")?;
    let upgraded = client.hijack(begin).await?;
    let foreground = Foreground {
        client,
        target: Target::Exec(id.clone()),
        terminal: Terminal::given(args.tty),
        stdin: args.interactive,
        signals,
        keys,
    };
    match foreground.serve(upgraded).await? {
        StreamEnd::Closed => {}
        StreamEnd::Detached => return Ok(0),
        StreamEnd::OutputClosed => return Ok(attach::OUTPUT_CLOSED),
    }
    let record = client.value(Ask::get(format!("/exec/{id}/json"))).await?;
    let code = record["ExitCode"].as_i64();
    let code = code.context("the daemon does not say how the program ended")?;
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
