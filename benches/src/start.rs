//! How long a container takes from the command line to its exit code, and what its monitor costs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::measure::{Case, private_kib, table};
use crate::peers::{Docker, find};

/// A program that does nothing, and its module.
const NOTHING: &[u8] = include_bytes!("../../fixtures/guests/built/args.x86_64");
/// One that stays.
const SLEEP: &[u8] = include_bytes!("../../fixtures/guests/built/sleep.x86_64");
/// The wasm half of `hello`.
const HELLO: &[u8] = include_bytes!("../../fixtures/guests/built/hello.wasm");

/// ketch with directories of its own.
struct Ketch {
    program: PathBuf,
    dir: PathBuf,
}

impl Ketch {
    fn case(&self, name: &str, args: &[&str]) -> Case {
        Case::new(name, &self.program, args)
            .env("KETCH_ROOT", self.dir.join("root").as_os_str())
            .env("KETCH_RUN", self.dir.join("run").as_os_str())
    }

    fn output(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("KETCH_ROOT", self.dir.join("root"))
            .env("KETCH_RUN", self.dir.join("run"))
            .output()?;
        if !output.status.success() {
            bail!("ketch: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// An image of two programs, as an archive of its root file system.
fn archive(path: &Path) -> anyhow::Result<()> {
    let mut builder = tar::Builder::new(std::fs::File::create(path)?);
    for (name, bytes) in [("true", NOTHING), ("sleep", SLEEP)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        builder.append_data(&mut header, name, bytes)?;
    }
    builder.finish()?;
    Ok(())
}

/// Runs all of it; `ketch` is the release build.
#[expect(clippy::print_stdout, reason = "a measuring program's output")]
pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ketch = Ketch {
        program: program.to_path_buf(),
        dir: dir.path().to_path_buf(),
    };
    let tar = dir.path().join("image.tar");
    archive(&tar)?;
    let tar = tar.display().to_string();
    ketch.output(&["import", &tar, "small"])?;

    let run = ["run", "--rm", "--network", "none", "small", "/true", "0"];
    let mut starts = vec![ketch.case("`ketch run`", &run)];
    let stays = [
        "--network",
        "none",
        "--name",
        "stays",
        "small",
        "/sleep",
        "6000",
    ];
    ketch.output(&[&["run", "-d"], &stays[..]].concat())?;
    let mut execs = vec![ketch.case("`ketch exec`", &["exec", "stays", "/true", "0"])];
    let docker = Docker::start(dir.path()).and_then(|docker| {
        docker.run(&["import", &tar, "small"])?;
        docker.run(&[&["run", "-d"], &stays[..]].concat())?;
        Ok(docker)
    });
    match &docker {
        Ok(docker) => {
            let with = |args: &[&'static str]| {
                let all = [&["--host", &docker.host], args].concat();
                Case::new(&format!("`docker {}`", args[0]), &docker.client, &all)
            };
            starts.push(with(&run));
            execs.push(with(&["exec", "stays", "/true", "0"]));
        }
        Err(error) => println!("left out: docker ({error:#})"),
    }
    match podman(&tar) {
        Ok(case) => starts.push(case),
        Err(error) => println!("left out: podman ({error:#})"),
    }
    table(
        "A Linux container that does nothing, without network",
        &starts,
    )?;
    table("A program in a running container", &execs)?;
    monitor_memory(&ketch)?;
    ketch.output(&["rm", "-f", "stays"])?;
    if let Ok(docker) = &docker {
        docker.run(&["rm", "-f", "stays"])?;
    }
    wasm(&ketch)
}

/// Shows where the time of a start goes.
pub(crate) fn steps(program: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ketch = Ketch {
        program: program.to_path_buf(),
        dir: dir.path().to_path_buf(),
    };
    let tar = dir.path().join("image.tar");
    archive(&tar)?;
    ketch.output(&["import", &tar.display().to_string(), "small"])?;
    let file = dir.path().join("steps");
    let trace = ["run", "--trace-steps", &file.display().to_string()].map(str::to_owned);
    let rest = ["--rm", "--network", "none", "small", "/true", "0"].map(str::to_owned);
    let args = [&trace[..], &rest[..]].concat();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    crate::steps::table(&ketch.case("`ketch run`", &args), &file)
}

/// Prints the private memory of an idle container's monitor. The pages of its program are private
/// only as long as there is no second monitor.
#[expect(clippy::print_stdout, reason = "a measuring program's output")]
fn monitor_memory(ketch: &Ketch) -> anyhow::Result<()> {
    let alone = monitor_kib(ketch)?;
    let second = ["run", "-d", "--network", "none", "--name", "second"];
    ketch.output(&[&second[..], &["small", "/sleep", "6000"]].concat())?;
    let beside = monitor_kib(ketch)?;
    ketch.output(&["rm", "-f", "second"])?;
    println!(
        "\nPrivate memory of an idle container's monitor: {beside} KiB beside another one, {alone} KiB alone \
         (with the pages of its program, which all monitors share)"
    );
    Ok(())
}

/// The monitor is the parent of the container's first process.
fn monitor_kib(ketch: &Ketch) -> anyhow::Result<u64> {
    let record = ketch.output(&["inspect", "stays"])?;
    let record: serde_json::Value = serde_json::from_str(&record)?;
    let pid = record
        .pointer("/0/State/Pid")
        .and_then(serde_json::Value::as_u64);
    let pid = pid.context("`inspect` shows no pid")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    private_kib(parent.context("no parent")?.trim().parse()?)
}

fn podman(tar: &str) -> anyhow::Result<Case> {
    let podman = find("podman")?;
    let output = Command::new(&podman)
        .args(["import", tar, "ketch-bench"])
        .output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let args = [
        "--runtime",
        "runc",
        "run",
        "--rm",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1000:1000",
        "ketch-bench",
        "/true",
        "0",
    ];
    let case = Case::new("`podman run`", &podman, &args);
    case.time()?;
    Ok(case)
}

#[expect(clippy::print_stdout, reason = "a measuring program's output")]
fn wasm(ketch: &Ketch) -> anyhow::Result<()> {
    let args = [
        "run",
        "--rm",
        "--network",
        "none",
        "--platform",
        "wasi/wasm",
        "hello",
    ];
    let mut cases = vec![
        ketch
            .case("`ketch run` of the module", &args)
            .answering("Hello, "),
    ];
    match precompiled(&ketch.dir) {
        Ok(case) => cases.push(case.answering("Hello, ")),
        Err(error) => println!("left out: wasmtime ({error:#})"),
    }
    table("The module `hello`, compiled before", &cases)
}

/// `wasmtime run` of a module that `wasmtime compile` has compiled.
fn precompiled(dir: &Path) -> anyhow::Result<Case> {
    let wasmtime = find("wasmtime")?;
    let (module, compiled) = (dir.join("hello.wasm"), dir.join("hello.cwasm"));
    std::io::Write::write_all(&mut std::fs::File::create(&module)?, HELLO)?;
    let status = Command::new(&wasmtime)
        .arg("compile")
        .arg(&module)
        .arg("-o")
        .arg(&compiled)
        .status()?;
    if !status.success() {
        bail!("`wasmtime compile` failed");
    }
    let compiled = compiled.display().to_string();
    let args = ["run", "--allow-precompiled", &compiled];
    Ok(Case::new(
        "`wasmtime run` of the precompiled file",
        &wasmtime,
        &args,
    ))
}
