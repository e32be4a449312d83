//! `cp` and `build` at a daemon: archives that go to it and come from it. It is long because both share
//! the bodies that threads write and read.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;

use anyhow::Context as _;
use base64::Engine as _;
use bytes::Bytes;
use clap::Args;
use engine::{Copied, CopyOptions, FollowLink, OutgoingCopy, Owner, receive_copy};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::client::{Ask, Body, Client, encoded, status_of, with_query};
use super::progress::{Shown, follow};
use super::spec::{labels, pairs};
use crate::commands::{Place, place, size};
use crate::render::{self, Usage};

/// How much goes at once, and how many pieces wait.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;

/// Where the daemon says what is at a path.
const STAT: &str = "x-docker-container-path-stat";

/// The bit of a directory in Go's `os.FileMode`, and of a link.
const GO_DIRECTORY: u64 = 1 << 31;
const GO_LINK: u64 = 1 << 27;

/// Options of `cp` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keep owners and groups (default: who receives owns)
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link leads to that is named as the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing about what was copied
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this host, or - for an archive on standard input
    #[arg(allow_hyphen_values = true)]
    source: String,
    /// CONTAINER:PATH, a path of this host, or - for an archive on standard output
    #[arg(allow_hyphen_values = true)]
    target: String,
}

/// Options of `build` at a daemon.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Name of the image (can be repeated)
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Dockerfile (default: Dockerfile in the context)
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Argument of the build: KEY[=VALUE] (can be repeated)
    #[arg(long, value_name = "KEY[=VALUE]")]
    build_arg: Vec<String>,
    /// Label of the image (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Stage to build (default: the last)
    #[arg(long)]
    target: Option<String>,
    /// Use nothing that was built before
    #[arg(long)]
    no_cache: bool,
    /// Look for newer base images
    #[arg(long)]
    pull: bool,
    /// os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Network of the steps
    #[arg(long)]
    network: Option<String>,
    /// Print nothing but the id
    #[arg(short, long)]
    quiet: bool,
    /// Context: a directory, an address, or - for an archive on standard input
    #[arg(default_value = ".")]
    context: String,
}

/// Gives a request's body from a thread that may block, and how that went.
fn outgoing<T: Send + 'static>(
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T> + Send + 'static,
) -> (Body, tokio::task::JoinHandle<anyhow::Result<T>>) {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let handle = tokio::task::spawn_blocking(move || {
        let mut writer = Pieces {
            sender,
            buffer: Vec::new(),
        };
        let written = write(&mut writer).and_then(|value| {
            writer.flush()?;
            Ok(value)
        });
        if written.is_err() {
            // A body that ends too early must not look complete.
            drop(
                writer
                    .sender
                    .blocking_send(Err(io::ErrorKind::Interrupted.into())),
            );
        }
        written
    });
    (Outgoing(receiver).boxed_unsync(), handle)
}

/// A body that comes piece by piece.
struct Outgoing(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.sender.blocking_send(Ok(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads an answer's body in a thread that may block.
struct Incomings {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Incomings {
    fn new(mut body: Incoming) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece = match frame {
                    Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
                    Err(error) => Err(io::Error::other(error)),
                };
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Incomings {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        let piece = self.current.split_to(length);
        if let Some(target) = buffer.get_mut(..length) {
            target.copy_from_slice(&piece);
        }
        Ok(length)
    }
}

/// Writes an answer's body to standard output.
pub(crate) async fn to_stdout(response: http::Response<Incoming>) -> anyhow::Result<()> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the connection to the daemon is broken")?;
        if let Ok(bytes) = frame.into_data() {
            io::stdout().lock().write_all(&bytes)?;
        }
    }
    io::stdout().lock().flush()?;
    Ok(())
}

/// A request's body from standard input.
pub(crate) fn from_stdin() -> (Body, tokio::task::JoinHandle<anyhow::Result<u64>>) {
    outgoing(|writer| Ok(io::copy(&mut io::stdin().lock(), writer)?))
}

/// A request's body from a file.
pub(crate) fn from_file(
    path: &Path,
) -> anyhow::Result<(Body, tokio::task::JoinHandle<anyhow::Result<u64>>)> {
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(outgoing(move |writer| Ok(io::copy(&mut file, writer)?)))
}

fn archive_path(name: &str) -> String {
    format!("/containers/{}/archive", encoded(name))
}

/// What is at a path of a container: nothing, a directory, or something else.
async fn there(client: &Client, name: &str, path: &Path) -> anyhow::Result<Option<bool>> {
    let path = path.to_string_lossy();
    let ask = Ask::head(with_query(&archive_path(name), &[("path", &path)]));
    let response = match client.ask(ask).await {
        // Without a body nobody says which of both is not there; the copy itself will.
        Err(error) if status_of(&error) == Some(http::StatusCode::NOT_FOUND) => return Ok(None),
        response => response?,
    };
    let header = response
        .headers()
        .get(STAT)
        .and_then(|value| value.to_str().ok());
    let header = header.context("the daemon does not say what is there")?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(header)
        .context("the daemon does not say what is there")?;
    let stat: Value = serde_json::from_slice(&bytes).context("cannot read the daemon's answer")?;
    let mode = stat["mode"].as_u64().unwrap_or(0);
    if mode & GO_LINK != 0
        && let Some(target) = stat["linkTarget"]
            .as_str()
            .filter(|target| !target.is_empty())
    {
        // A link's own name is kept; what it leads to decides.
        let target = Path::new("/").join(target);
        return Box::pin(there(client, name, &target)).await;
    }
    Ok(Some(mode & GO_DIRECTORY != 0))
}

/// `cp`.
pub(crate) async fn cp(client: &Client, args: &CpArgs) -> anyhow::Result<u8> {
    let options = CopyOptions {
        follow: if args.follow_link {
            FollowLink::Yes
        } else {
            FollowLink::No
        },
        owner: if args.archive {
            Owner::Source
        } else {
            Owner::Receiver
        },
    };
    let copied = match (place(&args.source), place(&args.target)) {
        (Place::Container(..), Place::Container(..)) => {
            let text = "cannot copy between two containers: copy to this host first";
            return Err(Usage(text.to_owned()).into());
        }
        (Place::Container(name, from), to) => {
            if args.follow_link {
                let text = "cannot use --follow-link from a container of a daemon";
                return Err(Usage(text.to_owned()).into());
            }
            let path = from.to_string_lossy();
            let ask = Ask::get(with_query(&archive_path(name), &[("path", &path)]));
            let response = client.ask(ask).await?;
            match to {
                Place::Host(to) => {
                    Some(received(response.into_body(), from, to, options.owner).await?)
                }
                _ => {
                    to_stdout(response).await?;
                    None
                }
            }
        }
        (Place::Host(from), Place::Container(name, to)) => {
            Some(sent(client, from, (name, to), options).await?)
        }
        (Place::Stream, Place::Container(name, to)) => {
            let (body, handle) = from_stdin();
            let path = to.to_string_lossy();
            let ask = Ask::put(with_query(&archive_path(name), &[("path", &path)])).body(body);
            client.done(ask).await?;
            handle.await??;
            None
        }
        _ => {
            let text = "cannot copy: one of the two paths must be CONTAINER:PATH";
            return Err(Usage(text.to_owned()).into());
        }
    };
    if let Some(copied) = copied {
        report(args, &copied);
    }
    Ok(0)
}

fn report(args: &CpArgs, copied: &Copied) {
    for skipped in &copied.skipped {
        render::line(&format!(
            "ketch: warning: left out {}",
            render::clean(skipped)
        ));
    }
    if !args.quiet {
        let target = render::clean(&args.target);
        render::line(&format!(
            "Successfully copied {} to {target}",
            size(copied.bytes)
        ));
    }
}

async fn received(body: Incoming, from: &Path, to: &Path, owner: Owner) -> anyhow::Result<Copied> {
    let mut reader = Incomings::new(body);
    let (from, to) = (from.to_path_buf(), to.to_path_buf());
    let handle = tokio::task::spawn_blocking(move || receive_copy(&mut reader, &from, &to, owner));
    Ok(handle.await??)
}

async fn sent(
    client: &Client,
    from: &Path,
    (name, to): (&str, &Path),
    options: CopyOptions,
) -> anyhow::Result<Copied> {
    let there = there(client, name, to).await?;
    let copy = OutgoingCopy::new(from, to, there, options)?;
    let directory = copy.directory.to_string_lossy().into_owned();
    let (body, handle) = outgoing(move |writer| Ok(copy.write(writer)?));
    let copy_owners = if options.owner == Owner::Source {
        "1"
    } else {
        "0"
    };
    let query = [
        ("path", directory.as_str()),
        ("noOverwriteDirNonDir", "1"),
        ("copyUIDGID", copy_owners),
    ];
    let done = client
        .done(Ask::put(with_query(&archive_path(name), &query)).body(body))
        .await;
    let written = handle.await?;
    // What the daemon says is the reason why nobody took the rest.
    done?;
    written
}

/// `build`, on the daemon's classic builder.
pub(crate) async fn build(client: &Client, args: &BuildArgs) -> anyhow::Result<u8> {
    let is_address = ["http://", "https://", "git://", "git@"]
        .iter()
        .any(|start| args.context.starts_with(start));
    let dockerfile = match (&args.file, args.context.as_str()) {
        (None, _) => "Dockerfile".to_owned(),
        (Some(file), context) if !is_address && context != "-" => inside(file, context)?,
        (Some(file), _) => file.clone(),
    };
    let arguments: Map<String, Value> = build_arguments(&args.build_arg)?;
    let (arguments, labels) = (
        Value::Object(arguments).to_string(),
        json!(labels(&args.label)).to_string(),
    );
    let mut query = vec![
        ("dockerfile", dockerfile.as_str()),
        ("version", "1"),
        ("rm", "1"),
    ];
    query.extend(args.tag.iter().map(|tag| ("t", tag.as_str())));
    query.extend([
        ("buildargs", arguments.as_str()),
        ("labels", labels.as_str()),
    ]);
    query.extend(args.target.as_deref().map(|target| ("target", target)));
    query.extend(
        args.platform
            .as_deref()
            .map(|platform| ("platform", platform)),
    );
    query.extend(
        args.network
            .as_deref()
            .map(|network| ("networkmode", network)),
    );
    query.extend(args.no_cache.then_some(("nocache", "1")));
    query.extend(args.pull.then_some(("pull", "1")));
    query.extend(args.quiet.then_some(("q", "1")));
    query.extend(is_address.then_some(("remote", args.context.as_str())));
    let mut ask = Ask::post(with_query("/build", &query))
        .header("content-type", "application/x-tar".to_owned());
    let mut packing = None;
    if args.context == "-" {
        let (body, handle) = from_stdin();
        ask = ask.body(body);
        packing = Some(tokio::spawn(async move { handle.await?.map(drop) }));
    } else if !is_address {
        let dir = PathBuf::from(&args.context);
        let (body, handle) = outgoing(move |writer| {
            Ok(builder::pack_context(
                &dir,
                &dockerfile_of(&dockerfile),
                writer,
            )?)
        });
        ask = ask.body(body);
        packing = Some(tokio::spawn(async move { handle.await? }));
    }
    let response = client.ask(ask).await;
    if response.is_err()
        && let Some(packing) = packing.take()
    {
        // A context that cannot be read is the cause, not what the daemon makes of it.
        packing.await??;
    }
    let shown = if args.quiet {
        Shown::Nothing
    } else {
        Shown::Build
    };
    let built = follow(response?, shown).await;
    if let Some(packing) = packing {
        let packed = packing.await?;
        if built.is_ok() || packed.as_ref().is_err_and(|error| !is_broken(error)) {
            packed?;
        }
    }
    let built = built?;
    if args.quiet
        && let Some(id) = built["ID"].as_str()
    {
        render::print(id)?;
    }
    Ok(0)
}

/// A daemon that has seen enough takes no more.
fn is_broken(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn dockerfile_of(name: &str) -> String {
    name.trim_start_matches("./").to_owned()
}

/// The path of a Dockerfile in its context.
fn inside(file: &str, context: &str) -> anyhow::Result<String> {
    let context = std::fs::canonicalize(context)
        .with_context(|| format!("cannot use the context `{context}`"))?;
    let path = std::fs::canonicalize(file).with_context(|| format!("cannot read `{file}`"))?;
    let inside = path.strip_prefix(&context);
    let inside = inside.map_err(|_| {
        Usage(format!(
            "cannot use --file `{file}`: it is outside of the context"
        ))
    })?;
    Ok(inside.to_string_lossy().into_owned())
}

/// `KEY=VALUE`, or `KEY` with this environment's value, null when it has none.
fn build_arguments(texts: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut all = Map::new();
    for text in texts {
        match text.contains('=') {
            true => all.extend(
                pairs("--build-arg", std::slice::from_ref(text))?
                    .into_iter()
                    .map(|(key, value)| (key, Value::from(value))),
            ),
            false => {
                let value = crate::settings::variable(text)?;
                all.insert(text.clone(), value.map_or(Value::Null, Value::from));
            }
        }
    }
    Ok(all)
}
