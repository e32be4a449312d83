//! `start`: lets a created container's program run.

use std::io;

use runtime::{HooksPlan, StartFailure, code};

use super::pipe::Opener;
use super::{Container, Log, OciError, Status};
use crate::hooks::{self, HookState};
use crate::plan::{self, PlanError};
use crate::step::{self, Failure, Step};

/// Starts a created container.
///
/// # Errors
/// [`OciError::Status`] for one that is not waiting, or why its program does not run.
pub fn start(container: &Container, log: &Log) -> Result<(), OciError> {
    let refuse = |status| OciError::Status {
        verb: "start",
        id: container.id().to_owned(),
        status,
    };
    let status = container.status();
    if status != Status::Created {
        return Err(refuse(status));
    }
    let spec = container.spec()?;
    if spec.process().is_none() {
        return Err(OciError::Plan(PlanError::Missing("process")));
    }
    let bundle = container.record.bundle.to_string_lossy();
    let hooks = plan::hooks_of(&spec, container.id(), &bundle)?;
    let opener = Opener::claim(&container.dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(Status::Running),
        _ => refuse(container.status()),
    })?;
    let args = spec
        .process()
        .as_ref()
        .and_then(|process| process.args().clone());
    let program = args.and_then(|args| args.into_iter().next());
    let started = opener
        .open(|failure| describe(failure, &hooks, program.as_deref()))
        .and_then(|()| {
            let state = HookState::new(&hooks.about, "running", container.record.pid);
            hooks::run_all(&hooks.poststart, &state).map_err(OciError::Start)
        });
    if started.is_err() {
        // The container is stopped and removed (runtime-spec v1.2 `runtime.md#lifecycle`).
        for failure in super::delete::destroy(container, &spec, &hooks) {
            log.warning(&failure);
        }
    }
    started
}

fn describe(failure: Failure, hooks: &HooksPlan, program: Option<&str>) -> StartFailure {
    match failure.step {
        Step::Exec => {
            let name = program.and_then(|name| std::ffi::CString::new(name).ok());
            step::exec_failure(name.as_deref(), failure.errno)
        }
        Step::StartContainerHook => StartFailure {
            code: code::ENGINE,
            message: failure.describe_hook(&hooks.start_container),
        },
        _ => StartFailure {
            code: code::ENGINE,
            message: format!(
                "cannot start the container: {}",
                step::reason(failure.errno)
            ),
        },
    }
}
