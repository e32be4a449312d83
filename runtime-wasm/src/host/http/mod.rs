//! Serves an HTTP world: one process, one listener, an instance of the component for each request
//! or for several.
//!
//! ```text
//! connections ── at most so many ──> hyper (HTTP/1.1, keep-alive, trailers)
//!     requests ── at most so many ──> an instance from the pool, in a store of its own
//! ```
//!
//! A signal that asks for the end closes the listener; requests that are being answered may go on
//! for a while.

mod epochs;
mod server;
#[cfg_attr(not(target_os = "linux"), path = "signals_elsewhere.rs")]
mod signals;
mod worker;

use std::fs::File;
use std::io;
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2, p3};

use crate::engine::{Pool, Profile, Serving, pooling_engine};
use crate::host::context::Context;
use crate::host::load::{Code, LoadError, load};
use crate::host::outcome::Outcome;
use crate::link::{self, Guest};
use crate::spec::{HttpOptions, WasmSpec};

/// The prefix of the export that a WASI 0.3 service has.
const HANDLER_P3: &str = "wasi:http/handler@0.3.";

/// Serves until a signal comes. Everything else is answered with a status of HTTP.
pub(super) fn run(
    spec: &WasmSpec,
    options: &HttpOptions,
    artifact: File,
    loaded: impl FnOnce() -> io::Result<()>,
) -> Result<Outcome, LoadError> {
    let profile = Profile::new(Serving::Http, spec.metering);
    let pool = Pool {
        // Instances that have answered and are not done yet have a place, too.
        instances: options.concurrent_requests.saturating_mul(2),
        memory_bytes: spec.limits.memory_bytes.unwrap_or(u64::MAX),
    };
    let engine = pooling_engine(profile, pool).map_err(LoadError::Engine)?;
    let component = match load(&engine, spec.kind, artifact)? {
        Code::Component(component) => component,
        Code::Module(_) => {
            let error = wasmtime::Error::msg("a module cannot answer HTTP requests");
            return Ok(Outcome::not_started(&error));
        }
    };
    // Before there is a second thread.
    let context = Context::new(spec);
    loaded().map_err(LoadError::Confine)?;
    let signals = signals::Signals::watch().map_err(LoadError::Signals)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Runtime)?;
    let epochs = epochs::Epochs::start(engine.clone()).map_err(LoadError::Runtime)?;
    let served = match prepare(&engine, &component) {
        Ok(pre) => {
            let worker = worker::Workers::new(engine, pre, context, options, epochs);
            runtime.block_on(serve(worker, options, signals))
        }
        Err(error) => Err(error),
    };
    runtime.shutdown_background();
    Ok(match served {
        Ok(()) => Outcome::exited(0),
        Err(error) => Outcome::not_started(&error),
    })
}

fn prepare(engine: &Engine, component: &Component) -> wasmtime::Result<ProxyPre<Guest>> {
    let pre = link::component_linker(engine, component)?.instantiate_pre(component)?;
    let is_p3 = component
        .component_type()
        .exports(engine)
        .any(|(name, _)| name.starts_with(HANDLER_P3));
    Ok(if is_p3 {
        ProxyPre::P3(p3::bindings::ServicePre::new(pre)?)
    } else {
        ProxyPre::P2(p2::bindings::ProxyPre::new(pre)?)
    })
}

async fn serve(
    workers: worker::Workers,
    options: &HttpOptions,
    mut signals: signals::Signals,
) -> wasmtime::Result<()> {
    let server = server::Server::bind(workers, options)?;
    server.announce();
    tokio::select! {
        never = server.accept() => match never {},
        _ = signals.next() => {}
    };
    // A second signal does not wait.
    tokio::select! {
        () = server.drain(Duration::from_millis(options.drain_ms)) => {}
        signal = signals.next() => signals::end_by(signal),
    }
    Ok(())
}
