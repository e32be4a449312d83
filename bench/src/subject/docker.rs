//! docker and podman, which have one command line.

use std::path::Path;

use anyhow::Context;

use super::{Idle, Means, Subject, arguments, container_name, find, names, with_monitor};
use crate::call::Call;
use crate::job::{Input, Job, Mounts, Places, TMPFS, VOLUME, Which};
use crate::package::LinuxHalf;
use crate::service::{Served, Service, Via};

/// podman wants to raise limits, which it cannot do as a root without `CAP_SYS_RESOURCE`: then it gets low ones.
const LOW_LIMITS: &[&str] = &[
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1000:1000",
];

/// Flags of podman and of its `run` to be tried, the first that work are used.
const PODMAN_FLAGS: [(&[&str], &[&str]); 3] = [
    (&[], &[]),
    (&[], LOW_LIMITS),
    // Builds of crun refuse hybrid control groups.
    (&["--runtime", "runc"], LOW_LIMITS),
];

#[derive(Debug)]
pub(super) struct Docker {
    name: &'static str,
    program: String,
    runtime: &'static [&'static str],
    limits: &'static [&'static str],
}

impl Docker {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            program: String::new(),
            runtime: &[],
            limits: &[],
        }
    }

    fn call(&self) -> Call {
        Call::new(&self.program)
    }

    fn image(which: Which) -> String {
        let tag = match which {
            Which::Main => "run",
            Which::Net => "net",
        };
        format!("ketch-bench-{}:{tag}", std::process::id())
    }

    fn cold_image(scratch: &Path) -> String {
        let name = scratch.file_name().unwrap_or_default().to_string_lossy();
        format!("ketch-bench-{}:{name}", std::process::id())
    }

    /// `run` up to the image.
    fn run_up_to_image(&self, half: &LinuxHalf, network: &str) -> Call {
        let mut call = self.call().args(self.runtime).args(["run"]);
        call = call.args(self.limits).args(["--network", network]);
        for pair in &half.env {
            call = call.args(["--env", pair]);
        }
        call
    }

    fn inspect(&self, means: &Means, format: &str, name: &str) -> anyhow::Result<String> {
        let inspect = self.call().args(["inspect", "--format", format, name]);
        inspect.output(means.until)
    }

    fn choose_flags(&mut self, means: &Means) -> anyhow::Result<()> {
        let mut failure = Ok(());
        for (runtime, limits) in PODMAN_FLAGS {
            (self.runtime, self.limits) = (runtime, limits);
            let call = self.run(means, Job::plain(&[]))?;
            match call.output(means.until) {
                Ok(_) => return Ok(()),
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        failure
    }

    fn import(&self, half: &LinuxHalf, image: &str) -> Call {
        let tar = half.tar.display().to_string();
        self.call().args(["import", &tar, image])
    }
}

impl Subject for Docker {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        let flags = [self.runtime, self.limits].concat().join(" ");
        match flags.as_str() {
            "" => format!("a container of {}", self.name),
            flags => format!("a container of {}, with {flags}", self.name),
        }
    }

    fn prepare(&mut self, means: &Means) -> anyhow::Result<String> {
        self.program = find(means.options, self.name)?;
        let format = match self.name {
            "docker" => "client {{.Client.Version}}, daemon {{.Server.Version}}",
            _ => "{{.Client.Version}}",
        };
        let version = self.call().args(["version", "--format", format]);
        let version = version.output(means.until).context("it does not answer")?;
        let main = means.package.linux(Which::Main)?;
        self.import(main, &Self::image(Which::Main))
            .output(means.until)?;
        if means.package.has_net() {
            let net = means.package.linux(Which::Net)?;
            self.import(net, &Self::image(Which::Net))
                .output(means.until)?;
        }
        if self.name == "podman" {
            self.choose_flags(means)?;
        }
        Ok(version.trim().to_owned())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let half = means.package.linux(job.program)?;
        let call = self.run_up_to_image(half, "none");
        let mut call = call.args(["--rm", "--name", &container_name()]);
        if job.input == Input::Pipe {
            call = call.args(["--interactive"]);
        }
        if job.mounts == Mounts::All {
            let volume = format!("{}:{VOLUME}", means.volume()?);
            call = call.args(["--volume", &volume, "--tmpfs", TMPFS]);
        }
        let call = call.args([Self::image(job.program), half.program.clone()]);
        Ok(call.args(arguments(job, &half.args)))
    }

    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>> {
        let half = means.package.linux(Which::Main)?;
        let image = Self::cold_image(scratch);
        let run = self
            .run_up_to_image(half, "none")
            .args(["--rm", "--name", &container_name()]);
        let run = run.args([&image, &half.program]).args(&half.args);
        Ok(vec![self.import(half, &image), run])
    }

    fn after_cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<()> {
        // The layer is the other image's, too, which keeps it.
        let remove = self.call().args(["rmi", &Self::cold_image(scratch)]);
        remove.output(means.until)?;
        Ok(())
    }

    fn begin(&self, means: &Means) -> anyhow::Result<Idle> {
        let half = means.package.linux(Which::Main)?;
        let name = container_name();
        let call = self
            .run_up_to_image(half, "none")
            .args(["--detach", "--name", &name]);
        let call = call.args([&Self::image(Which::Main), &half.program, "idle"]);
        call.output(means.until)?;
        let pid = self.inspect(means, "{{.State.Pid}}", &name)?;
        let pid = pid.trim().parse();
        let pid = pid.with_context(|| format!("`{} inspect` shows no process", self.name))?;
        Ok(Idle::named(name, with_monitor(pid)?))
    }

    fn end(&self, means: &Means, idle: Vec<Idle>) -> anyhow::Result<()> {
        let names = names(&idle);
        let stop = self.call().args(["stop"]).args(&names);
        stop.output(means.until)?;
        let remove = self.call().args(["rm"]).args(&names);
        remove.output(means.until)?;
        Ok(())
    }

    fn serve(&self, means: &Means, service: Service) -> anyhow::Result<Served> {
        let half = means.package.linux(Which::Net)?;
        let name = container_name();
        // podman's own name of its bridge is another one, and its default.
        let network = match (self.name, service.via) {
            ("podman", Via::Bridge) => "podman",
            _ => service.network(),
        };
        let call = self
            .run_up_to_image(half, network)
            .args(["--detach", "--name", &name]);
        let call = call.args([&Self::image(Which::Net), &half.program]);
        call.args(service.args()).output(means.until)?;
        let idle = Idle::named(name, Vec::new());
        if service.via == Via::Host {
            return Ok(service.here(idle));
        }
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.inspect(means, format, &idle.name)?;
        service.at(idle, &address)
    }

    fn end_service(&self, means: &Means, served: Served) -> anyhow::Result<()> {
        let remove = self.call().args(["rm", "-f", &served.idle.name]);
        remove.output(means.until)?;
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
        let mut remove = self.call().args(["rmi", &Self::image(Which::Main)]);
        if means.package.has_net() {
            remove = remove.args([Self::image(Which::Net)]);
        }
        remove.output(means.until)?;
        Ok(())
    }
}
