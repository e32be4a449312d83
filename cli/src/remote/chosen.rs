//! Which engine a command is for: this program's own, or a daemon's.

use std::path::PathBuf;

use anyhow::Context as _;
use state::Layout;

use super::client::Client;
use super::endpoint::{Endpoint, TlsFiles, is_local};
use super::store::{Contexts, DEFAULT};
use crate::render::Usage;
use crate::settings::{self, Settings, Source, variable};

/// A daemon, and how it is spoken to.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) endpoint: Endpoint,
    tls: Option<TlsFiles>,
}

/// Docker's directory of configurations.
pub(crate) fn docker_dir() -> anyhow::Result<PathBuf> {
    match variable("DOCKER_CONFIG")? {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => {
            let home =
                variable("HOME")?.context("cannot find docker's contexts: HOME is not set")?;
            Ok(PathBuf::from(home).join(".docker"))
        }
    }
}

/// The store of contexts.
pub(crate) fn contexts(settings: &Settings) -> anyhow::Result<Contexts> {
    let layout = Layout::made(
        settings.get(&settings::ROOT).into(),
        settings.get(&settings::RUN).into(),
    );
    Ok(Contexts::new(&docker_dir()?, &layout))
}

impl Chosen {
    /// The daemon that is meant; `None` for the engine of this program. Of `host` and `context` the one
    /// is taken that was said closer: flag, environment, file, `context use`.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let (host, context) = (
            settings.value(&settings::HOST),
            settings.value(&settings::CONTEXT),
        );
        if host.source == Source::Flag && context.source == Source::Flag {
            return Err(Usage("cannot use --host and --context at once".to_owned()).into());
        }
        if host.source != Source::Default && host.source >= context.source {
            return Self::at(settings, &host.text);
        }
        let name = match context.source {
            Source::Default => match contexts(settings).and_then(|all| all.current()) {
                Ok(Some(name)) => name,
                // Without a home nobody has chosen one.
                Ok(None) => return Ok(None),
                Err(_) if variable("HOME")?.is_none() => return Ok(None),
                Err(error) => return Err(error),
            },
            _ => context.text.clone(),
        };
        if is_local(&name) || name == DEFAULT {
            return Ok(None);
        }
        let all = contexts(settings)?;
        let context = all.get(&name)?;
        let endpoint = context
            .host()
            .parse()
            .with_context(|| format!("cannot use the context `{name}`"))?;
        Ok(Some(Self {
            endpoint,
            tls: all.tls(&name),
        }))
    }

    fn at(settings: &Settings, host: &str) -> anyhow::Result<Option<Self>> {
        if is_local(host) {
            return Ok(None);
        }
        let dir = settings.get(&settings::TLS_PATH);
        Ok(Some(Self {
            endpoint: host.parse()?,
            tls: (!dir.is_empty()).then(|| TlsFiles { dir: dir.into() }),
        }))
    }

    /// Connects.
    pub(crate) async fn client(self) -> anyhow::Result<Client> {
        let tls = match &self.endpoint {
            Endpoint::Tcp { .. } => self.tls.as_ref().map(TlsFiles::connector).transpose()?,
            _ => None,
        };
        Client::open(self.endpoint, tls).await
    }
}

/// Runs a command at a daemon.
pub(crate) fn at_daemon(chosen: Chosen, command: &str, rest: &[&str]) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(super::dispatch(
        async || chosen.client().await,
        command,
        rest,
    ));
    // A thread may still read standard input, which nobody waits for.
    runtime.shutdown_background();
    done
}
