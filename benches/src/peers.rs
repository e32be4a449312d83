//! The programs that ketch is compared with, where they are installed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a program is, by `PATH`.
#[expect(
    clippy::disallowed_methods,
    reason = "a measuring program's own environment"
)]
pub(crate) fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("`{program}` is not installed"))
}

/// A `dockerd` with directories of its own, without network, ended when dropped.
#[derive(Debug)]
pub(crate) struct Docker {
    daemon: Child,
    pub(crate) client: PathBuf,
    pub(crate) host: String,
}

impl Docker {
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let client = find("docker")?;
        let host = format!("unix://{}", dir.join("docker.sock").display());
        let path = |name: &str| dir.join(name).display().to_string();
        let daemon = Command::new(find("dockerd")?)
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--data-root", &path("docker-data")])
            .args(["--exec-root", &path("docker-exec")])
            .args(["--pidfile", &path("docker.pid"), "--host", &host])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("dockerd.log"))?)
            .spawn()
            .context("cannot start dockerd")?;
        let docker = Self {
            daemon,
            client,
            host,
        };
        let mut waited = Duration::ZERO;
        while docker.run(&["version"]).is_err() {
            if waited >= START_TIMEOUT {
                bail!("dockerd does not answer (see {})", path("dockerd.log"));
            }
            std::thread::sleep(Duration::from_millis(200));
            waited += Duration::from_millis(200);
        }
        Ok(docker)
    }

    pub(crate) fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(&self.client)
            .arg("--host")
            .arg(&self.host)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("docker: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It ends its containerd and unmounts what it mounted; it may be gone already.
            let _gone = kill_process(pid, Signal::TERM);
        }
        drop(self.daemon.wait());
    }
}
