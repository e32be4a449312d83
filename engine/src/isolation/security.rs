//! Capabilities, the filter of system calls, labels, hidden paths.

use std::fs;
use std::path::Path;

use oci_spec::runtime::Spec;
use runtime_native::capability;
use runtime_native::seccomp::{Arch, Host, from_json};

use super::apply::{bounding, refused};
use super::options::{IsolationOptions, SeccompProfile};
use crate::EngineError;

/// The capabilities of a container's program.
pub(super) fn capabilities(options: &IsolationOptions) -> Result<u64, EngineError> {
    let base = match options.privileged {
        true => capability::ALL,
        false => capability::DEFAULT,
    };
    let wrong = |error: capability::CapabilityError| {
        let text = format!("cannot use --cap-add and --cap-drop: {error}");
        EngineError::Unsupported(text)
    };
    let held = capability::adjust(base, &options.cap_add, &options.cap_drop).map_err(wrong)?;
    // A name that stands for itself must be had; `ALL` is all that there is.
    let own = own_bounding_set();
    for name in &options.cap_add {
        let bit = capability::parse(name).map_err(wrong)?;
        if bit != capability::ALL && bit & own == 0 {
            return Err(refused(
                &format!("--cap-add `{name}`"),
                "this process does not have it, and cannot give it",
            ));
        }
    }
    Ok(held)
}

/// What this process can pass on (proc_pid_status(5)).
fn own_bounding_set() -> u64 {
    own_set("CapBnd:").unwrap_or(capability::ALL)
}

/// Whether this process may pass limits of the kernel's.
pub(super) fn has_sys_resource() -> bool {
    const SYS_RESOURCE: u64 = 1 << 24;
    own_set("CapEff:").unwrap_or(0) & SYS_RESOURCE != 0
}

fn own_set(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Applies the rest; says whether Docker's own filter is loaded.
pub(super) fn apply(options: &IsolationOptions, spec: &mut Spec) -> Result<bool, EngineError> {
    let security = &options.security;
    if (options.privileged || security.all_system_paths)
        && let Some(linux) = spec.linux_mut()
    {
        linux.set_masked_paths(Some(Vec::new()));
        linux.set_readonly_paths(Some(Vec::new()));
    }
    if options.privileged {
        make_writable(spec, Path::new("/sys"));
    }
    if options.privileged || security.writable_cgroups {
        make_writable(spec, Path::new("/sys/fs/cgroup"));
    }
    if let Some(profile) = &security.apparmor
        && let Some(process) = spec.process_mut()
    {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if !security.labels.is_empty() {
        set_label(spec, &security.labels);
    }
    match &security.seccomp {
        SeccompProfile::Default => Ok(!options.privileged),
        SeccompProfile::Unconfined => Ok(false),
        SeccompProfile::Profile(json) => {
            let unknown = || {
                refused(
                    "--security-opt seccomp",
                    "no filter is made for this machine",
                )
            };
            let arch = Arch::native().ok_or_else(unknown)?;
            let host = Host::current(bounding(spec), arch);
            let profile = from_json(json, &host)
                .map_err(|error| refused("--security-opt seccomp", &chain(&error)))?;
            if let Some(linux) = spec.linux_mut() {
                linux.set_seccomp(Some(profile));
            }
            Ok(false)
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn make_writable(spec: &mut Spec, target: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if mount.destination() == target
            && let Some(options) = mount.options_mut()
        {
            options.retain(|option| option != "ro");
        }
    }
}

/// The parts of a label that were asked for, in the type that containers have by default.
fn set_label(spec: &mut Spec, parts: &[String]) {
    let part = |key: &str, default: &'static str| {
        let given = parts.iter().rev().find_map(|part| part.strip_prefix(key));
        given.unwrap_or(default).to_owned()
    };
    let (user, role) = (part("user:", "system_u"), part("role:", "system_r"));
    let level = part("level:", "s0");
    let process_label = format!("{user}:{role}:{}:{level}", part("type:", "container_t"));
    let file_label = format!(
        "{user}:object_r:{}:{level}",
        part("filetype:", "container_file_t")
    );
    if let Some(process) = spec.process_mut() {
        process.set_selinux_label(Some(process_label));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_mount_label(Some(file_label));
    }
}
