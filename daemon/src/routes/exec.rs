//! Streams of containers and of further programs in them: attach, exec, sizes of terminals.

use std::sync::Arc;

use engine::{
    BadDetachKeys, DEFAULT_DETACH_KEYS, DetachKeys, EngineError, ExecOptions, Privilege, Wanted,
};
use http::StatusCode;
use runtime::{Console, LineEnds, Request};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::attaches::{Again, Attached};
use crate::body::BodyWriter;
use crate::call::{Call, Reply, json as json_reply, ok, read, status};
use crate::daemon::Daemon;
use crate::error::ApiError;
use crate::execs::{Exec, Phase};
use crate::streams::{
    Framing, Input, LogQuery, Output, Passing, STDOUT, frame, hijack, pump, watch_end, write_log,
};
use crate::wire::create::words;
use crate::wire::messages;

/// How many sizes wait for a terminal.
const SIZES: usize = 8;

/// `POST /containers/{id}/attach`.
pub(crate) async fn attach(call: Call, id: &str) -> Reply {
    let query = &call.query;
    let (logs, stream) = (query.is_set("logs"), query.is_set("stream"));
    let asked = Wanted {
        stdin: query.is_set("stdin"),
        stdout: query.is_set("stdout"),
        stderr: query.is_set("stderr"),
    };
    let daemon = call.daemon.clone();
    let name = id.to_owned();
    let found = daemon.run(move |engine| {
        let container = engine.container(&name)?;
        if container.state.status == state::Status::Paused {
            return Err(ApiError::conflict(format!(
                "container {name} is paused, unpause the container before attach"
            )));
        }
        let kinds = engine.streams_of(&container)?;
        Ok((container, kinds))
    });
    let (container, kinds) = found.await?;
    let wanted = Wanted {
        stdin: asked.stdin && kinds.interactive && stream,
        stdout: asked.stdout || (kinds.terminal && asked.stderr),
        stderr: asked.stderr && !kinds.terminal,
    };
    let framing = Framing::of(kinds.terminal);
    let kind = framing.kind(call.version);
    let keys = detach_keys(call.query.get("detachKeys"), kinds.terminal)?;
    // Before the answer: the client's next request may be the start.
    let live = match (stream, container.is_running()) {
        (false, _) => None,
        (true, false) => {
            let waiting = daemon.attaches.wait(&container.config.id, wanted);
            let too_many = || ApiError::conflict("too many clients wait for the container's start");
            Some(Live::Waits(waiting.ok_or_else(too_many)?))
        }
        (true, true) => {
            let running = container.clone();
            let attached = daemon.run(move |engine| {
                let session = engine.connect(&running)?;
                let streams = session.attach(wanted)?;
                session.watch()?;
                Ok(Attached {
                    session,
                    streams,
                    again: None,
                })
            });
            Some(Live::Runs(Box::new(attached.await?)))
        }
    };
    let again = Again {
        daemon: Arc::clone(&daemon),
        container: container.config.id.clone(),
        wanted,
    };
    let past = LogQuery {
        follow: false,
        stdout: asked.stdout,
        stderr: asked.stderr,
        since: None,
        until: None,
        timestamps: false,
        details: false,
        tail: None,
    };
    hijack(
        call.upgrade,
        Input::Body(call.body),
        kind,
        async move |mut duplex| {
            if logs {
                let (sender, mut receiver) = mpsc::channel(4);
                let followed = daemon.follow(move |engine| {
                    let mut writer = BodyWriter::new(sender);
                    if let Err(error) = write_log(engine, &container, &past, framing, &mut writer) {
                        tracing::debug!(%error, "a log was not read to its end");
                    }
                });
                if followed.is_ok() {
                    while let Some(bytes) = receiver.recv().await {
                        if duplex.output.send(bytes).await.is_err() {
                            return;
                        }
                    }
                }
            }
            let attached = match live {
                None => None,
                Some(Live::Runs(attached)) => Some(*attached),
                // The start has failed, or the daemon ends.
                Some(Live::Waits(waiting)) => waiting.await.ok(),
            };
            match attached {
                Some(attached) => {
                    let (_sizes, sizes) = mpsc::channel(1);
                    let attached = Attached {
                        again: Some(again),
                        ..attached
                    };
                    pump(
                        duplex,
                        attached,
                        Passing {
                            framing,
                            sizes,
                            keys,
                        },
                        |_| {},
                    )
                    .await;
                }
                None => duplex.end().await,
            }
        },
    )
}

/// The keys that leave a terminal; nothing else has any.
fn detach_keys(text: Option<&str>, is_terminal: bool) -> Result<Option<DetachKeys>, ApiError> {
    let keys = text.unwrap_or(DEFAULT_DETACH_KEYS).parse();
    let keys: DetachKeys = keys.map_err(|error: BadDetachKeys| ApiError::bad(error.to_string()))?;
    Ok(is_terminal.then_some(keys))
}

/// Keys that were named.
fn named_keys(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Where the streams of an attach come from.
enum Live {
    Runs(Box<Attached>),
    Waits(tokio::sync::oneshot::Receiver<Attached>),
}

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateExec {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    env: Vec<String>,
    #[serde(deserialize_with = "words")]
    cmd: Option<Vec<String>>,
    privileged: bool,
    user: String,
    working_dir: String,
    console_size: Vec<u16>,
    // docker-py spells it so, and Go reads either.
    #[serde(alias = "detachKeys")]
    detach_keys: String,
}

fn console(size: &[u16]) -> Console {
    Console {
        rows: size.first().copied().unwrap_or(0),
        columns: size.get(1).copied().unwrap_or(0),
        line_ends: LineEnds::Translated,
    }
}

/// `POST /containers/{id}/exec`.
pub(crate) async fn create(call: Call, id: &str) -> Reply {
    let daemon = call.daemon.clone();
    let scope = call.scope.clone();
    let request: CreateExec = call.json().await?;
    if let Some(scope) = scope {
        scope.exec(request.privileged)?;
    }
    let command = request.cmd.unwrap_or_default();
    if command.is_empty() {
        return Err(ApiError::bad("No exec command specified"));
    }
    detach_keys(named_keys(&request.detach_keys), request.tty)?;
    let name = id.to_owned();
    let found = daemon.run(move |engine| {
        let container = engine.container(&name)?;
        match container.state.status {
            state::Status::Running => Ok(container.config.id),
            state::Status::Paused => Err(ApiError::conflict(format!(
                "container {name} is paused, unpause the container before exec"
            ))),
            _ => Err(ApiError::conflict(format!(
                "container {} is not running",
                container.config.id
            ))),
        }
    });
    let container = found.await?;
    let options = ExecOptions {
        command,
        env: request.env,
        user: (!request.user.is_empty()).then_some(request.user),
        workdir: (!request.working_dir.is_empty()).then_some(request.working_dir),
        console: request.tty.then(|| console(&request.console_size)),
        privilege: match request.privileged {
            true => Privilege::All,
            false => Privilege::AsContainer,
        },
    };
    let id = new_id()?;
    daemon.execs.add(Exec {
        id: id.clone(),
        container,
        options,
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
        tty: request.tty,
        keys: request.detach_keys,
        phase: Phase::Made,
        resize: None,
    });
    json_reply(StatusCode::CREATED, &json!({ "Id": id }))
}

/// 64 hexadecimal digits.
fn new_id() -> Result<String, ApiError> {
    use std::fmt::Write as _;
    use std::io::Read as _;
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| ApiError::internal(format!("cannot make an id: {error}")))?;
    let mut id = String::new();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _never = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// The body of `POST /exec/{id}/start`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StartExec {
    detach: bool,
    /// As with Docker, it is this one that says whether the stream has frames.
    tty: bool,
    console_size: Vec<u16>,
}

/// `POST /exec/{id}/start`.
pub(crate) async fn start(call: Call, id: &str) -> Reply {
    let daemon = call.daemon.clone();
    let exec = daemon.execs.get(id).ok_or_else(|| missing(id))?;
    if exec.phase != Phase::Made || exec.resize.is_some() {
        return Err(ApiError::conflict(format!(
            "exec instance {id} has already run"
        )));
    }
    let (version, upgrade, is_terminal) = (call.version, call.upgrade, exec.tty);
    let keys = detach_keys(named_keys(&exec.keys), is_terminal)?;
    // The document comes whole, and what follows on the connection is the stream.
    let value = crate::body::document(call.body).await?;
    let request: StartExec = value.map(read).transpose()?.unwrap_or_default();
    let mut options = exec.options.clone();
    if exec.tty && !request.console_size.is_empty() {
        options.console = Some(console(&request.console_size));
    }
    let wanted = (!request.detach).then_some(Wanted {
        stdin: exec.stdin,
        stdout: exec.stdout || exec.tty,
        stderr: exec.stderr && !exec.tty,
    });
    // From here on sizes are taken: they wait for the terminal.
    let (sender, sizes) = mpsc::channel(SIZES);
    daemon.execs.change(id, |exec| exec.resize = Some(sender));
    let begin = Begin {
        daemon,
        exec,
        options,
        wanted,
    };
    if request.detach {
        let (attached, ended) = begin.run().await?;
        tokio::spawn(async move { ended(watch_end(attached.session).await) });
        return status(StatusCode::OK);
    }
    let framing = Framing::of(request.tty);
    let kind = framing.kind(version);
    hijack(upgrade, Input::None, kind, async move |mut duplex| {
        match begin.run().await {
            Ok((attached, ended)) => {
                let passing = Passing {
                    framing,
                    sizes,
                    keys,
                };
                pump(duplex, attached, passing, ended).await;
            }
            // The answer is out already: the client reads it where the output would be.
            Err(error) => {
                let text = format!("{}\r\n", error.message);
                send(&mut duplex.output, framing, &text).await;
                duplex.end().await;
            }
        }
    })
}

/// What an `exec` instance is started with.
struct Begin {
    daemon: Arc<Daemon>,
    exec: Exec,
    options: ExecOptions,
    wanted: Option<Wanted>,
}

/// Is told how the program has ended.
type Ended = Box<dyn FnOnce(Option<runtime::ExitStatus>) + Send>;

impl Begin {
    /// Starts it. Gives its streams, and who waits for its end.
    async fn run(self) -> Result<(Attached, Ended), ApiError> {
        let Self {
            daemon,
            exec,
            options,
            wanted,
        } = self;
        let (execs, id) = (daemon.execs.clone(), exec.id.clone());
        let started = daemon.run(move |engine| {
            let change = |phase: Phase| execs.change(&exec.id, |exec| exec.phase = phase);
            let begin = || {
                let container = engine.container(&exec.container)?;
                let session = engine.exec(&container, &options, wanted)?;
                let pid = session.wait_started()?;
                Ok((container, session, pid))
            };
            let (container, session, pid) = begin().inspect_err(|error: &EngineError| {
                let code = error.exit_code();
                change(Phase::Ended { code });
            })?;
            change(Phase::Running { pid });
            let command = options.command.join(" ");
            for action in ["exec_create", "exec_start"] {
                let action = format!("{action}: {command}");
                engine.record_container_event(&container.config, &action, &[("execID", &exec.id)]);
            }
            let streams = match wanted {
                Some(wanted) => session.attached(wanted)?,
                None => engine::Streams::default(),
            };
            Ok(Attached {
                session,
                streams,
                again: None,
            })
        });
        let attached = started.await?;
        let execs = daemon.execs.clone();
        let ended: Ended = Box::new(move |status| {
            // 255: nobody can tell any more.
            let code = status.map_or(u8::MAX, |status| status.code);
            execs.change(&id, |exec| {
                exec.phase = Phase::Ended { code };
                exec.resize = None;
            });
        });
        Ok((attached, ended))
    }
}

async fn send(output: &mut Output, framing: Framing, text: &str) {
    // A client that is gone does not want to know.
    drop(output.send(frame(framing, STDOUT, text.as_bytes())).await);
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(messages::no_such_exec(id))
}

/// `GET /exec/{id}/json`.
pub(crate) fn inspect(call: &Call, id: &str) -> Reply {
    let exec = call.daemon.execs.get(id).ok_or_else(|| missing(id))?;
    ok(&exec.record())
}

/// Rows and columns.
fn size(call: &Call) -> Result<(u16, u16), ApiError> {
    let number = |name: &str| {
        let number = call
            .query
            .number(name)
            .and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| ApiError::bad(format!("invalid resize {name}")))
    };
    Ok((number("h")?, number("w")?))
}

/// `POST /exec/{id}/resize`.
pub(crate) fn resize(call: &Call, id: &str) -> Reply {
    let size = size(call)?;
    let exec = call.daemon.execs.get(id).ok_or_else(|| missing(id))?;
    let Some(sizes) = exec.resize else {
        return Err(ApiError::conflict(format!("exec {id} is not running")));
    };
    // When many wait, the next one comes soon.
    if sizes.try_send(size).is_err() {
        tracing::debug!(id, "a size of a terminal is left out");
    }
    status(StatusCode::OK)
}

/// `POST /containers/{id}/resize`.
pub(crate) async fn resize_container(call: Call, id: &str) -> Reply {
    let (rows, columns) = size(&call)?;
    let name = id.to_owned();
    let resized = call.daemon.run(move |engine| {
        let container = engine.container(&name)?;
        let session = engine.connect(&container)?;
        Ok(session.ask(&Request::Resize { rows, columns })?)
    });
    resized.await?;
    status(StatusCode::OK)
}
