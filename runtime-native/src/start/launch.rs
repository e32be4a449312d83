//! The sequence of a start.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{Console, InitPlan, Program, StartFailure, StdinMode};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::clone::{Side, clone_process, namespace};
use sys::exec::CStringArray;

use super::StartError;
use super::error::clone_failure;
use super::namespaces::{join_pid_namespace, joined_users, leave_time, own_time, visit};
use super::parent::{Parent, hook_states};
use super::streams::{Stdio, Streams, console_request, lasting_pipe, left_in, streams};
use crate::cgroup::{self, Entrances};
use crate::init::{Child, InitHooks};
use crate::prepare::Prepared;
use crate::trace::Steps;
use crate::users;

/// The two pipes by which another process starts a container that was created before: a byte in
/// the first lets it go on; the second ends without a byte when its program runs.
#[derive(Debug)]
pub struct Gate {
    /// Read by the container's init.
    pub start: OwnedFd,
    /// Written by it when a last step fails.
    pub report: OwnedFd,
}

/// A running container.
#[derive(Debug)]
pub struct Process {
    /// Its init, on the host.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its streams.
    pub stdio: Stdio,
    /// Of a wasm container: where the host says how the guest ended, a [`runtime::GuestReport`].
    pub guest_report: Option<OwnedFd>,
}

/// Makes the control groups, clones the init and waits until its program runs.
///
/// On failure the control groups are removed again.
///
/// # Errors
/// What could not be done, with the exit code for it.
pub fn start(
    plan: &InitPlan,
    stdin: StdinMode,
    console: Option<Console>,
) -> Result<Process, StartError> {
    let streams = console.map_or(Streams::Pipes(stdin), Streams::Console);
    launch(plan, streams, None, &mut |_| Ok(()))
}

/// As [`start`]; with a gate only until everything but the program's start is done. `created` is
/// told the number of the init as soon as there is one, before any hook.
///
/// # Errors
/// As [`start`].
pub fn launch(
    plan: &InitPlan,
    streams: Streams,
    gate: Option<&Gate>,
    created: &mut dyn FnMut(i32) -> Result<(), StartFailure>,
) -> Result<Process, StartError> {
    let mut steps = Steps::new(plan.trace.as_ref())
        .map_err(|error| StartError::engine("write the steps of the start", &error))?;
    cgroup::create(&plan.cgroup).map_err(StartError)?;
    steps.mark("cgroups-made");
    let result = start_in_cgroup(plan, streams, gate, created, &mut steps);
    steps.mark("running");
    steps.write();
    if result.is_err() {
        // The first error is the one to report; what is left is found by the next check.
        drop(cgroup::remove(&plan.cgroup));
    }
    result
}

fn start_in_cgroup(
    plan: &InitPlan,
    streams_wanted: Streams,
    gate: Option<&Gate>,
    created: &mut dyn FnMut(i32) -> Result<(), StartFailure>,
    steps: &mut Steps,
) -> Result<Process, StartError> {
    let pipes = |error: Errno| StartError::engine("make the container's pipes", &error.into());
    let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC).map_err(pipes)?;
    let (report_read, report_write) = pipe_with(PipeFlags::CLOEXEC).map_err(pipes)?;
    let (ours, theirs) = streams(streams_wanted).map_err(pipes)?;
    let states = hook_states(plan).map_err(|e| StartError::engine("prepare the hooks", &e))?;
    let args = CStringArray::new(plan.process.args.clone());
    let env = CStringArray::new(environment(plan));
    let hooks = InitHooks::new(&plan.hooks);
    let (guest_report, wasm) = wasm_ends(plan)?.unzip();
    let cgroup_dir = clone_cgroup(plan)?;
    let prepared = Prepared::new(plan)?;
    let init = first_process(plan)?;
    let groups = Entrances::open(&plan.cgroup.enter).map_err(StartError)?;
    join_pid_namespace(plan)?;
    let own_time = own_time(plan)?;
    steps.mark("prepared");

    let left_to_others = namespace::CGROUP | own_time.as_ref().map_or(0, |_| namespace::TIME);
    let flags = plan
        .namespaces
        .iter()
        .filter(|n| n.path.is_none() && n.flag & left_to_others == 0)
        .fold(0, |flags, n| flags | n.flag);
    let group = cgroup_dir.as_ref().map(AsFd::as_fd);
    let visit = visit(plan)?;
    let side = match joined_users(plan) {
        Some(path) => users::clone_into(path, flags, group),
        None => clone_process(flags, group),
    };
    let returned = match &side {
        Ok(Side::Child) => Ok(()),
        Ok(Side::Parent { .. }) | Err(_) => visit.leave(),
    };
    let side = side.map_err(|error| clone_failure(plan, flags, &error))?;
    let (pid, pidfd) = match side {
        Side::Child => {
            let stdio = theirs.stdio.as_ref();
            Child {
                plan,
                args: &args,
                env: &env,
                hooks: &hooks,
                hook_states: states
                    .as_ref()
                    .map(|s| [s.create_container.as_fd(), s.start_container.as_fd()]),
                prepared: &prepared,
                joined: visit.flags(),
                begin: steps.begin(),
                init: init.as_ref().map(AsFd::as_fd),
                groups: &groups,
                gate: gate.map(|gate| [gate.start.as_fd(), gate.report.as_fd()]),
                go: go_read.as_fd(),
                report: report_write.as_fd(),
                stdio: stdio.map(|[i, o, e]| [i.as_fd(), o.as_fd(), e.as_fd()]),
                console: console_request(&theirs, streams_wanted, plan),
                wasm: wasm
                    .as_ref()
                    .map(|[spec, report]| [spec.as_fd(), report.as_fd()]),
            }
            .run()
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    steps.mark("cloned");
    drop((
        go_read,
        report_write,
        theirs,
        wasm,
        prepared,
        groups,
        init,
        visit,
    ));

    let mut parent = Parent {
        plan,
        pid,
        pidfd: pidfd.as_fd(),
        go: File::from(go_write),
        states,
        steps,
    };
    let started = returned
        .and_then(|()| leave_time(own_time))
        .and_then(|()| created(pid).map_err(StartError))
        .and_then(|()| {
            parent.steps.mark("announced");
            parent.release()
        })
        .and_then(|()| parent.answer(report_read));
    if started.is_err() {
        end(pidfd.as_fd());
    }
    match (started, ours.collect()) {
        (Ok(()), Ok(stdio)) => Ok(Process {
            pid,
            pidfd,
            stdio,
            guest_report,
        }),
        (Err(mut failure), Ok(Stdio::Console(master))) => {
            // What a hook has printed there nobody else will show.
            let shown = left_in(master.as_fd());
            if !shown.is_empty() {
                failure.0.message.push_str(", output: ");
                failure.0.message.push_str(&shown);
            }
            Err(failure)
        }
        (Err(failure), _) => Err(failure),
        (Ok(()), Err(failure)) => {
            end(pidfd.as_fd());
            Err(failure)
        }
    }
}

/// Ends an init whose start has failed.
fn end(pidfd: BorrowedFd<'_>) {
    // It may have ended by itself.
    let _ended = sys::signals::send(pidfd, 9);
    let _reaped = rustix::process::waitid(
        rustix::process::WaitId::PidFd(pidfd),
        rustix::process::WaitIdOptions::EXITED,
    );
}

/// The environment of the program. A wasm guest's is in its specification: the host's own is empty.
fn environment(plan: &InitPlan) -> Vec<CString> {
    match plan.process.program {
        Program::Path(_) => plan.process.env.clone(),
        Program::Wasm(_) => Vec::new(),
    }
}

/// For a wasm container: the read end of the guest's report, and what the host gets, its
/// specification and the report's write end.
fn wasm_ends(plan: &InitPlan) -> Result<Option<(OwnedFd, [OwnedFd; 2])>, StartError> {
    let Program::Wasm(wasm) = &plan.process.program else {
        return Ok(None);
    };
    let failed =
        |error: io::Error| StartError::engine("hand the wasm host its specification", &error);
    let spec = sys::sealed::seal("ketch-wasm-spec", &wasm.spec).map_err(failed)?;
    let (read, write) = lasting_pipe().map_err(|errno| failed(errno.into()))?;
    Ok(Some((read, [spec, write])))
}

fn clone_cgroup(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    let Some(path) = &plan.cgroup.clone_into else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(&**path, flags, Mode::empty());
    open.map(Some)
        .map_err(|e| StartError::engine("open the container's cgroup", &e.into()))
}

/// The executable of `--init`, opened while the host's tree is in sight.
fn first_process(plan: &InitPlan) -> Result<Option<OwnedFd>, StartError> {
    let Some(path) = &plan.process.init else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = rustix::fs::open(&**path, flags, Mode::empty());
    open.map(Some)
        .map_err(|e| StartError::engine("open the container's first process", &e.into()))
}
