//! docker and podman, which have one command line.

use std::path::Path;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, getrlimit};

use super::{Idle, Means, Subject, arguments, container_name, find, with_monitor};
use crate::call::Call;
use crate::job::{Input, Job, Mounts, Places, TMPFS, VOLUME};
use crate::package::LinuxHalf;

#[derive(Debug)]
pub(super) struct Docker {
    name: &'static str,
    program: String,
}

impl Docker {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            program: String::new(),
        }
    }

    fn call(&self) -> Call {
        Call::new(&self.program)
    }

    fn image() -> String {
        format!("ketch-bench-{}:run", std::process::id())
    }

    fn cold_image(scratch: &Path) -> String {
        let name = scratch.file_name().unwrap_or_default().to_string_lossy();
        format!("ketch-bench-{}:{name}", std::process::id())
    }

    fn linux<'a>(means: &Means<'a>) -> anyhow::Result<&'a LinuxHalf> {
        let half = means.package.linux.as_ref();
        half.map_err(|reason| anyhow!("there is no Linux image: {reason}"))
    }

    /// `run` up to the image. Limits are those of this process: podman wants to raise them and may not be able to.
    fn run_up_to_image(&self, half: &LinuxHalf) -> Call {
        let mut call = self.call().args(["run", "--network", "none"]);
        if self.name == "podman" {
            call = call.args(["--pull", "never"]);
            for (name, resource) in [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)] {
                let limit = getrlimit(resource);
                let number = |limit: Option<u64>| limit.map_or(-1, u64::cast_signed);
                let limit = format!("{name}={}:{}", number(limit.current), number(limit.maximum));
                call = call.args(["--ulimit", &limit]);
            }
        }
        for pair in &half.env {
            call = call.args(["--env", pair]);
        }
        call
    }

    fn import(&self, means: &Means, image: &str) -> anyhow::Result<Call> {
        let tar = Self::linux(means)?.tar.display().to_string();
        Ok(self.call().args(["import", &tar, image]))
    }
}

impl Subject for Docker {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        format!("a container of {}", self.name)
    }

    fn prepare(&mut self, means: &Means) -> anyhow::Result<String> {
        self.program = find(means.options, self.name)?;
        let format = match self.name {
            "docker" => "client {{.Client.Version}}, daemon {{.Server.Version}}",
            _ => "{{.Client.Version}}",
        };
        let version = self.call().args(["version", "--format", format]);
        let version = version.output(means.until).context("it does not answer")?;
        self.import(means, &Self::image())?.output(means.until)?;
        Ok(version.trim().to_owned())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let half = Self::linux(means)?;
        let call = self.run_up_to_image(half);
        let mut call = call.args(["--rm", "--name", &container_name()]);
        if job.input == Input::Pipe {
            call = call.args(["--interactive"]);
        }
        if job.mounts == Mounts::All {
            let volume = format!("{}:{VOLUME}", means.volume()?);
            call = call.args(["--volume", &volume, "--tmpfs", TMPFS]);
        }
        let call = call.args([Self::image(), half.program.clone()]);
        Ok(call.args(arguments(job, &half.args)))
    }

    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>> {
        let half = Self::linux(means)?;
        let image = Self::cold_image(scratch);
        let run = self
            .run_up_to_image(half)
            .args(["--rm", "--name", &container_name()]);
        let run = run.args([&image, &half.program]).args(&half.args);
        Ok(vec![self.import(means, &image)?, run])
    }

    fn after_cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<()> {
        // The layer is the other image's, too, which keeps it.
        let remove = self.call().args(["rmi", &Self::cold_image(scratch)]);
        remove.output(means.until)?;
        Ok(())
    }

    fn begin(&self, means: &Means) -> anyhow::Result<Idle> {
        let half = Self::linux(means)?;
        let name = container_name();
        let call = self
            .run_up_to_image(half)
            .args(["--detach", "--name", &name]);
        let call = call.args([&Self::image(), &half.program, "idle"]);
        call.output(means.until)?;
        let inspect = self
            .call()
            .args(["inspect", "--format", "{{.State.Pid}}", &name]);
        let pid = inspect.output(means.until)?.trim().parse();
        let pid = pid.with_context(|| format!("`{} inspect` shows no process", self.name))?;
        Ok(Idle {
            name,
            pids: with_monitor(pid)?,
            child: None,
        })
    }

    fn end(&self, means: &Means, idle: Idle) -> anyhow::Result<()> {
        self.call().args(["stop", &idle.name]).output(means.until)?;
        self.call().args(["rm", &idle.name]).output(means.until)?;
        Ok(())
    }

    fn places(&self, _: &Means) -> anyhow::Result<Places> {
        Ok(Places::of_container())
    }

    fn close(&self, means: &Means) -> anyhow::Result<()> {
        let own = format!("name=ketch-bench-{}-", std::process::id());
        let list = self
            .call()
            .args(["ps", "--all", "--quiet", "--filter", &own]);
        let ids = list.output(means.until)?;
        if !ids.trim().is_empty() {
            let remove = self.call().args(["rm", "-f"]).args(ids.lines());
            remove.output(means.until)?;
        }
        self.call()
            .args(["rmi", &Self::image()])
            .output(means.until)?;
        Ok(())
    }
}
