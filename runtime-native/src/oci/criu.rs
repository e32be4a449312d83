//! criu, which writes processes to files and reads them back: where it says that it works with this
//! kernel (`criu check`). Its command line is used, not its protocol: that has more to it than what
//! is asked for here, and the command line says what it does in one log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oci_spec::runtime::Spec;
use runtime::{InitPlan, MountSource};

use super::OciError;

/// How criu is used, in both directions.
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// The program; `criu` in the path when absent.
    pub criu: Option<PathBuf>,
    /// Where its files are.
    pub image_path: PathBuf,
    /// Where it logs; with its files when absent.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are saved.
    pub tcp_established: bool,
    /// Sockets that lead outside are saved.
    pub ext_unix_sk: bool,
    /// A terminal from outside is no obstacle.
    pub shell_job: bool,
    /// File locks are saved.
    pub file_locks: bool,
    /// Pages that are in two sets of files are left in one.
    pub auto_dedup: bool,
    /// What it does about control groups; nothing when absent, for they are this runtime's.
    pub cgroups: Option<CgroupMode>,
    /// The network namespace is saved without what is in it.
    pub empty_network: bool,
}

/// What criu does about control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// It makes those that are missing.
    Soft,
    /// It makes all, and sets everything in them.
    Full,
    /// Those that are there already are an error.
    Strict,
    /// Nothing.
    Ignore,
}

impl CgroupMode {
    fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Full => "full",
            Self::Strict => "strict",
            Self::Ignore => "ignore",
        }
    }
}

impl CriuOptions {
    /// criu with the options that both directions share.
    pub(super) fn command(&self, verb: &str) -> Result<Command, OciError> {
        fs::create_dir_all(&self.image_path)
            .map_err(OciError::io("make the directory", &self.image_path))?;
        if let Some(dir) = &self.work_path {
            fs::create_dir_all(dir).map_err(OciError::io("make the directory", dir))?;
        }
        let cgroups = self.cgroups.unwrap_or(CgroupMode::Ignore).name();
        let mut criu = self.program();
        criu.arg(verb)
            .arg(format!("--manage-cgroups={cgroups}"))
            .args(["-v4", "--log-file"])
            .arg(format!("{verb}.log"))
            .arg("--images-dir")
            .arg(&self.image_path)
            .arg("--work-dir")
            .arg(self.log_dir());
        for (given, option) in [
            (self.tcp_established, "--tcp-established"),
            (self.ext_unix_sk, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
        ] {
            if given {
                criu.arg(option);
            }
        }
        if self.empty_network {
            criu.args(["--empty-ns", "net"]);
        }
        Ok(criu)
    }

    fn program(&self) -> Command {
        Command::new(self.criu.as_deref().unwrap_or(Path::new("criu")))
    }

    fn log_dir(&self) -> &Path {
        self.work_path.as_ref().unwrap_or(&self.image_path)
    }

    /// Runs it to its end. `what` it does, for the message when it does not.
    pub(super) fn finish(&self, what: &str, verb: &str, mut criu: Command) -> Result<(), OciError> {
        let status = criu.status().map_err(|error| absent(what, &error))?;
        if status.success() {
            return Ok(());
        }
        let log = self.log_dir().join(format!("{verb}.log"));
        let text = fs::read_to_string(&log).unwrap_or_default();
        let why = match logged_error(&text) {
            Some(line) => format!("criu: {line} (`{}`)", log.display()),
            None => format!("criu failed ({status}); its log is `{}`", log.display()),
        };
        Err(OciError::Unsupported {
            what: what.to_owned(),
            why,
        })
    }

    /// Asks criu whether it works here.
    pub(super) fn require(&self, what: &str) -> Result<(), OciError> {
        let mut check = self.program();
        check.arg("check").stdin(Stdio::null());
        let output = check.output().map_err(|error| absent(what, &error))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(OciError::Unsupported {
                what: what.to_owned(),
                why: format!("`criu check` fails: {}", printed_error(&output)),
            }),
        }
    }
}

/// The places of the mounts whose source is outside of what criu saves, with their sources.
pub(super) fn external_mounts(plan: &InitPlan) -> impl Iterator<Item = (String, String)> {
    plan.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { path, .. } => Some((
            mount.target.to_string_lossy().into_owned(),
            path.to_string_lossy().into_owned(),
        )),
        MountSource::FileSystem { .. }
        | MountSource::Inside { .. }
        | MountSource::OtherNamespace { .. } => None,
    })
}

/// What cannot be saved or read back by a command of its own.
pub(super) fn refuse_terminal(spec: &Spec, what: &str) -> Result<(), OciError> {
    let process = spec.process().as_ref();
    match process.and_then(oci_spec::runtime::Process::terminal) {
        Some(true) => Err(OciError::Unsupported {
            what: what.to_owned(),
            why: "it has a terminal, whose other side is not saved".to_owned(),
        }),
        Some(false) | None => Ok(()),
    }
}

fn absent(what: &str, error: &io::Error) -> OciError {
    OciError::Unsupported {
        what: what.to_owned(),
        why: match error.kind() {
            io::ErrorKind::NotFound => "it takes criu, which is not installed".to_owned(),
            _ => format!("criu cannot be started: {error}"),
        },
    }
}

/// What criu calls an error in what it has printed.
fn printed_error(output: &Output) -> String {
    let all = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&all);
    logged_error(&text).unwrap_or_else(|| output.status.to_string())
}

/// `(00.012345) Error (criu/mount.c:1088): mnt: …`, without the time: the last two of a log. Before
/// them are those that it goes on after, behind them only that all has failed.
fn logged_error(text: &str) -> Option<String> {
    let at = |line: &str| line.find("Error (").map(|at| line[at..].trim().to_owned());
    let mut errors: Vec<String> = text.lines().filter_map(at).collect();
    if errors.len() > 1 {
        errors.retain(|error| !error.ends_with("FAILED."));
    }
    let last = errors.split_off(errors.len().saturating_sub(2));
    (!last.is_empty()).then(|| last.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_errors_of_a_log_are_the_cause() {
        let log = "(00.01) Warn  (criu/a.c:1): x\n(00.02)  12: Error (criu/b.c:2): a\n\
                   (00.03) Error (criu/c.c:3): b\n(00.03) Error (criu/d.c:4): c\n\
                   (00.04) Error (criu/e.c:5): Dumping FAILED.\n";
        let cause = "Error (criu/b.c:2): a; Error (criu/c.c:3): b";
        assert_eq!(
            logged_error(&log.replace("Error (criu/d.c:4): c", "")).as_deref(),
            Some(cause)
        );
        let alone = "(00.04) Error (criu/e.c:5): Dumping FAILED.\n";
        assert!(logged_error(alone).is_some_and(|error| error.ends_with("FAILED.")));
        assert_eq!(logged_error("fine"), None);
    }

    #[test]
    fn options_become_those_of_criu() {
        let dir = tempfile::tempdir().unwrap();
        let options = CriuOptions {
            criu: Some(PathBuf::from("/opt/criu")),
            image_path: dir.path().join("images"),
            work_path: Some(dir.path().join("work")),
            file_locks: true,
            empty_network: true,
            cgroups: Some(CgroupMode::Soft),
            ..CriuOptions::default()
        };
        let criu = options.command("dump").unwrap();
        assert_eq!(criu.get_program(), "/opt/criu");
        let args: Vec<_> = criu.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(args[0], "dump");
        for option in ["--manage-cgroups=soft", "--file-locks", "--empty-ns"] {
            assert!(args.contains(&option), "{args:?}");
        }
        assert!(!args.contains(&"--tcp-established"));
        assert!(dir.path().join("images").is_dir() && dir.path().join("work").is_dir());
    }
}
