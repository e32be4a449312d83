//! OCI runtimes: crun, runc, youki and runsc, on a bundle whose specification is `ketch oci spec`'s. They have less to do than
//! an engine: the root file system is a directory, nothing is kept in a log, and nobody waits for the container. The system
//! call filter is that of ketch's containers.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::Pid;
use serde_json::{Value, json};

use super::{Idle, Means, Subject, arguments, container_name, find};
use crate::call::{Call, wait_for};
use crate::job::{Job, Mounts, Places, TMPFS, VOLUME};
use crate::package::{self, LinuxHalf};

/// How long a container may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct OciRuntime {
    name: &'static str,
    program: String,
}

impl OciRuntime {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            program: String::new(),
        }
    }

    fn linux<'a>(means: &Means<'a>) -> anyhow::Result<&'a LinuxHalf> {
        let half = means.package.linux.as_ref();
        half.map_err(|reason| anyhow!("there is no Linux image: {reason}"))
    }

    fn call(&self, means: &Means) -> anyhow::Result<Call> {
        let state = means.dir(&format!("{}-state", self.name))?;
        Ok(Call::new(&self.program).args(["--root", &state.display().to_string()]))
    }

    /// Writes a bundle for a job, and gives its directory.
    fn bundle(&self, means: &Means, root: &Path, job: Job) -> anyhow::Result<PathBuf> {
        let half = Self::linux(means)?;
        let dir = means.dir(&format!("{}-bundle", self.name))?;
        let file = dir.join("config.json");
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        let spec = package::ketch(means.options);
        // The verbs of the OCI runtime take none of the global flags.
        let spec = Call::new(spec.program).args(["oci", "spec", "--bundle"]);
        spec.args([dir.display().to_string()]).output(means.until)?;
        let mut spec: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        let args = std::iter::once(&half.program).chain(arguments(job, &half.args));
        let args: Vec<&String> = args.collect();
        // The oldest that all of them read; nothing of a later version is in it.
        set(&mut spec, "/ociVersion", json!("1.0.2"))?;
        set(&mut spec, "/process/args", json!(args))?;
        set(&mut spec, "/process/env", json!(half.env))?;
        set(&mut spec, "/process/terminal", json!(false))?;
        set(&mut spec, "/root", json!({"path": root, "readonly": false}))?;
        if let Some(filter) = &means.options.seccomp {
            let linux = spec.pointer_mut("/linux").and_then(Value::as_object_mut);
            let linux = linux.context("the specification has no `/linux`")?;
            linux.insert("seccomp".to_owned(), filter.clone());
        }
        if job.mounts == Mounts::All {
            let mounts = spec.pointer_mut("/mounts").and_then(Value::as_array_mut);
            mounts.context("the specification has no mounts")?.extend([
                json!({"destination": VOLUME, "type": "bind", "source": means.volume()?, "options": ["rbind", "rw"]}),
                json!({"destination": TMPFS, "type": "tmpfs", "source": "tmpfs"}),
            ]);
        }
        File::create(&file)?.write_all(spec.to_string().as_bytes())?;
        Ok(dir)
    }

    /// The files that this runtime's containers have: a copy, since the container writes there.
    fn root(&self, means: &Means) -> PathBuf {
        means.package.dir.join(format!("{}-rootfs", self.name))
    }

    fn run_in(&self, means: &Means, bundle: &Path) -> anyhow::Result<Call> {
        let call = self.call(means)?.args(["run", "--bundle"]);
        Ok(call.args([bundle.display().to_string(), container_name()]))
    }

    fn unpack(means: &Means, into: &Path) -> anyhow::Result<Call> {
        let tar = Self::linux(means)?.tar.display().to_string();
        let call = Call::new(find(means.options, "tar")?);
        Ok(call.args(["-xf", &tar, "-C", &into.display().to_string()]))
    }
}

fn set(spec: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let field = spec.pointer_mut(pointer);
    *field.with_context(|| format!("the specification has no `{pointer}`"))? = value;
    Ok(())
}

impl Subject for OciRuntime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        format!(
            "{} on a directory: no overlay, no log, nobody who waits",
            self.name
        )
    }

    fn prepare(&mut self, means: &Means) -> anyhow::Result<String> {
        self.program = find(means.options, self.name)?;
        let version = Call::new(&self.program).args(["--version"]);
        let version = version.output(means.until)?;
        let root = self.root(means);
        std::fs::create_dir(&root)?;
        Self::unpack(means, &root)?.output(means.until)?;
        Ok(version.lines().next().unwrap_or_default().to_owned())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let bundle = self.bundle(means, &self.root(means), job)?;
        self.run_in(means, &bundle)
    }

    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>> {
        let bundle = self.bundle(means, scratch, Job::plain(&[]))?;
        let unpack = Self::unpack(means, scratch)?;
        Ok(vec![unpack, self.run_in(means, &bundle)?])
    }

    fn after_cold(&self, _: &Means, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn begin(&self, means: &Means) -> anyhow::Result<Idle> {
        let args = ["idle".to_owned()];
        let bundle = self.bundle(means, &self.root(means), Job::plain(&args))?;
        let name = container_name();
        let call = self.call(means)?.args(["run", "--detach", "--bundle"]);
        let call = call.args([&bundle.display().to_string(), &name]);
        call.output(means.until)?;
        let state = self.call(means)?.args(["state", &name]);
        let state: Value = serde_json::from_str(&state.output(means.until)?)?;
        let pid = state.pointer("/pid").and_then(Value::as_u64);
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("`{} state` shows no process", self.name))?;
        Ok(Idle {
            name,
            pids: vec![pid],
            child: None,
        })
    }

    fn end(&self, means: &Means, idle: Idle) -> anyhow::Result<()> {
        let kill = self.call(means)?.args(["kill", &idle.name, "TERM"]);
        kill.output(means.until)?;
        for pid in idle.pids {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            wait_for(pid.context("no process")?, PATIENCE, means.until)?;
        }
        let delete = self.call(means)?.args(["delete", &idle.name]);
        delete.output(means.until)?;
        Ok(())
    }

    fn places(&self, _: &Means) -> anyhow::Result<Places> {
        Ok(Places::of_container())
    }

    fn close(&self, means: &Means) -> anyhow::Result<()> {
        let list = self
            .call(means)?
            .args(["list", "--quiet"])
            .output(means.until)?;
        for name in list.lines().filter(|line| !line.is_empty()) {
            let delete = self.call(means)?.args(["delete", "--force", name]);
            delete.output(means.until)?;
        }
        Ok(())
    }
}
