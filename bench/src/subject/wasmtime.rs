//! The `wasmtime` command on the module alone.

use std::path::Path;

use anyhow::anyhow;

use super::{Idle, Means, Subject, arguments, find};
use crate::call::Call;
use crate::job::{Job, Mounts, Places, TMPFS, VOLUME};
use crate::package::WasmHalf;

#[derive(Debug, Default)]
pub(super) struct Wasmtime {
    program: String,
}

impl Wasmtime {
    fn wasm<'a>(means: &Means<'a>) -> anyhow::Result<(&'a WasmHalf, String)> {
        let half = means.package.wasm.as_ref();
        let half = half.map_err(|reason| anyhow!("there is no wasm image: {reason}"))?;
        let module = half.module.as_ref();
        let module = module.map_err(|reason| anyhow!("the module cannot be had: {reason}"))?;
        Ok((half, module.display().to_string()))
    }

    fn compiled(means: &Means) -> String {
        let path = means.package.dir.join("module.cwasm");
        path.display().to_string()
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
        let (_, module) = Self::wasm(means)?;
        let compile = Call::new(&self.program).args(["compile", &module, "-o"]);
        compile.args([Self::compiled(means)]).output(means.until)?;
        Ok(version.trim().to_owned())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let (half, _) = Self::wasm(means)?;
        let call = Call::new(&self.program).args(["run", "--allow-precompiled"]);
        let mut call = Self::with_env(call, half);
        if job.mounts == Mounts::All {
            let volume = format!("{}::{VOLUME}", means.volume()?);
            call = call.args(["--dir", &volume]);
            if let Ok(tmpfs) = means.tmpfs() {
                call = call.args(["--dir", &format!("{tmpfs}::{TMPFS}")]);
            }
        }
        let call = call.args([Self::compiled(means)]);
        Ok(call.args(arguments(job, &half.args)))
    }

    fn cold(&self, means: &Means, _: &Path) -> anyhow::Result<Vec<Call>> {
        let (half, module) = Self::wasm(means)?;
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

    fn end(&self, means: &Means, idle: Idle) -> anyhow::Result<()> {
        idle.stop(means.until)
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
