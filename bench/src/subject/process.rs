//! The plain process: no wall at all.

use std::path::Path;

use anyhow::bail;

use super::{Idle, Means, Subject, arguments, find, stop_all};
use crate::call::Call;
use crate::job::{Job, Mounts, Places, Which};
use crate::package::LinuxHalf;
use crate::service::{Served, Service};

#[derive(Debug)]
pub(super) struct Process;

/// The program out of a copy of the image's files. Somebody else's program may want its image's libraries and paths: it
/// gets them as its root directory.
fn program(means: &Means, half: &LinuxHalf, tree: &Path) -> anyhow::Result<Call> {
    let call = if means.package.is_built_in {
        let inside = half.program.trim_start_matches('/');
        Call::new(tree.join(inside).display().to_string())
    } else {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "only root may run an image's program with the image's files as its root directory"
            );
        }
        let chroot = find(means.options, "chroot")?;
        Call::new(chroot).args([&tree.display().to_string(), &half.program])
    };
    Ok(call.clean_env(&half.env))
}

impl Subject for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn title(&self) -> String {
        "a plain process".to_owned()
    }

    fn prepare(&mut self, means: &Means) -> anyhow::Result<String> {
        let half = means.package.linux(Which::Main)?;
        program(means, half, &half.tree)?;
        Ok(String::new())
    }

    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call> {
        let half = means.package.linux(job.program)?;
        if job.mounts == Mounts::All {
            means.volume()?;
            means.dir("files")?;
        }
        Ok(program(means, half, &half.tree)?.args(arguments(job, &half.args)))
    }

    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>> {
        let half = means.package.linux(Which::Main)?;
        let scratch_text = scratch.display().to_string();
        let unpack = Call::new(find(means.options, "tar")?);
        let unpack = unpack.args(["-xf", &half.tar.display().to_string(), "-C", &scratch_text]);
        Ok(vec![
            unpack,
            program(means, half, scratch)?.args(&half.args),
        ])
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

    /// It has no network but the host's, which is what a bridge is compared with.
    fn serve(&self, means: &Means, service: Service) -> anyhow::Result<Served> {
        let half = means.package.linux(Which::Net)?;
        let call = program(means, half, &half.tree)?.args(service.args());
        Ok(service.here(Idle::child(&call)?))
    }

    fn end_service(&self, _: &Means, served: Served) -> anyhow::Result<()> {
        drop(served);
        Ok(())
    }

    fn places(&self, means: &Means) -> anyhow::Result<Places> {
        Ok(Places {
            root: Ok(means.dir("files")?.display().to_string()),
            volume: Ok(means.volume()?),
            tmpfs: means.tmpfs(),
        })
    }

    fn close(&self, _: &Means) -> anyhow::Result<()> {
        Ok(())
    }
}
