//! What the host provides to guests: the linkers, shared by the compiler, which checks imports
//! against them, and the host.

use wasmtime::{Engine, component, error::Context as _};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtxView, WasiView, p1, p2, p3};

use crate::limits::Limits;

/// The import namespace of WASI preview 1.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// The state of a store.
pub(crate) struct Guest {
    /// The WASI context, which serves modules and components.
    pub(crate) wasi: WasiP1Ctx,
    /// What the guest may allocate.
    #[cfg_attr(
        not(any(feature = "host", test)),
        expect(dead_code, reason = "the compiler links guests and runs none")
    )]
    pub(crate) limits: Limits,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Makes the imports of core modules.
pub(crate) fn module_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<Guest>> {
    let mut linker = wasmtime::Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
    // The library refuses codes above 125; a container's exit code is the low byte, as for any
    // process (exit(3)).
    linker.allow_shadowing(true);
    linker
        .func_wrap(PREVIEW1, "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code & 0xff).into())
        })
        .context("cannot define `proc_exit`")?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// Makes the imports of a component: those of `wasi:cli/imports` in the versions that it imports.
/// Defining them all costs a tenth of a start.
pub(crate) fn component_linker(
    engine: &Engine,
    component: &component::Component,
) -> wasmtime::Result<component::Linker<Guest>> {
    let imports_version = |version: &str| {
        component
            .component_type()
            .imports(engine)
            .any(|(name, _)| name.contains(version))
    };
    let mut linker = component::Linker::new(engine);
    if imports_version("@0.2.") {
        p2::add_to_linker_async(&mut linker)?;
    }
    if imports_version("@0.3.") {
        p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// Names what [`module_linker`] defines, as `module.name`.
#[cfg(feature = "compiler")]
pub(crate) fn module_imports(
    engine: &Engine,
    linker: &wasmtime::Linker<Guest>,
) -> std::collections::BTreeSet<String> {
    let limits = Limits::new(crate::spec::ResourceLimits::default());
    let wasi = wasmtime_wasi::WasiCtxBuilder::new().build_p1();
    let mut store = wasmtime::Store::new(engine, Guest { wasi, limits });
    linker
        .iter(&mut store)
        .map(|(module, name, _)| format!("{module}.{name}"))
        .collect()
}

/// The interfaces of `wasi:cli/imports` that [`component_linker`] defines.
#[cfg(feature = "compiler")]
const INTERFACES: [(&str, &[&str]); 6] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
            "types",
        ],
    ),
    (
        "wasi:clocks",
        &["monotonic-clock", "wall-clock", "system-clock", "types"],
    ),
    ("wasi:filesystem", &["preopens", "types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
    (
        "wasi:sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "types",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// Whether the interface that a component imports is one of those, at a version of 0.2 or 0.3.
/// The linker has the last word on its functions.
#[cfg(feature = "compiler")]
pub(crate) fn provides_interface(import: &str) -> bool {
    let Some((path, version)) = import.split_once('@') else {
        return false;
    };
    let Some((package, interface)) = path.split_once('/') else {
        return false;
    };
    let known = INTERFACES
        .iter()
        .any(|(name, interfaces)| *name == package && interfaces.contains(&interface));
    known && (version.starts_with("0.2.") || version.starts_with("0.3."))
}
