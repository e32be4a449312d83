//! `ketch-init`: the small program that owns one container (DESIGN section 1). One thread, one
//! loop. Standard input is the plan in a sealed memfd, standard output the socket of the front end
//! that started it.
//!
//! `ketch-init rescue` is the same for a container that runs and whose monitor was killed;
//! `ketch-init exec` is as much for a further program in a running container; `ketch-init idmap` is
//! another, short life: it maps the ids of a user's front end; `ketch-init hold` is the first process of
//! a scope of systemd until the container is in it; `ketch-init oci` is what `ketch oci
//! create`, `run` and `exec` become; `ketch-init sockets` makes sockets in an ordinary user's
//! container for its monitor; `ketch-init write-log` writes and sends a log for it.
#![forbid(unsafe_code)]

mod attach;
mod change;
mod client;
mod end;
mod events;
mod exec;
mod execs;
mod health;
mod hold;
mod idmap;
mod log;
mod monitor;
mod network;
mod oci;
mod output;
mod pipes;
mod poll;
mod reap;
mod requests;
mod rescue;
mod restart;
mod running;
mod volumes;
mod writer;

use std::os::fd::{AsFd, OwnedFd};

use runtime::{Event, ExecPlan, Plan, Response, StartFailure, code};

/// What a monitor calls the process by that writes its container's log.
const WRITE_LOG: &str = "write-log";

/// No plan is longer.
const MAX_PLAN: u64 = 4 << 20;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next();
    match mode.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("idmap") => sys::exec::exit_now(idmap::run(args)),
        Some("hold") => sys::exec::exit_now(hold::run()),
        Some("oci") => sys::exec::exit_now(oci::run(args)),
        Some("sockets") => {
            sys::exec::exit_now(::network::serve_sockets().map_or(1, |()| 0));
        }
        _ => {}
    }
    let Ok((plan, report)) = inherited() else {
        // Nobody can be told: the front end sees its socket close.
        sys::exec::exit_now(i32::from(code::ENGINE));
    };
    if mode.as_deref().is_some_and(|mode| mode == WRITE_LOG) {
        sys::exec::exit_now(writer::run(&plan, report).map_or(1, |()| 0));
    }
    let result = match mode.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("exec") => ExecPlan::decode(&plan)
            .map_err(|error| engine_failure(&error.to_string()))
            .and_then(|plan| exec::run(&plan, &report)),
        Some("rescue") => own(&plan, |plan| rescue::run(plan, &report)),
        _ => own(&plan, |plan| {
            let volumes = plan.monitor.volumes.clone();
            volumes::around(volumes.as_deref(), || monitor::run(plan, &report))
        }),
    };
    if let Err(failure) = result {
        if let Ok(bytes) = Response::Event(Event::Failed(failure)).encode() {
            // The front end may be gone.
            let _gone = sys::socket::stop_receiving(report.as_fd());
            let _gone = sys::socket::send(report.as_fd(), &bytes, &[]);
        }
        sys::exec::exit_now(i32::from(code::ENGINE));
    }
    sys::exec::exit_now(0);
}

/// Owns a container from here to its end.
fn own(plan: &[u8], run: impl FnOnce(Plan) -> Result<(), String>) -> Result<(), StartFailure> {
    let plan = Plan::decode(plan).map_err(|error| engine_failure(&error.to_string()))?;
    run(plan).map_err(|message| engine_failure(&message))
}

fn engine_failure(message: &str) -> StartFailure {
    StartFailure {
        code: code::ENGINE,
        message: sys::reason::without_numbers(message),
    }
}

/// Takes the plan and the socket, and leaves `/dev/null` in their places: descriptors 0 to 2 must
/// stay taken, so that no pipe of the container gets such a number.
///
/// What else a caller of the front end has left open is closed: this process outlives both, and a lock
/// would be held for as long as the container lives.
fn inherited() -> std::io::Result<(Vec<u8>, OwnedFd)> {
    sys::exec::close_all_but(3, &[])?;
    let plan = sys::exec::move_descriptor_above(std::io::stdin().as_fd(), 3)?;
    let report = sys::exec::move_descriptor_above(std::io::stdout().as_fd(), 3)?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for number in 0..3 {
        sys::exec::place_descriptor(null.as_fd(), number)?;
    }
    Ok((sys::sealed::read(plan, MAX_PLAN)?, report))
}
