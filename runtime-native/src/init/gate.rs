//! What stands between a finished container and its program: hooks inside the container, and the
//! wait for `start`.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use runtime::{HookPlan, HooksPlan, Program};
use rustix::fs::{Access, AtFlags, FileType, SeekFrom};
use rustix::io::Errno;
use sys::exec::{CStringArray, Ended};

use super::{At, Result};
use crate::step::{Failure, Step, hook_errno};

/// The hooks that the init runs itself, with their arguments as `execve` wants them: made before the
/// clone.
#[derive(Debug)]
pub(crate) struct InitHooks {
    create_container: Vec<Strings>,
    start_container: Vec<Strings>,
}

#[derive(Debug)]
struct Strings {
    args: CStringArray,
    env: CStringArray,
}

impl InitHooks {
    pub(crate) fn new(plan: &HooksPlan) -> Self {
        let strings = |hooks: &[HookPlan]| {
            let one = |hook: &HookPlan| Strings {
                args: CStringArray::new(hook.args.clone()),
                env: CStringArray::new(hook.env.clone()),
            };
            hooks.iter().map(one).collect()
        };
        Self {
            create_container: strings(&plan.create_container),
            start_container: strings(&plan.start_container),
        }
    }

    /// Runs the `createContainer` hooks.
    pub(super) fn create(&self, plan: &HooksPlan, state: BorrowedFd<'_>) -> Result<()> {
        let step = Step::CreateContainerHook;
        run(&plan.create_container, &self.create_container, state, step)
    }

    /// Runs the `startContainer` hooks.
    pub(super) fn start(&self, plan: &HooksPlan, state: BorrowedFd<'_>) -> Result<()> {
        let step = Step::StartContainerHook;
        run(&plan.start_container, &self.start_container, state, step)
    }
}

fn run(hooks: &[HookPlan], strings: &[Strings], state: BorrowedFd<'_>, step: Step) -> Result<()> {
    for (index, (hook, strings)) in hooks.iter().zip(strings).enumerate() {
        rustix::fs::seek(state, SeekFrom::Start(0)).at_item(step, index)?;
        let (args, env) = (&strings.args, &strings.env);
        let ended = sys::exec::run_program(&hook.path, args, env, state, hook.timeout_ms);
        if ended != Ok(Ended::Exited(0)) {
            return Err(hook_errno(ended)).at_item(step, index);
        }
    }
    Ok(())
}

/// From here on SIGTERM and its like end a container that waits: without a handler they would do
/// nothing to the first process of a pid namespace. Before anybody hears that it was created.
pub(super) fn end_on_signals() -> Result<()> {
    const SIGNALS: [i32; 7] = [1, 2, 3, 10, 12, 14, 15];
    let handled = sys::signal::end_process_on(&SIGNALS);
    handled
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .at(Step::Gate)
}

/// Waits for the byte that lets the program start.
pub(super) fn wait(start: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0; 1];
    rustix::io::retry_on_intr(|| rustix::io::read(start, &mut byte)).at(Step::Gate)?;
    Ok(())
}

/// Reports a program that is missing or not executable before the container counts as created.
pub(super) fn check_program(program: &Program) -> Result<()> {
    let Program::Path(candidates) = program else {
        return Ok(());
    };
    // A container may be created without a program: its start is what is refused.
    if candidates.is_empty() {
        return Ok(());
    }
    let mut result = Errno::NOENT;
    for path in candidates {
        match check_one(path) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => result = errno,
        }
    }
    Err(Failure {
        step: Step::Exec,
        index: 0,
        errno: result,
    })
}

fn check_one(path: &CString) -> std::result::Result<(), Errno> {
    let cwd = rustix::fs::CWD;
    let stat = match rustix::fs::statat(cwd, &**path, AtFlags::empty()) {
        // A filter or a kernel without the call says no to the question, not to the file.
        Err(Errno::NOSYS | Errno::PERM) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ACCESS);
    }
    match rustix::fs::accessat(cwd, &**path, Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        other => other,
    }
}
