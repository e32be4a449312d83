//! `ketch login` and `ketch logout`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use clap::Args;
use image::{CredentialFile, Credentials, Kept, Reference, Secret, check_credentials};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Invocation;
use super::registry_options::{credential_path, registry_options};
use crate::render::{self, Usage};

/// Docker's own registry, which is meant when none is named.
const DEFAULT: &str = "docker.io";
/// The longest secret that is read.
const MAX_SECRET: u64 = 64 * 1024;

/// Options of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; others can see it, so prefer --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Registry (default: docker.io)
    registry: Option<String>,
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Registry (default: docker.io)
    registry: Option<String>,
}

/// Proves to a registry who one is, and keeps the proof.
pub(crate) fn login(context: &Invocation, args: &LoginArgs) -> anyhow::Result<u8> {
    let registry = registry(args.registry.as_deref())?;
    let options = registry_options(&context.settings)?;
    let path = credential_path()?.context("there is no home directory to keep credentials in")?;
    if args.password_stdin && args.username.is_none() {
        return Err(Usage("`--password-stdin` needs `--username`".to_owned()).into());
    }
    if args.password.is_some() {
        render::line(
            "warning: a password on the command line can be seen by others; use --password-stdin",
        );
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ", Echo::Yes)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => read_secret()?,
        None => ask("Password: ", Echo::No)?,
    };
    if username.is_empty() || password.is_empty() {
        bail!("user name and password must not be empty");
    }
    let credentials = Credentials::Password {
        username,
        password: Secret::new(password),
    };
    let credentials = check_credentials(&registry, &credentials, &options)?;
    if let Kept::File(path) = CredentialFile::open(&path)?.keep(&registry, &credentials)? {
        render::line(&format!(
            "warning: {} is kept unencrypted in `{}`; a credential helper would protect it",
            match credentials {
                Credentials::Password { .. } => "the password",
                _ => "a token",
            },
            path.display()
        ));
    }
    render::print("Login Succeeded")?;
    Ok(0)
}

/// Forgets who one is for a registry.
pub(crate) fn logout(_context: &Invocation, args: &LogoutArgs) -> anyhow::Result<u8> {
    let registry = registry(args.registry.as_deref())?;
    let path = credential_path()?.context("there is no home directory with credentials")?;
    let known = CredentialFile::open(&path)?.forget(&registry)?;
    render::print(&if known {
        format!("Removing login credentials for {registry}")
    } else {
        format!("Not logged in to {registry}")
    })?;
    Ok(0)
}

/// The registry as references name it: `https://index.docker.io/v1/` is `docker.io`.
fn registry(text: Option<&str>) -> anyhow::Result<String> {
    let text = text.unwrap_or(DEFAULT);
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let host = host.split('/').next().unwrap_or(host);
    if ["index.docker.io", "registry-1.docker.io"].contains(&host) {
        return Ok(DEFAULT.to_owned());
    }
    let parsed = Reference::parse(&format!("{host}/x"));
    match parsed {
        Ok(reference) if reference.registry() == host => Ok(host.to_owned()),
        _ => Err(Usage(format!(
            "`{text}` is not a registry of the form `host[:port]`"
        ))
        .into()),
    }
}

fn read_secret() -> anyhow::Result<String> {
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), MAX_SECRET)
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Yes,
    No,
}

/// Asks on the terminal.
fn ask(prompt: &str, echo: Echo) -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Usage(
            "there is no terminal to ask on: give --username and --password-stdin".to_owned(),
        )
        .into());
    }
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let before = tcgetattr(stdin.as_fd())?;
    if echo == Echo::No {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &silent)?;
    }
    let answer = read_secret();
    if echo == Echo::No {
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &before)?;
        writeln!(stderr)?;
    }
    answer
}
