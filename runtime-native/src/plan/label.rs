//! Labels of AppArmor and SELinux (runtime-spec v1.2 `config.md#linux-process`).

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Linux, Process};

use super::{PlanError, c_string};

/// What is written where, below the process's own directory of procfs, before `execve`.
pub(super) fn plan(
    process: &Process,
    linux: &Linux,
) -> Result<Option<(CString, CString)>, PlanError> {
    let set = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let apparmor = set(process.apparmor_profile());
    let selinux = set(process.selinux_label());
    if set(linux.mount_label()).is_some() {
        require_selinux("linux.mountLabel")?;
    }
    match (apparmor, selinux) {
        (None, None) => Ok(None),
        (Some(profile), _) => {
            if !Path::new("/sys/kernel/security/apparmor").exists() {
                return Err(absent("process.apparmorProfile", "AppArmor"));
            }
            let file = if Path::new("/proc/self/attr/apparmor/exec").exists() {
                c"attr/apparmor/exec"
            } else {
                c"attr/exec"
            };
            Ok(Some((
                file.to_owned(),
                c_string(&format!("exec {profile}"))?,
            )))
        }
        (None, Some(label)) => {
            require_selinux("process.selinuxLabel")?;
            Ok(Some((c"attr/exec".to_owned(), c_string(&label)?)))
        }
    }
}

fn require_selinux(field: &str) -> Result<(), PlanError> {
    match Path::new("/sys/fs/selinux/enforce").exists() {
        true => Ok(()),
        false => Err(absent(field, "SELinux")),
    }
}

fn absent(field: &str, module: &str) -> PlanError {
    PlanError::Unavailable {
        option: format!("`{field}`"),
        why: format!("{module} is not enabled in this kernel"),
    }
}
