//! The scripts beside this program, which measure what takes minutes, disks or networks of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// How a script is told which `ketch` is meant.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// `--ketch PATH`.
    Flag,
    /// `--ketch 'PATH oci'`.
    OciFlag,
    /// The first word.
    Word,
    /// `KETCH`.
    Variable,
}

const SCRIPTS: [(&str, &str, Names); 6] = [
    ("build", "build.py", Names::Flag),
    ("images", "images.py", Names::Flag),
    ("life", "life.py", Names::Flag),
    ("network", "network.py", Names::Word),
    ("oci", "oci.py", Names::OciFlag),
    ("wasm", "wasm.py", Names::Variable),
];

/// Names of all scripts.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|(name, _, _)| *name)
}

/// Runs the script of that name, if there is one, with further words.
pub(crate) fn run(name: &str, ketch: &Path, words: Vec<String>) -> Option<anyhow::Result<()>> {
    let (_, file, names) = SCRIPTS.iter().find(|(own, _, _)| *own == name)?;
    Some(run_script(file, *names, ketch, words))
}

fn run_script(file: &str, names: Names, ketch: &Path, words: Vec<String>) -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let mut command = Command::new("python3");
    command.arg(script);
    match names {
        Names::Flag => command.arg("--ketch").arg(ketch).args(words),
        Names::OciFlag => {
            let oci = format!("{} oci", ketch.display());
            command.args(["--ketch", &oci]).args(words)
        }
        Names::Word => command.arg(ketch).args(words),
        Names::Variable => command.env("KETCH", ketch).args(words),
    };
    let status = command.status().context("cannot run `python3`")?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{file}` failed ({status})"),
    }
}
