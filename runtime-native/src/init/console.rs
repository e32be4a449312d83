//! The terminal: allocated from the container's own devpts, its master side handed to the monitor,
//! its other side taken by descriptor, never by a path that the image could have made
//! (CVE-2025-52565).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{Console, LineEnds};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize};
use sys::mount::Depth;
use sys::path::Missing;

use super::At;
use crate::step::Step;

/// Where the master side goes, and the first size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    pub(crate) size: Console,
    pub(crate) owner: u32,
}

/// Opens the terminal of a container's init, which is its `/dev/console` as well.
pub(super) fn open(root: BorrowedFd<'_>, request: &Request<'_>) -> Result<OwnedFd, Errno> {
    let terminal = allocate(root, request)?;
    let mount = sys::mount::clone_tree_of(terminal.as_fd(), Depth::One)?;
    let target = sys::path::make_in_root(root, c"/dev/console", Missing::File)?;
    sys::mount::attach(mount.as_fd(), target.as_fd())?;
    Ok(terminal)
}

/// Allocates a terminal, sends its master side away and gives the other one.
fn allocate(root: BorrowedFd<'_>, request: &Request<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = sys::path::open_in_root(root, c"/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let open = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, open)?;
    if request.size.rows != 0 || request.size.columns != 0 {
        rustix::termios::tcsetwinsize(
            &terminal,
            Winsize {
                ws_row: request.size.rows,
                ws_col: request.size.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )?;
    }
    if request.size.line_ends == LineEnds::Plain {
        let mut modes = rustix::termios::tcgetattr(&terminal)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    }
    if request.owner != 0 {
        rustix::fs::fchown(
            &terminal,
            Some(rustix::fs::Uid::from_raw(request.owner)),
            None,
        )?;
    }
    sys::socket::send(request.socket, b"tty", &[master.as_fd()])?;
    Ok(terminal)
}

/// For a further program: opens a terminal in the container that this process has entered, and
/// takes it over.
pub(crate) fn attach(request: &Request<'_>) -> super::Result<()> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let terminal = root
        .and_then(|root| allocate(root.as_fd(), request))
        .at(Step::Console)?;
    take_over(terminal.as_fd()).at(Step::Console)
}

/// Makes the terminal this session's and places it at 0, 1 and 2.
pub(super) fn take_over(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::ioctl_tiocsctty(terminal)?;
    for number in 0..3 {
        sys::exec::place_descriptor(terminal, number)?;
    }
    Ok(())
}
