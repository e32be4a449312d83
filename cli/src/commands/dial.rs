//! `ketch system dial-stdio`: standard input and output become a connection to a daemon. It is what
//! clients run at the other side of ssh.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Invocation;
use crate::remote::{Chosen, Endpoint};
use crate::render::Usage;
use crate::settings;

/// How much is passed on at once.
const BUFFER: usize = 64 * 1024;

/// Options of `system dial-stdio`.
#[derive(Debug, Args)]
pub(crate) struct DialArgs {}

/// Passes everything on until the daemon has closed the connection. An end of standard input closes
/// only this direction: the answer is still to come.
pub(crate) fn dial(context: &Invocation, _args: &DialArgs) -> anyhow::Result<u8> {
    let path = match Chosen::of(&context.settings)? {
        None => PathBuf::from(context.settings.get(&settings::RUN)).join(engine::DEFAULT_SOCKET),
        Some(Chosen {
            endpoint: Endpoint::Unix(path),
            ..
        }) => path,
        Some(chosen) => {
            let text = format!(
                "cannot dial {}: only a daemon of this host is dialled",
                chosen.endpoint
            );
            return Err(Usage(text).into());
        }
    };
    let stream = UnixStream::connect(&path)
        .with_context(|| format!("cannot connect to the daemon at unix://{}", path.display()))?;
    let mut from = stream.try_clone().context("cannot connect to the daemon")?;
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            // Who reads has gone: then its answers end, too.
            drop(pass(&mut io::stdin().lock(), &mut &stream));
            drop(stream.shutdown(Shutdown::Write));
        })
        .context("cannot start a thread")?;
    pass(&mut from, &mut io::stdout().lock()).context("cannot pass on the daemon's answer")?;
    Ok(0)
}

fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        if length == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..length).unwrap_or_default())?;
        to.flush()?;
    }
}
