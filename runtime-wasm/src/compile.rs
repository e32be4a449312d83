//! Checks and compiles a module. It runs in the compile worker only: compiling untrusted code may
//! cost minutes and gigabytes, which is a worker's to lose and not a front end's.

use runtime::detect::BinaryKind;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::info::{EntryError, WasmInfo};
use crate::inspect::{InspectError, inspect, validate};
use crate::link;

/// The largest module that is compiled.
pub const MAX_MODULE_BYTES: u64 = 512 << 20;

/// Why a module was not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Over [`MAX_MODULE_BYTES`].
    #[error("the module is larger than {} MiB", MAX_MODULE_BYTES >> 20)]
    TooLarge,
    /// Broken, or using what is not supported.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Nothing to call.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Imports that no host interface provides.
    #[error("the module imports what nothing provides: {}", .0.join(", "))]
    MissingImports(Vec<String>),
    /// An import has another type than the host's.
    #[error("the module's imports do not fit")]
    Link(#[source] wasmtime::Error),
    /// The engine cannot be made on this machine.
    #[error("cannot make the WebAssembly engine")]
    Engine(#[source] wasmtime::Error),
    /// The compiler failed.
    #[error("cannot compile the module")]
    Compile(#[source] wasmtime::Error),
}

/// A compiled module.
#[derive(Debug)]
pub struct Compiled {
    /// What it was made from.
    pub info: WasmInfo,
    /// The artifact, for the engine that made it and its like.
    pub artifact: Vec<u8>,
}

/// Compiles a module or component that is to be started at its entry point, or at `invoke`. What
/// cannot run is refused before the compiler sees it.
///
/// # Errors
/// With the first reason why it cannot run, all missing imports together.
pub fn compile(
    engine: &Engine,
    bytes: &[u8],
    invoke: Option<&str>,
) -> Result<Compiled, CompileError> {
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_MODULE_BYTES) {
        return Err(CompileError::TooLarge);
    }
    let info = inspect(bytes)?;
    info.check_entry(invoke)?;
    validate(engine, bytes)?;
    let artifact = match info.kind {
        BinaryKind::CoreModule => compile_module(engine, bytes, &info)?,
        BinaryKind::Component => compile_component(engine, bytes, &info)?,
    };
    Ok(Compiled { info, artifact })
}

fn compile_module(engine: &Engine, bytes: &[u8], info: &WasmInfo) -> Result<Vec<u8>, CompileError> {
    let linker = link::module_linker(engine).map_err(CompileError::Engine)?;
    let provided = link::module_imports(engine, &linker);
    let missing: Vec<String> = info
        .imports
        .iter()
        .filter(|name| !provided.contains(*name))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(CompileError::MissingImports(missing));
    }
    let module = Module::new(engine, bytes).map_err(CompileError::Compile)?;
    linker
        .instantiate_pre(&module)
        .map_err(CompileError::Link)?;
    module.serialize().map_err(CompileError::Compile)
}

fn compile_component(
    engine: &Engine,
    bytes: &[u8],
    info: &WasmInfo,
) -> Result<Vec<u8>, CompileError> {
    let missing: Vec<String> = info
        .imports
        .iter()
        .filter(|name| !link::provides_interface(name))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(CompileError::MissingImports(missing));
    }
    let component = Component::new(engine, bytes).map_err(CompileError::Compile)?;
    link::component_linker(engine, &component)
        .map_err(CompileError::Engine)?
        .instantiate_pre(&component)
        .map_err(CompileError::Link)?;
    component.serialize().map_err(CompileError::Compile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Profile, engine};
    use std::error::Error as _;

    fn refusal(text: &str) -> String {
        let engine = engine(Profile::COMMAND).unwrap();
        let bytes = wat::parse_str(text).unwrap();
        let error = compile(&engine, &bytes, None).unwrap_err();
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn compile_of_what_cannot_run_is_refused_with_the_reason() {
        let rows = [
            (
                r#"(module (import "env" "a" (func)) (import "wasix_32v1" "b" (func))
                    (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
                    (func (export "_start")))"#,
                "the module imports what nothing provides: env.a, wasix_32v1.b",
            ),
            (
                r#"(component (import "demo:math/ops@0.1.0" (instance)) (core module)
                    (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#,
                "the module imports what nothing provides: demo:math/ops@0.1.0",
            ),
            (
                "(module (func (export \"_initialize\")))",
                "the module is a reactor without an entry point; name an export with `--invoke`",
            ),
            ("(component)", "the file is a WIT package: it has no code"),
            (
                r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (param i64)))
                    (func (export "_start")))"#,
                "the module's imports do not fit: incompatible import type for \
                 `wasi_snapshot_preview1::sched_yield`",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(refusal(text), expected);
        }
    }

    #[test]
    fn compile_for_an_export_needs_that_export_alone() {
        let engine = engine(Profile::COMMAND).unwrap();
        let bytes = wat::parse_str("(module (func (export \"greet\")))").unwrap();
        compile(&engine, &bytes, Some("greet")).unwrap();
        let error = compile(&engine, &bytes, Some("shout")).unwrap_err();
        assert_eq!(error.to_string(), "the module exports no `shout`");
    }

    #[test]
    fn compile_of_a_corrupt_module_is_an_error() {
        let engine = engine(Profile::COMMAND).unwrap();
        let good =
            wat::parse_str("(module (func (export \"_start\") (drop (i32.const 7))))").unwrap();
        for cut in 0..good.len() {
            assert!(
                compile(&engine, &good[..cut], None).is_err(),
                "cut at {cut}"
            );
        }
    }
}
