//! Loads, links and runs.

use std::fs::File;
use std::io;

use wasmtime::component::{Component, Val as ComponentVal};
use wasmtime::{Engine, Module, Store, Val};
use wasmtime_wasi::{p2, p3};

use crate::engine::{Profile, Serving, engine};
use crate::host::context::Context;
use crate::host::http;
use crate::host::load::{Code, LoadError, load};
use crate::host::outcome::Outcome;
use crate::link::{self, Guest};
use crate::spec::{Entry, WasmSpec};

/// The prefix of the export that a WASI 0.3 command has.
const RUN_P3: &str = "wasi:cli/run@0.3.";

/// Runs a guest to its end. `artifact` is its compiled code from the store's cache; standard input
/// and output are this process's.
///
/// `loaded` is called when the code is in memory and nothing of it has run: from there on nothing
/// needs executable memory, and this is still the only thread. `finish` gets the outcome while everything is still mapped: a process
/// that ends there does not pay for taking it down.
///
/// # Errors
/// When the code cannot be loaded. Whatever happens from there on is in the [`Outcome`].
pub fn run<T>(
    spec: &WasmSpec,
    artifact: File,
    loaded: impl FnOnce() -> io::Result<()>,
    finish: impl FnOnce(Outcome) -> T,
) -> Result<T, LoadError> {
    if let Entry::Http(options) = &spec.entry {
        return http::run(spec, options, artifact, loaded).map(finish);
    }
    let profile = Profile::new(Serving::Command, spec.metering);
    let engine = engine(profile).map_err(LoadError::Engine)?;
    let code = load(&engine, spec.kind, artifact)?;
    let context = Context::new(spec);
    loaded().map_err(LoadError::Confine)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Runtime)?;
    let finished = runtime.block_on(async {
        let mut store = match context.store(&engine) {
            Ok(store) => store,
            Err(error) => return finish(Outcome::not_started(&error)),
        };
        let result = match &code {
            Code::Module(module) => call_module(&engine, &mut store, module, spec).await,
            Code::Component(component) => {
                call_component(&engine, &mut store, component, spec).await
            }
        };
        finish(ending(result))
    });
    // Dropping the runtime would wait for a thread that sits in a read of standard input.
    runtime.shutdown_background();
    Ok(finished)
}

/// An error before the guest's first instruction.
enum Failure {
    Start(wasmtime::Error),
    Run(wasmtime::Error),
}

fn ending(result: Result<i32, Failure>) -> Outcome {
    match result {
        Ok(code) => Outcome::exited(code),
        Err(Failure::Start(error)) => Outcome::not_started(&error),
        Err(Failure::Run(error)) => Outcome::from_error(&error),
    }
}

async fn call_module(
    engine: &Engine,
    store: &mut Store<Guest>,
    module: &Module,
    spec: &WasmSpec,
) -> Result<i32, Failure> {
    let invoked = match &spec.entry {
        Entry::Export(name) => Some(name.as_str()),
        _ => None,
    };
    let entry = invoked.unwrap_or("_start");
    check_export(module, entry).map_err(Failure::Start)?;
    let pre = link::module_linker(engine)
        .and_then(|linker| linker.instantiate_pre(module))
        .map_err(Failure::Start)?;
    // A start function is guest code: its traps are traps.
    let instance = pre
        .instantiate_async(&mut *store)
        .await
        .map_err(Failure::Run)?;
    if invoked.is_some()
        && let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize")
    {
        initialize
            .call_async(&mut *store, ())
            .await
            .map_err(Failure::Run)?;
    }
    let missing = || Failure::Start(wasmtime::Error::msg(format!("no function `{entry}`")));
    let function = instance.get_func(&mut *store, entry).ok_or_else(missing)?;
    let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
    function
        .call_async(&mut *store, &[], &mut results)
        .await
        .map_err(Failure::Run)?;
    Ok(0)
}

fn check_export(module: &Module, entry: &str) -> wasmtime::Result<()> {
    let Some(export) = module.get_export(entry) else {
        let text = format!("the module exports no `{entry}`");
        return Err(wasmtime::Error::msg(text));
    };
    match export.func() {
        Some(function) if function.params().len() == 0 => Ok(()),
        _ => {
            let text = format!("`{entry}` is no function without parameters");
            Err(wasmtime::Error::msg(text))
        }
    }
}

async fn call_component(
    engine: &Engine,
    store: &mut Store<Guest>,
    component: &Component,
    spec: &WasmSpec,
) -> Result<i32, Failure> {
    match &spec.entry {
        Entry::Export(name) => call_export(engine, store, component, name).await,
        _ => call_command(engine, store, component).await,
    }
}

async fn call_command(
    engine: &Engine,
    store: &mut Store<Guest>,
    component: &Component,
) -> Result<i32, Failure> {
    let pre = link::component_linker(engine, component)
        .and_then(|linker| linker.instantiate_pre(component))
        .map_err(Failure::Start)?;
    let is_p3 = component
        .component_type()
        .exports(engine)
        .any(|(name, _)| name.starts_with(RUN_P3));
    let returned = if is_p3 {
        let pre = p3::bindings::CommandPre::new(pre).map_err(Failure::Start)?;
        let command = pre.instantiate_async(&mut *store).await;
        let command = command.map_err(Failure::Run)?;
        store
            .run_concurrent(async |store| command.wasi_cli_run().call_run(store).await)
            .await
            .and_then(|result| result)
            .map_err(Failure::Run)?
    } else {
        let pre = p2::bindings::CommandPre::new(pre).map_err(Failure::Start)?;
        let command = pre.instantiate_async(&mut *store).await;
        let command = command.map_err(Failure::Run)?;
        command
            .wasi_cli_run()
            .call_run(&mut *store)
            .await
            .map_err(Failure::Run)?
    };
    Ok(i32::from(returned.is_err()))
}

async fn call_export(
    engine: &Engine,
    store: &mut Store<Guest>,
    component: &Component,
    name: &str,
) -> Result<i32, Failure> {
    let pre = link::component_linker(engine, component)
        .and_then(|linker| linker.instantiate_pre(component))
        .map_err(Failure::Start)?;
    let instance = pre.instantiate_async(&mut *store).await;
    let instance = instance.map_err(Failure::Run)?;
    let index = match name.rsplit_once('#') {
        Some((interface, function)) => instance
            .get_export_index(&mut *store, None, interface)
            .and_then(|parent| instance.get_export_index(&mut *store, Some(&parent), function)),
        None => instance.get_export_index(&mut *store, None, name),
    };
    let function = index.and_then(|index| instance.get_func(&mut *store, index));
    let Some(function) = function else {
        let text = format!("the component exports no function `{name}`");
        return Err(Failure::Start(wasmtime::Error::msg(text)));
    };
    let ty = function.ty(&*store);
    if ty.params().len() != 0 {
        let text = format!("`{name}` is no function without parameters");
        return Err(Failure::Start(wasmtime::Error::msg(text)));
    }
    let mut results = vec![ComponentVal::Bool(false); ty.results().len()];
    function
        .call_async(&mut *store, &[], &mut results)
        .await
        .map_err(Failure::Run)?;
    let failed = matches!(results.first(), Some(ComponentVal::Result(Err(_))));
    Ok(i32::from(failed))
}
