//! `ketch daemon`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use daemon::{Host, Listening, Options, PlainTcp, TlsFiles};
use tracing::level_filters::LevelFilter;

use super::Invocation;
use super::network_options::{addresses, publish};
use super::registry_options::registry_options;
use crate::activation;
use crate::render;
use crate::service_log::{LogFormat, ServiceLog};
use crate::settings;

/// Options of `daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Where to listen: unix://PATH, tcp://ADDRESS:PORT, or fd://NAME for sockets of a service manager (default: ketch.sock in the run directory; can be repeated)
    #[arg(short = 'H', long, value_name = "ADDRESS")]
    host: Vec<String>,
    /// Serve TCP by TLS, to clients with a certificate of the authority only
    #[arg(long, requires_all = ["tlscacert", "tlscert", "tlskey"])]
    tlsverify: bool,
    /// Authority of the clients' certificates, in PEM
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlscacert: Option<PathBuf>,
    /// Certificate of the daemon, in PEM
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlscert: Option<PathBuf>,
    /// Key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlskey: Option<PathBuf>,
    /// Serve TCP without TLS at other addresses than those of this host alone: whoever reaches it has all of this host
    #[arg(long, conflicts_with = "tlsverify")]
    insecure_tcp: bool,
    /// Serve numbers for Prometheus at http://ADDRESS:PORT/metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_addr: Option<SocketAddr>,
    /// What is logged: error, warn, info (one line a request), debug or trace
    #[arg(short, long, value_name = "LEVEL", default_value = "warn")]
    log_level: LevelFilter,
    /// How it is logged, on standard error: text, or json (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// How long a client may take for the head of a request, and between two requests of one connection
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(1..))]
    header_timeout: u64,
}

impl DaemonArgs {
    fn hosts(&self, default: PathBuf) -> anyhow::Result<Vec<Host>> {
        let hosts = self.host.iter().map(|text| text.parse());
        let hosts = hosts.collect::<Result<Vec<Host>, _>>()?;
        Ok(match hosts.is_empty() {
            true => vec![Host::Unix(default)],
            false => hosts,
        })
    }

    fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            authority: self.tlscacert.clone()?,
            certificate: self.tlscert.clone()?,
            key: self.tlskey.clone()?,
        })
    }
}

/// Serves Docker's API until it is ended; containers go on after that.
pub(crate) fn daemon(context: &Invocation, args: &DaemonArgs) -> anyhow::Result<u8> {
    let inherited = activation::inherited()?;
    let engine = context.engine()?;
    // A thread is begun: an ordinary user's process has entered its namespaces before.
    let _log = ServiceLog::begin(args.log_level, args.log_format)?;
    let hosts = args.hosts(engine.layout().run().join(engine::DEFAULT_SOCKET))?;
    let settings = &context.settings;
    let options = Options {
        registry: registry_options(settings)?,
        publish: publish(settings.get(&settings::PUBLISH))?,
        publish_addresses: addresses(settings.get(&settings::PUBLISH_DEFAULT))?,
        cdi_dirs: settings
            .get(&settings::CDI_SPEC_DIRS)
            .split(',')
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .collect(),
        version: env!("CARGO_PKG_VERSION"),
        head_timeout: Duration::from_secs(args.header_timeout),
    };
    let listening = Listening {
        hosts,
        inherited,
        tls: args.tls(),
        plain_tcp: match args.insecure_tcp {
            true => PlainTcp::Anywhere,
            false => PlainTcp::Loopback,
        },
        metrics: args.metrics_addr,
    };
    daemon::serve(engine, listening, options, |addresses| {
        for address in addresses {
            render::line(&format!("listening at {address}"));
        }
        if let Err(error) = activation::notify("READY=1") {
            render::report(&error);
        }
    })?;
    Ok(0)
}
