//! OCI runtimes: crun, runc, youki and runsc, on a bundle whose specification is `ketch oci spec`'s. They have less to do than
//! an engine: the root file system is a directory, nothing is kept in a log, and nobody waits for the container. The system
//! call filter is that of ketch's containers.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Pid;
use serde_json::{Value, json};

use super::{Idle, Means, Subject, arguments, container_name, find};
use crate::call::{Call, wait_for};
use crate::job::{Job, Mounts, Places, TMPFS, VOLUME, Which};
use crate::package;
use crate::service::{Served, Service, Via};

/// How long a container may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// What network a bundle's container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// A namespace of its own, with a loopback.
    Own,
    /// The host's.
    Host,
}

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

    fn call(&self, means: &Means) -> anyhow::Result<Call> {
        let state = means.dir(&format!("{}-state", self.name))?;
        Ok(Call::new(&self.program).args(["--root", &state.display().to_string()]))
    }

    /// Writes a bundle for a job, and gives its directory.
    fn bundle(&self, means: &Means, root: &Path, job: Job) -> anyhow::Result<PathBuf> {
        self.bundle_on(means, root, job, Network::Own)
    }

    fn bundle_on(
        &self,
        means: &Means,
        root: &Path,
        job: Job,
        network: Network,
    ) -> anyhow::Result<PathBuf> {
        let half = means.package.linux(job.program)?;
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
        if network == Network::Host {
            let namespaces = spec.pointer_mut("/linux/namespaces");
            let namespaces = namespaces.and_then(Value::as_array_mut);
            namespaces
                .context("the specification has no namespaces")?
                .retain(|one| one.get("type").is_none_or(|kind| kind != "network"));
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
    fn root(&self, means: &Means, which: Which) -> PathBuf {
        let kind = match which {
            Which::Main => "rootfs",
            Which::Net => "net-rootfs",
        };
        means.package.dir.join(format!("{}-{kind}", self.name))
    }

    fn run_in(&self, means: &Means, bundle: &Path) -> anyhow::Result<Call> {
        let call = self.call(means)?.args(["run", "--bundle"]);
        Ok(call.args([bundle.display().to_string(), container_name()]))
    }

    fn unpack(means: &Means, which: Which, into: &Path) -> anyhow::Result<Call> {
        let tar = means.package.linux(which)?.tar.display().to_string();
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
        for which in [Which::Main, Which::Net] {
            if which == Which::Main || means.package.has_net() {
                let root = self.root(means, which);
                std::fs::create_dir(&root)?;
                Self::unpack(means, which, &root)?.output(means.until)?;
            }
        }
        Ok(version.lines().next().unwrap_or_default().to_owned())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let bundle = self.bundle(means, &self.root(means, job.program), job)?;
        self.run_in(means, &bundle)
    }

    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>> {
        let bundle = self.bundle(means, scratch, Job::plain(&[]))?;
        let unpack = Self::unpack(means, Which::Main, scratch)?;
        Ok(vec![unpack, self.run_in(means, &bundle)?])
    }

    fn after_cold(&self, _: &Means, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn begin(&self, means: &Means) -> anyhow::Result<Idle> {
        let args = ["idle".to_owned()];
        let root = self.root(means, Which::Main);
        let bundle = self.bundle(means, &root, Job::plain(&args))?;
        let name = container_name();
        let call = self.call(means)?.args(["run", "--detach", "--bundle"]);
        let call = call.args([&bundle.display().to_string(), &name]);
        call.output(means.until)?;
        let state = self.call(means)?.args(["state", &name]);
        let state: Value = serde_json::from_str(&state.output(means.until)?)?;
        let pid = state.pointer("/pid").and_then(Value::as_u64);
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("`{} state` shows no process", self.name))?;
        Ok(Idle::named(name, vec![pid]))
    }

    fn end(&self, means: &Means, idle: Vec<Idle>) -> anyhow::Result<()> {
        for one in &idle {
            let kill = self.call(means)?.args(["kill", &one.name, "TERM"]);
            kill.output(means.until)?;
        }
        for one in idle {
            for pid in one.pids {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                wait_for(pid.context("no process")?, PATIENCE, means.until)?;
            }
            let delete = self.call(means)?.args(["delete", &one.name]);
            delete.output(means.until)?;
        }
        Ok(())
    }

    fn serve(&self, means: &Means, service: Service) -> anyhow::Result<Served> {
        if service.via == Via::Bridge {
            bail!("an OCI runtime makes no bridge");
        }
        let args = service.args();
        let job = Job {
            program: Which::Net,
            ..Job::plain(&args)
        };
        let root = self.root(means, Which::Net);
        let bundle = self.bundle_on(means, &root, job, Network::Host)?;
        let name = container_name();
        let call = self.call(means)?.args(["run", "--detach", "--bundle"]);
        let call = call.args([&bundle.display().to_string(), &name]);
        call.output(means.until)?;
        Ok(service.here(Idle::named(name, Vec::new())))
    }

    fn end_service(&self, means: &Means, served: Served) -> anyhow::Result<()> {
        let delete = ["delete", "--force", &served.idle.name];
        self.call(means)?.args(delete).output(means.until)?;
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
