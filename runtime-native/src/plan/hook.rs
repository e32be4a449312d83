//! Hooks (runtime-spec v1.2 `config.md#posix-platform-hooks`).

use oci_spec::runtime::{Hook, Spec};
use runtime::{ContainerFacts, HookPlan, HooksPlan};

use super::{PlanError, c_string, c_strings};

/// Plans the hooks of the container `id` in `bundle`.
pub(super) fn plan(spec: &Spec, id: &str, bundle: &str) -> Result<HooksPlan, PlanError> {
    let Some(hooks) = spec.hooks() else {
        return Ok(HooksPlan {
            about: about(spec, id, bundle),
            ..HooksPlan::default()
        });
    };
    let mut create_runtime = list("prestart", hooks.prestart())?;
    create_runtime.extend(list("createRuntime", hooks.create_runtime())?);
    Ok(HooksPlan {
        about: about(spec, id, bundle),
        create_runtime,
        create_container: list("createContainer", hooks.create_container())?,
        start_container: start_container(spec, hooks.start_container())?,
        poststart: list("poststart", hooks.poststart())?,
        poststop: list("poststop", hooks.poststop())?,
    })
}

/// Hooks inside the container have its program's environment where they name none.
fn start_container(spec: &Spec, hooks: &Option<Vec<Hook>>) -> Result<Vec<HookPlan>, PlanError> {
    let mut plans = list("startContainer", hooks)?;
    let env = spec
        .process()
        .as_ref()
        .and_then(|process| process.env().as_deref());
    let env = super::process::environment(env.unwrap_or_default())?;
    for (plan, hook) in plans.iter_mut().zip(hooks.iter().flatten()) {
        if hook.env().is_none() {
            plan.env.clone_from(&env);
        }
    }
    Ok(plans)
}

fn about(spec: &Spec, id: &str, bundle: &str) -> ContainerFacts {
    let annotations = spec.annotations().iter().flatten();
    let mut annotations: Vec<_> = annotations
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    annotations.sort();
    ContainerFacts {
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        annotations,
    }
}

fn list(name: &str, hooks: &Option<Vec<Hook>>) -> Result<Vec<HookPlan>, PlanError> {
    let hooks = hooks.iter().flatten().enumerate();
    hooks
        .map(|(index, hook)| one(&format!("hooks.{name}[{index}]"), hook))
        .collect()
}

fn one(field: &str, hook: &Hook) -> Result<HookPlan, PlanError> {
    let path = hook.path().to_string_lossy();
    if !hook.path().is_absolute() {
        return Err(PlanError::Rule {
            path: format!("{field}.path"),
            rule: "must be an absolute path",
        });
    }
    let timeout = hook.timeout();
    if timeout.is_some_and(|seconds| seconds <= 0) {
        return Err(PlanError::Rule {
            path: format!("{field}.timeout"),
            rule: "must be greater than zero",
        });
    }
    let args = match hook.args().as_deref() {
        None | Some([]) => vec![c_string(&path)?],
        Some(args) => c_strings(args)?,
    };
    Ok(HookPlan {
        field: field.to_owned(),
        path: c_string(&path)?,
        args,
        env: c_strings(hook.env().as_deref().unwrap_or_default())?,
        timeout_ms: timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(|seconds| seconds.saturating_mul(1000)),
    })
}
