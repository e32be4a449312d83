//! RUN: a container of the layers so far, whose upper directory is the new layer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::{DeviceRequest, EngineError, IsolationOptions, Network, Session, StepOptions, Wanted};
use image::{BuiltLayer, LayeredRoot, Platform};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::Execution;
use super::mounts::Planned;
use super::stage::{At, created};
use super::state::State;
use super::stubs::Stubs;
use crate::cache::KeyBuilder;
use crate::dockerfile::{CommandLine, Run, Security, is_announcement};
use crate::error::BuildError;
use crate::progress::{Event, StepEnd, StepId};
use crate::scope::proxies;

/// How often a step that says nothing is asked whether it is to be stopped.
const PAUSE: Duration = Duration::from_millis(200);

/// How many lines of a failed command's output are kept for its error.
const KEPT_LINES: usize = 20;

/// The longest line that is passed on whole.
const MAX_LINE: usize = 16 * 1024;

const STREAMS: Wanted = Wanted {
    stdin: false,
    stdout: true,
    stderr: true,
};

/// The command of a RUN, with the program that its heredoc is.
struct Command {
    args: Vec<String>,
    /// Where the heredoc is mounted, and its text.
    script: Option<(String, String)>,
}

impl Execution<'_> {
    /// Carries out RUN.
    pub(super) fn run_command(
        &self,
        state: &mut State,
        at: At<'_>,
        run: &Run,
    ) -> Result<(), BuildError> {
        self.require_allowed(at, run)?;
        let command = command(state, run);
        let planned = self.plan_mounts(state, at, run)?;
        let layer = self.step(&at.title(), |step| {
            let begin = Instant::now();
            let key = [self.run_key(state, at, run, &command, &planned)?];
            if let Some(layer) = self.cached(&key, self.uses_cache(at.stage.index)) {
                return Ok((layer, StepEnd::Cached));
            }
            require_native(&state.platform, at)?;
            let built = self.execute(state, at, run, &command, &planned, step)?;
            Ok((
                self.keep_layer(built, &key, "RUN", at.instruction, begin),
                StepEnd::Done,
            ))
        })?;
        state.own.push(layer);
        state.record(at.instruction, &created(self.shared.epoch), true);
        Ok(())
    }

    fn run_key(
        &self,
        state: &State,
        at: At<'_>,
        run: &Run,
        command: &Command,
        planned: &[Planned],
    ) -> Result<image::Digest, BuildError> {
        let config = &state.config.config;
        let mut key = KeyBuilder::new("run");
        key.add("chain", &state.chain());
        key.add("platform", &state.platform.to_string());
        key.add_all("args", &command.args);
        if let Some((path, text)) = &command.script {
            key.add(path, text);
        }
        key.add_all("env", &config.env);
        key.add_all("arg", &state.scope.env(config));
        key.add("cwd", &config.working_dir);
        key.add("user", &config.user);
        key.add("network", run.network.as_deref().unwrap_or("default"));
        if run.security == Security::Insecure {
            key.add("security", "insecure");
        }
        for device in &run.devices {
            key.add("device", &device.name);
        }
        key.add(
            "hosts",
            &format!(
                "{:?}",
                self.shared
                    .options
                    .network_options
                    .extra_hosts
                    .iter()
                    .map(|(name, _)| name)
                    .collect::<Vec<_>>()
            ),
        );
        key.add("epoch", &self.shared.epoch.to_string());
        if let Some(hostname) = &self.shared.switches.hostname {
            key.add("hostname", hostname);
        }
        self.mount_key(at, planned, &mut key)?;
        Ok(key.finish())
    }

    fn execute(
        &self,
        state: &State,
        at: At<'_>,
        run: &Run,
        command: &Command,
        planned: &[Planned],
        step: StepId,
    ) -> Result<BuiltLayer, BuildError> {
        let engine = self.shared.engine;
        let options = self.shared.options;
        let mut mounted = self.mount(at, planned)?;
        if let Some((target, text)) = &command.script {
            let dir = self.shared.session.temporary("script-")?;
            let path = dir.path().join("script");
            let write = || -> std::io::Result<()> {
                let mut file = File::create(&path)?;
                file.write_all(text.as_bytes())?;
                file.set_permissions(std::fs::Permissions::from_mode(0o755))
            };
            write().map_err(BuildError::io("write the script of a step"))?;
            mounted.script(dir, target);
        }
        let stubs = Stubs::make(self.shared.session.temporary("stubs-")?, &mounted.points)
            .map_err(BuildError::io("make the mount points of a step"))?;
        let lower = state.root(engine)?;
        let mut layers = lower.dirs().to_vec();
        layers.push(stubs.path());
        let mut env = state.scope.env(&state.config.config);
        env.extend(proxies(&options.args));
        env.append(&mut mounted.env);
        let network = match run.network.as_deref() {
            Some("none") => Network::None,
            Some("host") => Network::Host,
            _ => options.network.clone(),
        };
        let started = StepOptions {
            image: at.stage.image.clone(),
            layers,
            args: command.args.clone(),
            config: state.config.config.clone(),
            env,
            mounts: std::mem::take(&mut mounted.mounts),
            network,
            network_options: options.network_options.clone(),
            memory_bytes: options.memory_bytes,
            isolation: self.isolation(run),
            hostname: self.shared.switches.hostname.clone(),
        };
        let container = engine
            .create_step(&started)
            .map_err(|error| self.not_started(at, error))?;
        let result = (|| {
            let session = engine
                .start_step(&container, STREAMS)
                .map_err(|error| self.not_started(at, error))?;
            let (code, output) = self.follow(&session, at, step)?;
            if self.is_stopped() {
                return Err(BuildError::Stopped);
            }
            if code != 0 {
                let place = Box::new(at.place(""));
                return Err(BuildError::Run {
                    place,
                    code,
                    output,
                });
            }
            let upper = engine.step_upper(&container);
            self.adopt(&upper, &stubs, &lower).map_err(|error| {
                error.or_at(&at.place(""), "cannot keep what the command has made")
            })
        })();
        let removed = engine.remove_step(&container);
        let built = result?;
        removed?;
        Ok(built)
    }

    /// Whether whoever builds lets the file ask for this.
    pub(super) fn require_allowed(&self, at: At<'_>, run: &Run) -> Result<(), BuildError> {
        let Some((written, value)) = self.shared.options.allowed.refuses(run) else {
            return Ok(());
        };
        let what = format!("`{written}` is not allowed: it lets the step out of its walls");
        Err(at.fail(&written, what).with_hint(format!(
            "if you trust the file, build with `--allow {value}`"
        )))
    }

    /// What of the step's walls is as the instruction says.
    fn isolation(&self, run: &Run) -> IsolationOptions {
        let mut isolation = self.shared.options.isolation.clone();
        isolation.privileged = run.security == Security::Insecure;
        for device in &run.devices {
            let name = &device.name;
            if device.required || engine::is_cdi_device(name, &isolation.cdi_dirs) {
                let request = DeviceRequest::Cdi(name.clone());
                isolation.devices.push(request);
            } else {
                self.warn(&format!(
                    "no CDI specification has the device `{name}`: the step goes without it"
                ));
            }
        }
        isolation
    }

    fn adopt(
        &self,
        upper: &Path,
        stubs: &Stubs,
        lower: &LayeredRoot,
    ) -> Result<BuiltLayer, BuildError> {
        stubs
            .sweep(upper, lower)
            .map_err(BuildError::io("take away the mount points of a step"))?;
        Ok(self.shared.session.adopt(upper, lower, self.shared.epoch)?)
    }

    fn not_started(&self, at: At<'_>, error: EngineError) -> BuildError {
        if self.is_stopped() {
            return BuildError::Stopped;
        }
        BuildError::from(error).or_at(&at.place(""), "cannot run the command")
    }

    /// Passes on what a step prints until it has ended. Gives its exit code and its last lines.
    fn follow(
        &self,
        session: &Session,
        at: At<'_>,
        step: StepId,
    ) -> Result<(u8, String), BuildError> {
        session
            .wait_started()
            .map_err(|error| self.not_started(at, error))?;
        let streams = session.attached(STREAMS)?;
        let mut readers: Vec<Lines> = [streams.stdout, streams.stderr]
            .into_iter()
            .flatten()
            .map(Lines::new)
            .collect();
        let mut kept: VecDeque<String> = VecDeque::new();
        let mut emit = |line: &str| {
            self.shared.progress.event(&Event::Output { step, line });
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line.to_owned());
        };
        let mut killed = false;
        let mut status = None;
        while status.is_none() || !readers.is_empty() {
            if self.is_stopped() && !killed {
                killed = true;
                // One that is gone has ended.
                drop(self.shared.engine.kill_step(session));
            }
            let mut waiting: Vec<PollFd<'_>> = readers
                .iter()
                .map(|reader| PollFd::from_borrowed_fd(reader.file.as_fd(), PollFlags::IN))
                .collect();
            if status.is_none() {
                waiting.push(PollFd::from_borrowed_fd(session.as_fd(), PollFlags::IN));
            }
            let pause = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(PAUSE.subsec_nanos()),
            };
            match poll(&mut waiting, Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(BuildError::io("wait for a step")(error.into())),
            }
            let ready: Vec<bool> = waiting
                .iter()
                .map(|one| !one.revents().is_empty())
                .collect();
            drop(waiting);
            let count = readers.len();
            if ready.get(count) == Some(&true) {
                status = match session.next_exit() {
                    // Its monitor may go before it tells how it ended.
                    Err(_) if killed => return Err(BuildError::Stopped),
                    other => other?,
                };
            }
            let mut index = 0;
            readers.retain_mut(|reader| {
                let is_ready = ready.get(index) == Some(&true);
                index += 1;
                !is_ready || reader.read(&mut emit)
            });
        }
        // The monitor ends when everything of the container is taken down: then its files are ours.
        while session.next_exit().is_ok() {}
        let code = status.map_or(255, |status| status.code);
        Ok((code, Vec::from(kept).join("\n")))
    }
}

/// Cuts what is read into lines.
struct Lines {
    file: File,
    line: Vec<u8>,
}

impl Lines {
    fn new(pipe: std::os::fd::OwnedFd) -> Self {
        Self {
            file: File::from(pipe),
            line: Vec::new(),
        }
    }

    /// Reads once. Says whether there can be more.
    fn read(&mut self, emit: &mut impl FnMut(&str)) -> bool {
        let mut buffer = [0; 8192];
        let count = match self.file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) => return error.kind() == std::io::ErrorKind::Interrupted,
        };
        for byte in buffer.iter().take(count) {
            match byte {
                b'\n' => self.end(emit),
                byte => {
                    self.line.push(*byte);
                    if self.line.len() >= MAX_LINE {
                        self.end(emit);
                    }
                }
            }
        }
        if count == 0 && !self.line.is_empty() {
            self.end(emit);
        }
        count > 0
    }

    fn end(&mut self, emit: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        // A progress bar writes over its own line: the last state is what counts.
        let text = text.trim_end_matches('\r');
        emit(text.rsplit('\r').next().unwrap_or(text));
        self.line.clear();
    }
}

/// What RUN executes.
fn command(state: &State, run: &Run) -> Command {
    let plain = |args| Command { args, script: None };
    let CommandLine::Shell(line) = &run.command else {
        return plain(state.command(&run.command));
    };
    let Some(first) = run.heredocs.first() else {
        return plain(state.command(&run.command));
    };
    let is_alone = run.heredocs.len() == 1 && is_announcement(line);
    let shell = |text: String| state.command(&CommandLine::Shell(text));
    if is_alone {
        if first.content.starts_with("#!") {
            let path = format!("/dev/pipes/{}", first.name);
            return Command {
                args: vec![path.clone()],
                script: Some((path, first.content.clone())),
            };
        }
        return plain(shell(first.content.clone()));
    }
    // The shell knows heredocs itself.
    let mut text = line.clone();
    for heredoc in &run.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    plain(shell(text))
}

/// A program for another processor needs an emulator that the kernel knows.
fn require_native(platform: &Platform, at: At<'_>) -> Result<(), BuildError> {
    let host = Platform::host();
    if platform.os() != "linux" || platform.architecture() == host.architecture() {
        return Ok(());
    }
    let name = match platform.architecture() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        other => other,
    };
    let registered = Path::new("/proc/sys/fs/binfmt_misc")
        .join(format!("qemu-{name}"))
        .exists();
    if registered {
        return Ok(());
    }
    let what =
        format!("cannot run programs for {platform}: this machine is {host} and has no emulator");
    Err(at.fail("", what).with_hint(format!("register qemu-{name} with binfmt_misc, or copy from a stage `FROM --platform=$BUILDPLATFORM`")))
}
