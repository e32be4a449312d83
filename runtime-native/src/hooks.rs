//! Hooks that run outside the container, in `ketch-init` or a front end: each gets the container's
//! state on standard input and must succeed within its time (runtime-spec v1.2
//! `config.md#posix-platform-hooks`). Those inside are run by the init itself.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use runtime::{ContainerFacts, HookPlan, StartFailure, code};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;

use crate::step::hook_failure;

/// As much of a failed hook's output as its error message shows.
const MAX_OUTPUT: u64 = 1024;

/// The state of a container as hooks and `state` show it (runtime-spec v1.2 `runtime.md#state`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a str,
    annotations: std::collections::BTreeMap<&'a str, &'a str>,
}

impl<'a> HookState<'a> {
    /// The state in a moment of the container's life.
    pub(crate) fn new(about: &'a ContainerFacts, status: &'a str, pid: Option<i32>) -> Self {
        Self {
            oci_version: &about.oci_version,
            id: &about.id,
            status,
            pid,
            bundle: &about.bundle,
            annotations: about
                .annotations
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        // Strings and numbers: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Runs the hooks in order, up to the first that fails.
///
/// # Errors
/// Which one failed, and how.
pub(crate) fn run_all(hooks: &[HookPlan], state: &HookState<'_>) -> Result<(), StartFailure> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state.json();
    hooks.iter().try_for_each(|hook| {
        run(hook, &state).map_err(|why| StartFailure {
            code: code::ENGINE,
            message: hook_failure(Some(hook), &why),
        })
    })
}

/// Runs every hook and gives what failed: for hooks whose failure changes nothing.
pub(crate) fn run_each(hooks: &[HookPlan], state: &HookState<'_>) -> Vec<String> {
    let state = state.json();
    let failed = |hook| Some(hook_failure(Some(hook), &run(hook, &state).err()?));
    hooks.iter().filter_map(failed).collect()
}

fn run(hook: &HookPlan, state: &[u8]) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let stdin = sys::sealed::seal("ketch-state", state).map_err(text)?;
    // A file, not a pipe: whoever a hook leaves behind must not hold us up.
    let output = rustix::fs::memfd_create("ketch-hook-output", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| text(errno.into()))?;
    let copy = |fd: &OwnedFd| fd.try_clone().map(Stdio::from).map_err(text);
    let mut args = hook.args.iter().map(|arg| os(arg));
    let mut command = Command::new(os(&hook.path));
    if let Some(first) = args.next() {
        command.arg0(first);
    }
    command.args(args).env_clear();
    for pair in &hook.env {
        let pair = pair.to_bytes();
        let split = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = pair.split_at(split.unwrap_or(pair.len()));
        let value = value.strip_prefix(b"=").unwrap_or(value);
        command.env(OsStr::from_bytes(key), OsStr::from_bytes(value));
    }
    let child = command
        .stdin(Stdio::from(stdin))
        .stdout(copy(&output)?)
        .stderr(copy(&output)?)
        .spawn()
        .map_err(text)?;
    let status = wait(child, hook.timeout_ms)?;
    if status.success() {
        return Ok(());
    }
    Err(match shown(output) {
        output if output.is_empty() => status.to_string(),
        output => format!("{status}, output: {output}"),
    })
}

fn wait(mut child: Child, timeout_ms: Option<u64>) -> Result<ExitStatus, String> {
    let text = |error: std::io::Error| error.to_string();
    if let Some(limit) = timeout_ms {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or("it has no number")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| text(e.into()))?;
        let limit = Timespec::try_from(Duration::from_millis(limit)).ok();
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()));
        if ready.map_err(|e| text(e.into()))? == 0 {
            // It may have ended in this moment.
            let _ended = child.kill();
            child.wait().map_err(text)?;
            return Err("it took longer than its timeout".to_owned());
        }
    }
    child.wait().map_err(text)
}

/// The beginning of what a hook has written, in one line.
fn shown(output: OwnedFd) -> String {
    let mut file = File::from(output);
    let mut bytes = Vec::new();
    // An output that cannot be read is not shown.
    let _read = file
        .rewind()
        .and_then(|()| file.take(MAX_OUTPUT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes)
        .trim()
        .replace(char::is_control, " ")
}

fn os(text: &CStr) -> &OsStr {
    OsStr::from_bytes(text.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn shell(script: &str, timeout_ms: Option<u64>) -> HookPlan {
        HookPlan {
            field: "hooks.prestart[0]".to_owned(),
            path: CString::from(c"/bin/sh"),
            args: ["sh", "-c", script]
                .map(|arg| CString::new(arg).unwrap())
                .to_vec(),
            env: vec![CString::from(c"A=b=c")],
            timeout_ms,
        }
    }

    #[test]
    fn hook_gets_the_state_and_its_environment() {
        let about = ContainerFacts {
            id: "one".to_owned(),
            ..ContainerFacts::default()
        };
        let state = HookState::new(&about, "creating", Some(7));
        let script = r#"read -r line; case $line in *'"id":"one","status":"creating","pid":7'*) test "$A" = b=c;; *) exit 9;; esac"#;
        run_all(&[shell(script, None)], &state).unwrap();
    }

    #[test]
    fn hook_that_fails_is_named_with_its_output() {
        let about = ContainerFacts::default();
        let state = HookState::new(&about, "creating", None);
        let error = run_all(&[shell("echo no luck; exit 3", None)], &state).unwrap_err();
        assert_eq!(
            error.message,
            "cannot run hooks.prestart[0] `/bin/sh`: exit status: 3, output: no luck"
        );
    }

    #[test]
    fn hook_over_its_timeout_is_killed() {
        let about = ContainerFacts::default();
        let state = HookState::new(&about, "creating", None);
        let hooks = [shell("exec sleep 1000", Some(50)), shell("exit 0", None)];
        assert_eq!(run_each(&hooks, &state).len(), 1);
    }
}
