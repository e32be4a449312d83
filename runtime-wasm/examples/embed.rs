//! Runs a module or a component under limits: `embed FILE [ARGUMENT...]`.
#![expect(clippy::print_stderr, reason = "an example is a program")]

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use runtime_wasm::compile::compile;
use runtime_wasm::engine::{Profile, engine};
use runtime_wasm::host::run;
use runtime_wasm::{GuestRoot, WasmSpec};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let module = std::fs::read(args.first().ok_or("usage: embed FILE [ARGUMENT...]")?)?;
    let compiled = compile(&engine(Profile::COMMAND)?, &module, None)?;
    let mut artifact = tempfile::tempfile()?;
    artifact.write_all(&compiled.artifact)?;

    let root = tempfile::tempdir()?;
    let mut spec = WasmSpec::new(compiled.info.kind, args);
    spec.guest_root = GuestRoot::Path(root.path().display().to_string());
    spec.limits.memory_bytes = Some(64 << 20);
    let outcome = run(&spec, artifact, || Ok(()), |outcome| outcome)?;
    eprint!("{}", outcome.message());
    Ok(ExitCode::from(outcome.code))
}
