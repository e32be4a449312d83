//! The `wasmtime` command on the module alone.

use std::path::Path;

use anyhow::{anyhow, bail};

use super::{Idle, Means, Subject, arguments, find, stop_all};
use crate::call::Call;
use crate::job::{Job, Mounts, Places, TMPFS, VOLUME, Which};
use crate::package::WasmHalf;
use crate::service::{Kind, Served, Service, Via};

#[derive(Debug, Default)]
pub(super) struct Wasmtime {
    program: String,
}

impl Wasmtime {
    /// A module of a program, as it came.
    fn module(half: &WasmHalf) -> anyhow::Result<String> {
        let module = half.module.as_ref();
        let module = module.map_err(|reason| anyhow!("the module cannot be had: {reason}"))?;
        Ok(module.display().to_string())
    }

    /// The same, compiled: beside it.
    fn compiled(means: &Means, module: &str) -> anyhow::Result<String> {
        let compiled = format!("{module}.cwasm");
        if !Path::new(&compiled).exists() {
            let compile = Call::new(find(means.options, "wasmtime")?);
            let compile = compile.args(["compile", module, "-o", &compiled]);
            compile.output(means.until)?;
        }
        Ok(compiled)
    }

    fn with_env(mut call: Call, half: &WasmHalf) -> Call {
        for pair in &half.env {
            call = call.args(["--env", pair]);
        }
        call
    }
}

impl Subject for Wasmtime {
    fn name(&self) -> &'static str {
        "wasmtime"
    }

    fn title(&self) -> String {
        "the wasmtime command, on the module compiled before".to_owned()
    }

    fn prepare(&mut self, means: &Means) -> anyhow::Result<String> {
        self.program = find(means.options, "wasmtime")?;
        let version = Call::new(&self.program).args(["--version"]);
        let version = version.output(means.until)?;
        let half = means.package.wasm(Which::Main)?;
        Self::compiled(means, &Self::module(half)?)?;
        Ok(version.trim().to_owned())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let half = means.package.wasm(job.program)?;
        let call = Call::new(&self.program).args(["run", "--allow-precompiled"]);
        let mut call = Self::with_env(call, half);
        if job.program == Which::Net {
            call = call.args(["-S", "inherit-network"]);
        }
        if job.mounts == Mounts::All {
            let volume = format!("{}::{VOLUME}", means.volume()?);
            call = call.args(["--dir", &volume]);
            if let Ok(tmpfs) = means.tmpfs() {
                call = call.args(["--dir", &format!("{tmpfs}::{TMPFS}")]);
            }
        }
        let call = call.args([Self::compiled(means, &Self::module(half)?)?]);
        Ok(call.args(arguments(job, &half.args)))
    }

    fn cold(&self, means: &Means, _: &Path) -> anyhow::Result<Vec<Call>> {
        let half = means.package.wasm(Which::Main)?;
        let module = Self::module(half)?;
        let call = Call::new(&self.program).args(["run", "--codegen", "cache=n"]);
        let call = Self::with_env(call, half).args([module]);
        Ok(vec![call.args(&half.args)])
    }

    fn after_cold(&self, _: &Means, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn begin(&self, means: &Means) -> anyhow::Result<Idle> {
        let args = ["idle".to_owned()];
        Idle::child(&self.run(means, Job::plain(&args))?)
    }

    fn end(&self, means: &Means, idle: Vec<Idle>) -> anyhow::Result<()> {
        stop_all(idle, means.until)
    }

    fn serve(&self, means: &Means, service: Service) -> anyhow::Result<Served> {
        if service.via == Via::Bridge {
            bail!("the wasmtime command has no network of its own");
        }
        let call = match service.kind {
            Kind::Tcp => {
                let args = service.args();
                let job = Job {
                    program: Which::Net,
                    ..Job::plain(&args)
                };
                self.run(means, job)?
            }
            Kind::Http => {
                let module = means.package.wasm(Which::Net)?.http.as_ref();
                let module = module.map_err(|reason| anyhow!("there is no component: {reason}"))?;
                let module = Self::compiled(means, &module.display().to_string())?;
                let address = format!("127.0.0.1:{}", service.port);
                let call = Call::new(&self.program).args(["serve", "--allow-precompiled"]);
                call.args(["-S", "cli", "--addr", &address, &module])
            }
        };
        Ok(service.here(Idle::child(&call)?))
    }

    fn end_service(&self, _: &Means, served: Served) -> anyhow::Result<()> {
        drop(served);
        Ok(())
    }

    fn places(&self, means: &Means) -> anyhow::Result<Places> {
        Ok(Places {
            root: Err("the wasmtime command has no root file system".to_owned()),
            volume: Ok(VOLUME.to_owned()),
            tmpfs: means.tmpfs().map(|_| TMPFS.to_owned()),
        })
    }

    fn close(&self, _: &Means) -> anyhow::Result<()> {
        Ok(())
    }
}
