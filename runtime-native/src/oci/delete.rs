//! `delete`: removes what `create` has made.

use oci_spec::runtime::Spec;
use runtime::HooksPlan;

use super::kill::{Reach, kill_and_wait};
use super::record::Scope;
use super::{Container, Log, OciError, Root, Status};
use crate::hooks::{self, HookState};
use crate::{cgroup, plan, systemd};

/// Removes a container: a stopped one, with `force` also one that runs or was never started.
///
/// With `force` one that does not exist is no error.
///
/// # Errors
/// [`OciError::Status`] for one that is not stopped; what of it could not be removed.
pub fn delete(root: &Root, id: &str, force: bool, log: &Log) -> Result<(), OciError> {
    let container = match root.open(id) {
        Ok(container) => container,
        // What an interrupted `create` has left goes as well.
        Err(OciError::NotFound(_)) if force => return root.discard(id),
        Err(error) => return Err(error),
    };
    let status = container.status();
    let spec = container.spec();
    if status != Status::Stopped {
        if !force {
            return Err(OciError::Status {
                verb: "delete",
                id: id.to_owned(),
                status,
            });
        }
        kill_and_wait(&container, Reach::All)?;
    }
    let spec = spec?;
    let bundle = container.record.bundle.to_string_lossy();
    let hooks = plan::hooks_of(&spec, id, &bundle)?;
    let failures = destroy(&container, &spec, &hooks);
    for failure in &failures {
        log.warning(failure);
    }
    if container.dir.exists() {
        return Err(OciError::Unsupported {
            what: format!("remove container `{id}`"),
            why: failures.join("; "),
        });
    }
    Ok(())
}

/// systemd ends an empty scope by itself, soon: here it is gone when the container is.
fn end_scope(scope: &Scope) -> Vec<String> {
    let stopped = systemd::stop(&scope.unit).map_err(|error| error.to_string());
    let removed = cgroup::remove_scope(&scope.control_group)
        .map_err(|error| format!("cannot remove the control group of the scope: {error}"));
    stopped.err().into_iter().chain(removed.err()).collect()
}

/// Kills what is left, removes groups and directory, runs the `poststop` hooks. Goes on to the end
/// and gives what failed.
pub(super) fn destroy(container: &Container, spec: &Spec, hooks: &HooksPlan) -> Vec<String> {
    let mut failures = Vec::new();
    if container.pid().is_some()
        && let Err(error) = kill_and_wait(container, Reach::All)
    {
        failures.push(error.to_string());
    }
    let groups = container.cgroup(spec).map_err(|error| error.to_string());
    let removed = groups.and_then(|groups| {
        cgroup::kill(&groups)
            .and_then(|()| cgroup::remove(&groups))
            .map_err(|error| error.to_string())
    });
    if let Err(error) = removed {
        failures.push(format!("cannot remove the container's cgroups: {error}"));
    }
    if let Some(scope) = &container.record.scope {
        failures.extend(end_scope(scope));
    }
    failures.extend(container.record.remove_mounts());
    if let Err(error) = sys::durable::remove_tree(&container.dir) {
        failures.push(format!("cannot remove the container's directory: {error}"));
    }
    let state = HookState::new(&hooks.about, "stopped", None);
    failures.extend(hooks::run_each(&hooks.poststop, &state));
    failures
}
