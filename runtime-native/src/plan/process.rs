//! The program: arguments, user, capabilities, limits, filter.

use std::collections::HashMap;

use oci_spec::runtime::{Capabilities, Linux, PosixRlimit, PosixRlimitType, Process};
use runtime::{
    CapabilitySets, ContainerFacts, CpuAffinity, ProcessPlan, Program, Rlimit, SeccompListener,
};

use super::{Options, PlanError, c_string, label, schedule};
use crate::capability;
use crate::seccomp::{self, Arch};

/// `PATH` of a container whose environment has none, as the C library's `execvp` would look.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The mask that Docker and the runtime specification's users expect.
const DEFAULT_UMASK: u32 = 0o022;

/// Plans the process.
pub(super) fn plan(
    process: &Process,
    linux: &Linux,
    options: &Options<'_>,
) -> Result<ProcessPlan, PlanError> {
    let args = process.args().as_deref().unwrap_or_default();
    let first = args.first().ok_or(PlanError::Missing("process.args"))?;
    let env = process.env().as_deref().unwrap_or_default();
    let cwd = process.cwd().to_string_lossy();
    let user = process.user();
    let capabilities = sets(process.capabilities().as_ref());
    let program = match &options.wasm {
        Some(wasm) => Program::Wasm(wasm.clone()),
        None => Program::Path(candidates(first, env, &cwd)?),
    };
    let (seccomp, seccomp_flags) = filter(linux, options)?;
    Ok(ProcessPlan {
        program,
        args: args
            .iter()
            .map(|arg| c_string(arg))
            .collect::<Result<_, _>>()?,
        env: environment(env)?,
        cwd: c_string(&cwd)?,
        create_cwd: options.create_cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(DEFAULT_UMASK),
        capabilities,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp,
        seccomp_flags,
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        oom_score_adj: process
            .oom_score_adj()
            .map(|value| value.clamp(-1000, 1000)),
        seccomp_listener: listener(linux, options)?,
        scheduler: optional(process.scheduler(), schedule::scheduler)?,
        io_priority: optional(process.io_priority(), schedule::io_priority)?,
        personality: optional(linux.personality(), schedule::personality)?,
        memory_policy: optional(linux.memory_policy(), schedule::memory_policy)?,
        // It is for further programs only.
        affinity: CpuAffinity::default(),
        exec_label: label::plan(process, linux)?,
        preserve_descriptors: options.preserve_descriptors,
        init: options.init.clone(),
    })
}

/// Of two variables with one name the later one counts: `getenv` would find the earlier.
pub(super) fn environment(env: &[String]) -> Result<Vec<std::ffi::CString>, PlanError> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut last = HashMap::with_capacity(env.len());
    for (index, pair) in env.iter().enumerate() {
        last.insert(name(pair), index);
    }
    let kept = env
        .iter()
        .enumerate()
        .filter(|(index, pair)| last.get(&name(pair)) == Some(index));
    kept.map(|(_, pair)| c_string(pair)).collect()
}

fn optional<T, U>(
    value: &Option<T>,
    plan: impl Fn(&T) -> Result<U, PlanError>,
) -> Result<Option<U>, PlanError> {
    value.as_ref().map(plan).transpose()
}

fn listener(linux: &Linux, options: &Options<'_>) -> Result<Option<SeccompListener>, PlanError> {
    let profile = linux.seccomp().as_ref();
    let Some(path) = profile.and_then(|profile| profile.listener_path().as_ref()) else {
        return Ok(None);
    };
    let metadata = profile.and_then(|profile| profile.listener_metadata().clone());
    Ok(Some(SeccompListener {
        path: c_string(&path.to_string_lossy())?,
        metadata: metadata.unwrap_or_default(),
        about: ContainerFacts {
            oci_version: crate::OCI_VERSION.to_owned(),
            id: options.id.to_owned(),
            bundle: options.bundle.to_owned(),
            annotations: Vec::new(),
        },
    }))
}

/// The paths to try: the name itself when it has a slash, else in each directory of `PATH`.
fn candidates(name: &str, env: &[String], cwd: &str) -> Result<Vec<std::ffi::CString>, PlanError> {
    if name.contains('/') {
        return Ok(vec![c_string(name)?]);
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    path.unwrap_or(DEFAULT_PATH)
        .split(':')
        .map(|dir| match dir {
            "" => c_string(&format!("{}/{name}", cwd.trim_end_matches('/'))),
            dir => c_string(&format!("{}/{name}", dir.trim_end_matches('/'))),
        })
        .collect()
}

fn sets(specified: Option<&oci_spec::runtime::LinuxCapabilities>) -> CapabilitySets {
    let Some(specified) = specified else {
        return CapabilitySets::default();
    };
    let mask = |set: &Option<Capabilities>| capability::from_spec(set.iter().flatten());
    CapabilitySets {
        bounding: mask(specified.bounding()),
        effective: mask(specified.effective()),
        permitted: mask(specified.permitted()),
        inheritable: mask(specified.inheritable()),
        ambient: mask(specified.ambient()),
    }
}

fn filter(linux: &Linux, options: &Options<'_>) -> Result<(Vec<u8>, u32), PlanError> {
    if let Some(program) = &options.seccomp {
        return Ok((program.clone(), seccomp::DEFAULT_FLAGS));
    }
    match linux.seccomp() {
        Some(profile) => {
            let native = Arch::native().ok_or(PlanError::Unavailable {
                option: "linux.seccomp".to_owned(),
                why: "no filters are made for this machine's architecture".to_owned(),
            })?;
            let compiled = seccomp::compile(profile, native).map_err(PlanError::Seccomp)?;
            Ok((compiled.program, compiled.flags))
        }
        None => Ok((Vec::new(), 0)),
    }
}

/// Limits are the specification's and must be met: lowering them to what this process may set is
/// the choice of whoever wrote the specification.
fn rlimit(limit: &PosixRlimit) -> Rlimit {
    Rlimit {
        resource: resource(limit.typ()),
        soft: limit.soft(),
        hard: limit.hard(),
        clamp: false,
    }
}

/// `RLIMIT_*` of `asm-generic/resource.h`.
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_keeps_the_later_of_two() {
        let env = ["A=1", "B=2", "A=3"].map(str::to_owned);
        let kept = environment(&env).unwrap();
        assert_eq!(kept, [c"B=2".to_owned(), c"A=3".to_owned()]);
    }

    #[test]
    fn candidates_follow_the_path_of_the_environment() {
        let env = vec!["PATH=/a:/b/:".to_owned()];
        let paths = candidates("sh", &env, "/work").unwrap();
        let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/a/sh", "/b/sh", "/work/sh"]);
        assert_eq!(candidates("./x", &env, "/").unwrap().len(), 1);
    }
}
