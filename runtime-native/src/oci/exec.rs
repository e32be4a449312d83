//! `exec`: a further program in a running container.

use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec, User};
use runtime::{ExecPlan, LogTarget, OciExec, OciPlan, OciVerb, VERSION};

use super::create::{c_path, choose_terminal, console_size};
use super::{Container, OciError, Status, capability_sets, exec_group, home};
use crate::plan::{self, Options};

/// Options of `exec`. What is absent is as in the container's own process.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// A whole `process` object, in place of the fields below.
    pub process: Option<Process>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// Further variables, `KEY=value`.
    pub env: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// `UID[:GID]`.
    pub user: Option<(u32, Option<u32>)>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// Further capabilities.
    pub cap: Vec<String>,
    /// The label of SELinux.
    pub process_label: Option<String>,
    /// The profile of AppArmor.
    pub apparmor: Option<String>,
    /// Set `no_new_privs`.
    pub no_new_privs: bool,
    /// Also in a paused container, where it waits.
    pub ignore_paused: bool,
    /// Return when it runs.
    pub detach: bool,
    /// Where a terminal's master side goes.
    pub console_socket: Option<PathBuf>,
    /// Where its number is written.
    pub pid_file: Option<PathBuf>,
    /// A socket that its pidfd is sent to.
    pub pidfd_socket: Option<PathBuf>,
    /// So many descriptors from 3 on stay open for it.
    pub preserve_fds: u32,
    /// Control groups below the container's own, `[CONTROLLER,...:]PATH`.
    pub cgroup: Vec<String>,
    /// Where errors go besides standard error.
    pub log: LogTarget,
}

/// Makes the plan that [`super::hand_over`] takes.
///
/// # Errors
/// [`OciError::Status`] for a container that does not run; what is wrong with the process.
pub fn exec(container: &Container, options: &ExecOptions) -> Result<OciPlan, OciError> {
    let status = container.status();
    let fits = match status {
        Status::Running | Status::Created => true,
        Status::Paused => options.ignore_paused,
        Status::Creating | Status::Stopped => false,
    };
    let refuse = || OciError::Status {
        verb: "execute in",
        id: container.id().to_owned(),
        status,
    };
    if status == Status::Paused && !fits {
        return Err(OciError::Paused(container.id().to_owned()));
    }
    if !fits {
        return Err(refuse());
    }
    let pid = container.pid().ok_or_else(refuse)?;
    let spec = container.spec()?;
    let mut process = process(&spec, options)?;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let root = sys::path::open_root(&root).map_err(OciError::io("open", root))?;
    home::set(&mut process, root.as_fd());
    let terminal = choose_terminal(
        process.terminal().unwrap_or(false),
        options.console_socket.as_deref(),
        !options.detach,
        console_size(&process),
    )?;
    let hierarchy = plan::detect();
    let bundle = container.record.bundle.to_string_lossy().into_owned();
    let program = plan::exec_process(
        &spec,
        &process,
        &Options {
            preserve_descriptors: options.preserve_fds,
            ..plan::bare_options(container.id(), &hierarchy, &bundle)
        },
    )?;
    let groups = container.cgroup(&spec)?;
    let groups = exec_group::below(groups, &options.cgroup)?;
    Ok(OciPlan {
        version: VERSION,
        log: options.log.clone(),
        verb: OciVerb::Exec(Box::new(OciExec {
            plan: ExecPlan {
                version: VERSION,
                pid,
                start_time: container.record.start_time.unwrap_or(0),
                namespaces: plan::namespace_flags(&spec),
                cgroup_enter: groups.enter,
                cgroup_clone_into: groups.clone_into,
                console: terminal.size(),
                process: program,
            },
            detach: options.detach,
            terminal,
            pid_file: options.pid_file.as_deref().map(c_path).transpose()?,
            pidfd_socket: options.pidfd_socket.as_deref().map(c_path).transpose()?,
        })),
    })
}

/// The container's own process, changed as the options say.
fn process(spec: &Spec, options: &ExecOptions) -> Result<Process, OciError> {
    if let Some(process) = &options.process {
        return Ok(labelled(process.clone(), options));
    }
    let own = spec.process().as_ref();
    let mut process = own.cloned().ok_or(plan::PlanError::Missing("process"))?;
    process.set_args(Some(options.args.clone()));
    process.set_terminal(Some(options.tty));
    process.set_console_size(None);
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(options.env.iter().cloned());
    process.set_env(Some(env));
    if let Some((uid, gid)) = options.user {
        let mut user = User::default();
        user.set_uid(uid);
        user.set_gid(gid.unwrap_or_else(|| process.user().gid()));
        user.set_umask(process.user().umask());
        process.set_user(user);
    }
    if !options.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&options.additional_gids);
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    if options.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !options.cap.is_empty() {
        let sets = process.capabilities().clone().unwrap_or_default();
        process.set_capabilities(Some(capability_sets::with(&sets, &options.cap)?));
    }
    Ok(labelled(process, options))
}

/// Sets the labels that were asked for: the plan refuses one whose security module is not there.
fn labelled(mut process: Process, options: &ExecOptions) -> Process {
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    process
}
