//! `ketch daemon`.

use std::path::PathBuf;

use clap::Args;
use daemon::{Host, Options};

use super::Invocation;
use super::network_options::{addresses, publish};
use super::registry_options::registry_options;
use crate::render;
use crate::settings;

/// Options of `daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Where to listen: unix://PATH or tcp://ADDRESS:PORT (default: ketch.sock in the run directory; can be repeated)
    #[arg(short = 'H', long, value_name = "ADDRESS")]
    host: Vec<String>,
}

/// Serves Docker's API until it is ended; containers go on after that.
pub(crate) fn daemon(context: &Invocation, args: &DaemonArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut hosts = args
        .host
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<Host>, _>>()?;
    if hosts.is_empty() {
        hosts.push(Host::Unix(engine.layout().run().join("ketch.sock")));
    }
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
    };
    daemon::serve(engine, &hosts, options, || {
        for host in &hosts {
            render::line(&format!("listening at {host}"));
        }
    })?;
    Ok(0)
}
