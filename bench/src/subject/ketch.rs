//! ketch's own levels: a Linux container, a wasm container, and the wasm sandbox without a container.

use std::path::Path;

use anyhow::{Context, bail};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use super::{Idle, Means, Subject, arguments, container_name, names, stop_all, with_monitor};
use crate::call::Call;
use crate::job::{Input, Job, Mounts, Places, TMPFS, VOLUME, Which};
use crate::package::{self, HTTP_MODULE};
use crate::service::{Kind, Served, Service, Via};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Linux,
    Wasm,
    WasmOnly,
}

#[derive(Debug)]
pub(super) struct Ketch(Level);

/// The image of a level.
struct Image<'a> {
    reference: &'a str,
    platform: &'a str,
    args: &'a [String],
}

impl Ketch {
    pub(super) const LINUX: Self = Self(Level::Linux);
    pub(super) const WASM: Self = Self(Level::Wasm);
    pub(super) const WASM_ONLY: Self = Self(Level::WasmOnly);

    fn image<'a>(&self, means: &Means<'a>, which: Which) -> anyhow::Result<Image<'a>> {
        if self.0 == Level::Linux {
            let half = means.package.linux(which)?;
            return Ok(Image {
                reference: &half.image,
                platform: &half.platform,
                args: &half.args,
            });
        }
        let half = means.package.wasm(which)?;
        Ok(Image {
            reference: &half.image,
            platform: &half.platform,
            args: &half.args,
        })
    }

    /// The network of a job: a wasm guest with none of its own has no loopback.
    fn network(&self, which: Which) -> &'static str {
        match (which, self.0) {
            (Which::Net, Level::Wasm | Level::WasmOnly) => "host",
            _ => "none",
        }
    }

    /// `run` with everything but the image's arguments; `call` is the program with its global flags.
    fn run_with(&self, means: &Means, call: Call, job: Job) -> anyhow::Result<Call> {
        let image = self.image(means, job.program)?;
        let mut call = call.args(["run", "--pull", "never"]);
        call = call.args(["--network", self.network(job.program)]);
        call = call.args(["--platform", image.platform]);
        call = match self.0 {
            Level::WasmOnly => call.args(["--isolation", "wasm-only"]),
            _ => call.args(["--rm", "--name", &container_name()]),
        };
        if job.input == Input::Pipe {
            call = call.args(["--interactive"]);
        }
        if job.mounts == Mounts::All && self.0 != Level::WasmOnly {
            let volume = format!("{}:{VOLUME}", means.volume()?);
            call = call.args(["--volume", &volume, "--tmpfs", TMPFS]);
        }
        Ok(call
            .args([image.reference])
            .args(self.own_command(means, job, image.args)))
    }

    /// The image knows its entry point; a command of the user's takes the place of its arguments only.
    fn own_command<'a>(&self, means: &Means<'a>, job: Job<'a>, args: &'a [String]) -> &'a [String] {
        match job.args {
            [] if means.package.is_built_in => arguments(job, args),
            [] => &means.options.command,
            args => args,
        }
    }

    fn inspect(means: &Means, name: &str) -> anyhow::Result<Value> {
        let text = package::ketch(means.options)
            .args(["inspect", name])
            .output(means.until)?;
        Ok(serde_json::from_str(&text)?)
    }

    fn pid(record: &Value) -> anyhow::Result<u32> {
        let pid = record.pointer("/0/State/Pid").and_then(Value::as_u64);
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|pid| *pid > 0)
            .context("`ketch inspect` shows no process")
    }

    /// `run` of a server, up to what differs with and without a container.
    fn server(&self, means: &Means, service: Service) -> anyhow::Result<(Call, Vec<String>)> {
        let image = self.image(means, Which::Net)?;
        let call = package::ketch(means.options).args(["run", "--pull", "never"]);
        let mut call = call.args(["--platform", image.platform, "--network", service.network()]);
        let mut rest = vec![image.reference.to_owned()];
        if self.0 != Level::Linux && service.kind == Kind::Http {
            let port = service.port.to_string();
            call = call.args(["--entrypoint", HTTP_MODULE, "--wasm-http-port", &port]);
        } else {
            rest.extend(service.args());
        }
        Ok((call, rest))
    }
}

impl Subject for Ketch {
    fn name(&self) -> &'static str {
        match self.0 {
            Level::Linux => "linux",
            Level::Wasm => "wasm",
            Level::WasmOnly => "wasm-only",
        }
    }

    fn title(&self) -> String {
        match self.0 {
            Level::Linux => "a Linux container of ketch",
            Level::Wasm => "a wasm container of ketch: the sandbox, inside the container's walls",
            Level::WasmOnly => "ketch's wasm sandbox without a container",
        }
        .to_owned()
    }

    fn prepare(&mut self, means: &Means) -> anyhow::Result<String> {
        self.image(means, Which::Main)?;
        Ok(format!("ketch {}", means.options.version))
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        self.run_with(means, package::ketch(means.options), job)
    }

    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>> {
        let (root, run) = (scratch.join("root"), scratch.join("run"));
        let (root, run) = (root.display().to_string(), run.display().to_string());
        let ketch = Call::new(means.options.ketch.display().to_string());
        let ketch = ketch.args(["--root", &root, "--run", &run]);
        let archive = means.package.archive.display().to_string();
        let load = ketch.clone().args(["load", "--quiet", "-i", &archive]);
        Ok(vec![load, self.run_with(means, ketch, Job::plain(&[]))?])
    }

    fn after_cold(&self, _: &Means, scratch: &Path) -> anyhow::Result<()> {
        // Executables and layers are mounted there; an ordinary user's are gone with the mount namespace.
        for dir in ["run/exe", "run/layers"] {
            for entry in std::fs::read_dir(scratch.join(dir)).into_iter().flatten() {
                // What is no mount has nothing to be unmounted; what stays is an error of the removal.
                let _unmounted = unmount(entry?.path(), UnmountFlags::DETACH);
            }
        }
        Ok(())
    }

    fn begin(&self, means: &Means) -> anyhow::Result<Idle> {
        let image = self.image(means, Which::Main)?;
        let call = package::ketch(means.options).args(["run", "--pull", "never"]);
        let call = call.args(["--network", "none", "--platform", image.platform]);
        if self.0 == Level::WasmOnly {
            let call = call.args(["--isolation", "wasm-only", image.reference, "idle"]);
            return Idle::child(&call);
        }
        let name = container_name();
        let call = call.args(["--detach", "--name", &name, image.reference, "idle"]);
        call.output(means.until)?;
        let pid = Self::pid(&Self::inspect(means, &name)?)?;
        Ok(Idle::named(name, with_monitor(pid)?))
    }

    fn end(&self, means: &Means, idle: Vec<Idle>) -> anyhow::Result<()> {
        if self.0 == Level::WasmOnly {
            return stop_all(idle, means.until);
        }
        let ketch = package::ketch(means.options);
        let stop = ketch.clone().args(["stop"]).args(names(&idle));
        stop.output(means.until)?;
        ketch.args(["rm"]).args(names(&idle)).output(means.until)?;
        Ok(())
    }

    fn serve(&self, means: &Means, service: Service) -> anyhow::Result<Served> {
        let (call, rest) = self.server(means, service)?;
        if service.via == Via::Bridge && !rustix::process::geteuid().is_root() {
            bail!("an ordinary user has no bridge");
        }
        if self.0 == Level::WasmOnly {
            if service.via == Via::Bridge {
                bail!("--isolation wasm-only has no network of its own");
            }
            let call = call.args(["--isolation", "wasm-only"]).args(rest);
            return Ok(service.here(Idle::child(&call)?));
        }
        let name = container_name();
        let call = call.args(["--detach", "--name", &name]).args(rest);
        call.output(means.until)?;
        let idle = Idle::named(name, Vec::new());
        if service.via == Via::Host {
            return Ok(service.here(idle));
        }
        let record = Self::inspect(means, &idle.name)?;
        let address = record.pointer("/0/NetworkSettings/IPAddress");
        let address = address.and_then(Value::as_str).unwrap_or_default();
        service.at(idle, address)
    }

    fn end_service(&self, means: &Means, served: Served) -> anyhow::Result<()> {
        // A child is killed when it is dropped.
        if served.idle.child.is_none() {
            let remove = package::ketch(means.options).args(["rm", "-f", &served.idle.name]);
            remove.output(means.until)?;
        }
        Ok(())
    }

    fn places(&self, _: &Means) -> anyhow::Result<Places> {
        if self.0 != Level::WasmOnly {
            return Ok(Places::of_container());
        }
        let no_mounts = "--isolation wasm-only has no mounts".to_owned();
        Ok(Places {
            root: Ok("/".to_owned()),
            volume: Err(no_mounts.clone()),
            tmpfs: Err(no_mounts),
        })
    }

    fn close(&self, means: &Means) -> anyhow::Result<()> {
        if self.0 == Level::WasmOnly {
            return Ok(());
        }
        // What a run that failed or was interrupted has left; the other level's are gone by then, too.
        let ketch = package::ketch(means.options);
        let list = ketch
            .clone()
            .args(["ps", "--all", "--format", "{{.Names}}"]);
        let own = format!("ketch-bench-{}-", std::process::id());
        let names = list.output(means.until)?;
        let left: Vec<&str> = names
            .lines()
            .filter(|name| name.starts_with(&own))
            .collect();
        if !left.is_empty() {
            ketch.args(["rm", "-f"]).args(left).output(means.until)?;
        }
        Ok(())
    }
}
