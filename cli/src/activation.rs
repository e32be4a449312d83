//! What a service manager hands over and wants to hear: sockets (sd_listen_fds(3)) and that clients can
//! connect (sd_notify(3)).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context as _;
use daemon::Inherited;

use crate::settings::variable;

/// The number of the first socket.
const FIRST: i32 = 3;

/// More than any unit has.
const MAX_SOCKETS: i32 = 256;

/// The name of a socket that has none.
const NAMELESS: &str = "unknown";

/// Takes the sockets that were handed to this process.
pub(crate) fn inherited() -> anyhow::Result<Vec<Inherited>> {
    let is_ours = variable("LISTEN_PID")?
        .and_then(|text| text.parse::<u32>().ok())
        .is_some_and(|pid| pid == std::process::id());
    if !is_ours {
        return Ok(Vec::new());
    }
    let count = variable("LISTEN_FDS")?.unwrap_or_default();
    let count: i32 = count
        .parse()
        .ok()
        .filter(|count| (0..=MAX_SOCKETS).contains(count))
        .with_context(|| format!("cannot use LISTEN_FDS: `{count}` is no number of sockets"))?;
    let names = variable("LISTEN_FDNAMES")?.unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    (FIRST..FIRST + count)
        .map(|number| {
            let socket = sys::inherit::take(number)
                .with_context(|| format!("cannot take the inherited descriptor {number}"))?;
            let name = names.next().unwrap_or(NAMELESS).to_owned();
            Ok(Inherited { name, socket })
        })
        .collect()
}

/// Tells the service manager, where there is one, in what state this process is.
pub(crate) fn notify(state: &str) -> anyhow::Result<()> {
    let Some(path) = variable("NOTIFY_SOCKET")? else {
        return Ok(());
    };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let tell = |address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &address)
    };
    address
        .and_then(tell)
        .with_context(|| format!("cannot tell the service manager at `{path}`"))?;
    Ok(())
}
