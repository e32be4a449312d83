//! What the host provides to guests: the linkers, shared by the compiler, which checks imports
//! against them, and the host.

use wasmtime::{Engine, component, error::Context as _};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtxView, WasiView, p1, p2, p3};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::interfaces::{self, Interfaces};
use crate::limits::Limits;
use crate::outgoing::Outgoing;

/// The import namespace of WASI preview 1.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// The state of a store.
pub(crate) struct Guest {
    /// The WASI context, which serves modules and components.
    pub(crate) wasi: WasiP1Ctx,
    /// The limits of `wasi:http`.
    pub(crate) http: WasiHttpCtx,
    /// What becomes of requests that the guest sends.
    pub(crate) outgoing: Outgoing,
    /// What `wasi:config` and `wasi:keyvalue` show.
    pub(crate) interfaces: Interfaces,
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

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: self.wasi.ctx().table,
            ctx: &mut self.http,
        }
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
    let mut linker = component::Linker::new(engine);
    let mut imports = Imports::default();
    for (name, _) in component.component_type().imports(engine) {
        imports.note(name);
        interfaces::define(&mut linker, name)?;
    }
    if imports.p2 {
        p2::add_to_linker_async(&mut linker)?;
    }
    if imports.p3 {
        p3::add_to_linker(&mut linker)?;
    }
    if imports.http_p2 {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    }
    if imports.http_p3 {
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// What a component needs.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one package at one version"
)]
struct Imports {
    p2: bool,
    p3: bool,
    http_p2: bool,
    http_p3: bool,
}

impl Imports {
    fn note(&mut self, name: &str) {
        let (p2, p3) = (name.contains("@0.2."), name.contains("@0.3."));
        self.p2 |= p2;
        self.p3 |= p3;
        if name.starts_with("wasi:http/") {
            self.http_p2 |= p2;
            self.http_p3 |= p3;
        }
    }
}

/// Names what [`module_linker`] defines, as `module.name`.
#[cfg(feature = "compiler")]
pub(crate) fn module_imports(
    engine: &Engine,
    linker: &wasmtime::Linker<Guest>,
) -> std::collections::BTreeSet<String> {
    let limits = Limits::new(
        crate::spec::ResourceLimits::default(),
        std::sync::Arc::default(),
    );
    let guest = Guest {
        wasi: wasmtime_wasi::WasiCtxBuilder::new().build_p1(),
        http: WasiHttpCtx::new(),
        outgoing: Outgoing::new(crate::spec::NetworkGrant::None),
        interfaces: Interfaces::default(),
        limits,
    };
    let mut store = wasmtime::Store::new(engine, guest);
    linker
        .iter(&mut store)
        .map(|(module, name, _)| format!("{module}.{name}"))
        .collect()
}

/// The interfaces of `wasi:cli/imports` that [`component_linker`] defines.
#[cfg(feature = "compiler")]
const INTERFACES: [(&str, &[&str]); 7] = [
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
    ("wasi:http", &["types", "outgoing-handler", "client"]),
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
    if interfaces::provides(import) {
        return true;
    }
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
