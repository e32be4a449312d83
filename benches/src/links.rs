//! How the small executables can be linked: what starting each way costs, and what it costs in
//! private memory. Builds ketch a second time, as one static program, below the target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::measure::{Case, measure, private_kib};

/// One way.
struct Candidate {
    name: &'static str,
    program: PathBuf,
    /// Arguments that end at once, with this exit code.
    ends: (&'static [&'static str], i32),
    /// Arguments that wait for standard input.
    waits: &'static [&'static str],
}

/// `ketch-init idmap` waits for a byte; without one it ends with 1.
const INIT: (&[&str], &[&str]) = (&["idmap"], &["idmap"]);
/// `ketch login` waits for a password.
const KETCH: (&[&str], &[&str]) = (
    &["version"],
    &[
        "login",
        "--username",
        "me",
        "--password-stdin",
        "localhost:1",
    ],
);

/// Runs all of it; `ketch` is the release build.
#[expect(clippy::print_stdout, reason = "a measuring program's output")]
pub(crate) fn run(ketch: &Path) -> anyhow::Result<()> {
    let target = ketch.ancestors().nth(2).context("no target directory")?;
    let mut candidates = Vec::new();
    for (name, triple) in [
        (
            "ketch-init of its own, musl, static, no relocations (chosen)",
            "x86_64-unknown-linux-musl",
        ),
        (
            "ketch-init of its own, gnu, static, no relocations",
            "x86_64-unknown-linux-gnu",
        ),
    ] {
        let program = target
            .join("embedded")
            .join(triple)
            .join("small/ketch-init");
        let built = program.exists() || build_init(target, triple, &program).is_ok();
        if !built {
            println!("left out: {name} (the target {triple} is not installed)");
            continue;
        }
        candidates.push(Candidate {
            name,
            program,
            ends: (INIT.0, 1),
            waits: INIT.1,
        });
    }
    candidates.push(Candidate {
        name: "one program for all roles, as cargo links it",
        program: ketch.to_path_buf(),
        ends: (KETCH.0, 0),
        waits: KETCH.1,
    });
    candidates.push(Candidate {
        name: "one program for all roles, gnu, static, no relocations",
        program: build_static(target)?,
        ends: (KETCH.0, 0),
        waits: KETCH.1,
    });
    print(&candidates)
}

#[expect(clippy::print_stdout, reason = "a measuring program's output")]
fn print(candidates: &[Candidate]) -> anyhow::Result<()> {
    let case = |c: &Candidate| Case::new(c.name, &c.program, c.ends.0).exiting(c.ends.1);
    let cases: Vec<Case> = candidates.iter().map(case).collect();
    println!(
        "\n| monitor and init | size MB | spawn to exit ms | private KiB |\n|---|---|---|---|"
    );
    for (candidate, times) in candidates.iter().zip(measure(&cases)?) {
        #[expect(clippy::cast_precision_loss, reason = "a size to be read by people")]
        let size = std::fs::metadata(&candidate.program)?.len() as f64 / 1e6;
        let memory = waiting_kib(candidate)?;
        println!(
            "| {} | {size:.1} | {:.2} | {memory} |",
            candidate.name,
            times.median_ms()
        );
    }
    Ok(())
}

/// The private memory of the program while it waits for its input.
fn waiting_kib(candidate: &Candidate) -> anyhow::Result<u64> {
    let mut child = Command::new(&candidate.program)
        .args(candidate.waits)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // It waits when it sleeps in a read; until then its memory grows.
    let stat = format!("/proc/{}/syscall", child.id());
    let mut tries = 0;
    while !std::fs::read_to_string(&stat).is_ok_and(|text| text.starts_with("0 ")) {
        tries += 1;
        if tries > 1000 {
            bail!("`{}` does not read its input", candidate.name);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let kib = private_kib(child.id());
    drop(child.stdin.take());
    child.wait()?;
    kib
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.env(
        "RUSTFLAGS",
        "-Ctarget-feature=+crt-static -Crelocation-model=static",
    );
    cargo
}

fn build_init(target: &Path, triple: &str, program: &Path) -> anyhow::Result<()> {
    let status = cargo()
        .args([
            "build",
            "--locked",
            "--profile",
            "small",
            "-p",
            "monitor",
            "--target",
            triple,
        ])
        .arg("--target-dir")
        .arg(target.join("embedded"))
        .status()?;
    if !status.success() || !program.exists() {
        bail!("cannot build for {triple}");
    }
    Ok(())
}

fn build_static(target: &Path) -> anyhow::Result<PathBuf> {
    let triple = "x86_64-unknown-linux-gnu";
    let dir = target.join("link-modes");
    let status = cargo()
        .args([
            "build",
            "--locked",
            "--release",
            "-p",
            "ketch",
            "--target",
            triple,
        ])
        .arg("--target-dir")
        .arg(&dir)
        .status()?;
    if !status.success() {
        bail!("cannot build ketch as one static program");
    }
    Ok(dir.join(triple).join("release/ketch"))
}
