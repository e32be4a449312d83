//! What is measured: ketch's levels and its peers, each a way to start, watch and end the same program.

mod docker;
mod ketch;
mod oci;
mod process;
mod wasmtime;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use crate::call::{Background, Call};
use crate::job::{Job, Places};
use crate::options::Options;
use crate::package::Package;
use crate::service::{Served, Service};
use crate::watch::Waiting;

/// What every subject needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) options: &'a Options,
    pub(crate) package: &'a Package,
    pub(crate) until: Waiting<'a>,
}

impl Means<'_> {
    /// A directory for one purpose, made when it is not there.
    pub(crate) fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.package.dir.join(name);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make `{}`", dir.display()))?;
        Ok(dir)
    }

    /// A directory on the host's own tmpfs, or why there is none.
    pub(crate) fn tmpfs(&self) -> Result<String, String> {
        let dir = tmpfs_dir();
        match std::fs::create_dir_all(&dir) {
            Ok(()) => Ok(dir),
            Err(error) => Err(format!("cannot make `{dir}`: {error}")),
        }
    }

    /// Takes it away again.
    pub(crate) fn remove_tmpfs(&self) -> std::io::Result<()> {
        match std::fs::remove_dir(tmpfs_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The host's directory that is mounted as a volume.
    pub(crate) fn volume(&self) -> anyhow::Result<String> {
        Ok(self.dir("volume")?.display().to_string())
    }
}

/// This run's directory where every Linux has a tmpfs.
fn tmpfs_dir() -> String {
    format!("/dev/shm/ketch-bench-{}", std::process::id())
}

/// A level or a peer.
pub(crate) trait Subject {
    /// Its name in options and reports.
    fn name(&self) -> &'static str;
    /// What it is.
    fn title(&self) -> String;
    /// Its version, and whether it can be used at all.
    fn prepare(&mut self, means: &Means) -> anyhow::Result<String>;
    /// The program from its start to its end.
    fn run(&self, means: &Means, job: Job) -> anyhow::Result<Call>;
    /// The same from an archive on: several programs, one after another; `scratch` is empty and its own.
    fn cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<Vec<Call>>;
    /// Takes away what those left, apart from what is in `scratch`.
    fn after_cold(&self, means: &Means, scratch: &Path) -> anyhow::Result<()>;
    /// Starts an instance that waits.
    fn begin(&self, means: &Means) -> anyhow::Result<Idle>;
    /// Ends those and takes away all of them.
    fn end(&self, means: &Means, idle: Vec<Idle>) -> anyhow::Result<()>;
    /// Starts a server.
    fn serve(&self, means: &Means, service: Service) -> anyhow::Result<Served>;
    /// Kills it and takes away all of it.
    fn end_service(&self, means: &Means, served: Served) -> anyhow::Result<()>;
    /// Where files can be.
    fn places(&self, means: &Means) -> anyhow::Result<Places>;
    /// Takes away what `prepare` has made.
    fn close(&self, means: &Means) -> anyhow::Result<()>;
}

/// An instance that waits.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Its name, where it has one.
    pub(crate) name: String,
    /// All processes that are there for it alone.
    pub(crate) pids: Vec<u32>,
    /// When it is a child of this process.
    pub(crate) child: Option<Background>,
}

impl Idle {
    /// A child of this process.
    pub(crate) fn child(call: &Call) -> anyhow::Result<Self> {
        let child = Background::spawn(call)?;
        Ok(Self {
            name: String::new(),
            pids: vec![child.pid()],
            child: Some(child),
        })
    }

    /// A container that an engine knows by its name.
    pub(crate) fn named(name: String, pids: Vec<u32>) -> Self {
        Self {
            name,
            pids,
            child: None,
        }
    }

    /// Ends a child.
    pub(crate) fn stop(self, until: Waiting) -> anyhow::Result<()> {
        self.child.context("there is no child")?.stop(until)
    }
}

/// Ends children, one after another; all of them, whatever becomes of one.
fn stop_all(idle: Vec<Idle>, until: Waiting) -> anyhow::Result<()> {
    let ends: Vec<anyhow::Result<()>> = idle.into_iter().map(|one| one.stop(until)).collect();
    ends.into_iter().collect()
}

fn names(idle: &[Idle]) -> Vec<&str> {
    idle.iter().map(|one| one.name.as_str()).collect()
}

/// The subjects that the options name. A peer that is not installed is one that cannot be prepared.
pub(crate) fn chosen(options: &Options) -> Vec<Box<dyn Subject>> {
    let levels = options.levels.iter().map(String::as_str);
    let peers = options.peers.iter().map(String::as_str);
    levels.chain(peers).filter_map(subject).collect()
}

fn subject(name: &str) -> Option<Box<dyn Subject>> {
    Some(match name {
        "process" => Box::new(process::Process),
        "linux" => Box::new(ketch::Ketch::LINUX),
        "wasm" => Box::new(ketch::Ketch::WASM),
        "wasm-only" => Box::new(ketch::Ketch::WASM_ONLY),
        "docker" => Box::new(docker::Docker::new("docker")),
        "podman" => Box::new(docker::Docker::new("podman")),
        "crun" => Box::new(oci::OciRuntime::new("crun")),
        "runc" => Box::new(oci::OciRuntime::new("runc")),
        "youki" => Box::new(oci::OciRuntime::new("youki")),
        "runsc" => Box::new(oci::OciRuntime::new("runsc")),
        "wasmtime" => Box::new(wasmtime::Wasmtime::default()),
        _ => return None,
    })
}

/// Where a program is, by the search path.
pub(crate) fn find(options: &Options, program: &str) -> anyhow::Result<String> {
    std::env::split_paths(&options.search_path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .map(|path| path.display().to_string())
        .with_context(|| format!("`{program}` is not installed"))
}

/// A name that no other container has.
fn container_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ketch-bench-{}-{number}", std::process::id())
}

/// The arguments of a job, or else the image's own.
fn arguments<'a>(job: Job<'a>, own: &'a [String]) -> &'a [String] {
    match job.args {
        [] => own,
        args => args,
    }
}

/// A container's first process, and its parent when that is there for it alone.
fn with_monitor(pid: u32) -> anyhow::Result<Vec<u32>> {
    let parent = crate::memory::parent_of(pid)?;
    let shared = [0, 1, std::process::id()];
    Ok(match shared.contains(&parent) {
        true => vec![pid],
        false => vec![pid, parent],
    })
}
