//! Changes a container's specification by the options.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, PosixRlimitBuilder, Spec};
use runtime_native::capability;
use state::Layout;

use super::namespaces::{self, SharedNamespace};
use super::options::UserMode;
use super::{cdi, devices, limits, security};
use crate::options::ContainerOptions;
use crate::{Engine, EngineError};

/// What the options are applied in.
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: &'a ContainerOptions,
    pub(crate) id: &'a str,
    /// Why it is a wasm container, when it is one.
    pub(crate) wasm: Option<String>,
}

/// What the start of the container needs besides the specification.
pub(crate) struct Applied {
    /// Namespaces of other containers.
    pub(crate) shared: Vec<SharedNamespace>,
    /// Docker's filter is loaded; otherwise the specification's, or none.
    pub(crate) default_filter: bool,
}

/// An option that cannot be had, and why.
pub(super) fn refused(option: &str, why: &str) -> EngineError {
    EngineError::Unsupported(format!("cannot use {option}: {why}"))
}

impl Context<'_> {
    /// Whether device nodes cannot be made: they are bound from the host then.
    pub(super) fn binds_devices(&self) -> bool {
        self.engine.is_in_user_namespace() || self.options.isolation.users != UserMode::Host
    }

    pub(super) fn layout(&self) -> &Layout {
        self.engine.layout()
    }
}

/// Applies all of them.
pub(crate) fn apply(context: &Context<'_>, spec: &mut Spec) -> Result<Applied, EngineError> {
    let options = &context.options.isolation;
    if let Some(reason) = &context.wasm
        && let Some((option, why)) = options.first_only_native()
    {
        return Err(refused(option, &format!("{why} ({reason})")));
    }
    if context.wasm.is_none() {
        let held = security::capabilities(options)?;
        if let Some(process) = spec.process_mut() {
            crate::exec::set_capabilities(process, held);
        }
    }
    let default_filter = security::apply(options, spec)?;
    devices::apply(context, spec)?;
    cdi::apply(context, spec)?;
    let shared = namespaces::apply(context, spec)?;
    limits::apply(context.options, spec)?;
    check_oom_score(context)?;
    set_process(context, spec)?;
    if let Some(bytes) = options.shm_bytes {
        set_shm_size(spec, bytes);
    }
    if let Some(parent) = &options.cgroup_parent
        && let Some(linux) = spec.linux_mut()
    {
        linux.set_cgroups_path(Some(Path::new(parent).join(context.id)));
    }
    if !options.sysctl.is_empty()
        && let Some(linux) = spec.linux_mut()
    {
        let mut all = linux.sysctl().clone().unwrap_or_default();
        all.extend(options.sysctl.iter().cloned());
        linux.set_sysctl(Some(all));
    }
    Ok(Applied {
        shared,
        default_filter,
    })
}

fn set_process(context: &Context<'_>, spec: &mut Spec) -> Result<(), EngineError> {
    let options = &context.options.isolation;
    let Some(process) = spec.process_mut() else {
        return Ok(());
    };
    if options.oom_score_adj.is_some() {
        process.set_oom_score_adj(options.oom_score_adj);
    }
    let rlimits = options.ulimits.iter().map(|limit| {
        PosixRlimitBuilder::default()
            .typ(limit.resource)
            .soft(limit.soft)
            .hard(limit.hard)
            .build()
            .map_err(|error| refused("--ulimit", &error.to_string()))
    });
    let rlimits = rlimits.collect::<Result<Vec<_>, _>>()?;
    if !rlimits.is_empty() {
        process.set_rlimits(Some(rlimits));
    }
    Ok(())
}

/// The kernel lets only `CAP_SYS_RESOURCE` of the host protect a process more than its parent is
/// (proc_pid_oom_score_adj(5)).
fn check_oom_score(context: &Context<'_>) -> Result<(), EngineError> {
    let Some(wanted) = context.options.isolation.oom_score_adj else {
        return Ok(());
    };
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let own: i32 = own.trim().parse().unwrap_or(0);
    let may = !context.engine.is_in_user_namespace() && security::has_sys_resource();
    if wanted < own && !may {
        return Err(refused(
            &format!("--oom-score-adj `{wanted}`"),
            &format!("below {own}, which this process has, it takes CAP_SYS_RESOURCE"),
        ));
    }
    Ok(())
}

/// A mount of the user's own on `/dev/shm` has its own size.
fn set_shm_size(spec: &mut Spec, bytes: u64) {
    let shm = spec
        .mounts_mut()
        .iter_mut()
        .flatten()
        .find(|mount| mount.destination() == Path::new("/dev/shm") && is_shm(mount));
    if let Some(shm) = shm {
        let mut options = shm.options().clone().unwrap_or_default();
        options.retain(|option| !option.starts_with("size="));
        options.push(format!("size={bytes}"));
        shm.set_options(Some(options));
    }
}

fn is_shm(mount: &oci_spec::runtime::Mount) -> bool {
    mount.source().as_deref() == Some(Path::new("shm"))
}

/// What a program of the container may do at most, by its specification.
pub(crate) fn bounding(spec: &Spec) -> u64 {
    let process = spec.process().as_ref();
    let sets = process.and_then(|process| process.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().as_ref());
    capability::from_spec(bounding.into_iter().flatten())
}

/// Takes a namespace out of a specification: the container stays in its creator's.
pub(super) fn without_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    if let Some(linux) = spec.linux_mut()
        && let Some(namespaces) = linux.namespaces_mut()
    {
        namespaces.retain(|namespace| namespace.typ() != kind);
    }
}
