//! Turns a spec into a WASI context: what the guest can see and reach.

use std::path::Path;
use std::sync::Arc;

use wasmtime::{Engine, Store};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::host::determinism;
use crate::interfaces::Interfaces;
use crate::limits::Limits;
use crate::link::Guest;
use crate::memory::MemoryUse;
use crate::outgoing::Outgoing;
use crate::spec::{
    Entry, GuestRoot, NetworkGrant, ROOT_FD, ResourceLimits, RootAccess, Stdin, WasmSpec,
};

/// What every store of a container is made of.
pub(super) struct Context {
    spec: WasmSpec,
    environment: Vec<(String, String)>,
    root: Option<String>,
    interfaces: Interfaces,
    /// Linear memory of all stores together.
    memory_used: Arc<MemoryUse>,
    /// One of many guests in this process: none of them reads standard input or blocks a thread.
    is_server: bool,
}

impl Context {
    /// Reads it from the spec. Made before the last walls are put up: behind them nobody gets a memory
    /// file.
    pub(super) fn new(spec: &WasmSpec) -> Self {
        Self {
            spec: spec.clone(),
            environment: environment(spec),
            root: match &spec.guest_root {
                GuestRoot::Descriptor => Some(format!("/proc/self/fd/{ROOT_FD}")),
                GuestRoot::Path(path) => Some(path.clone()),
                GuestRoot::None => None,
            },
            interfaces: Interfaces::new(&spec.interfaces),
            memory_used: Arc::new(MemoryUse::shown()),
            is_server: matches!(spec.entry, Entry::Http(_)),
        }
    }

    /// How long one request, or a command, may take.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.spec.timeout_ms
    }

    /// Makes a store. The root is the guest's only preopened directory: volumes, tmpfs and read-only
    /// mounts below it are the kernel's, so `..` and nested mounts mean what they mean to a native
    /// program.
    pub(super) fn store(&self, engine: &Engine) -> wasmtime::Result<Store<Guest>> {
        let spec = &self.spec;
        let mut builder = WasiCtxBuilder::new();
        builder
            .inherit_stdout()
            .inherit_stderr()
            // File calls of a command run on its own thread: it is the only one, and it has nothing
            // to do meanwhile.
            .allow_blocking_current_thread(!self.is_server)
            .args(&spec.args)
            .envs(&self.environment)
            .initial_cwd(&spec.cwd)
            .max_random_size(spec.limits.random_bytes);
        if let Some(root) = &self.root {
            builder.preopened_dir(Path::new(root), "/", permissions(spec.root))?;
        }
        if !self.is_server && spec.stdin == Stdin::Inherit {
            builder.inherit_stdin();
        }
        if spec.network == NetworkGrant::Inherit {
            builder
                .allow_tcp(true)
                .allow_udp(true)
                .allow_ip_name_lookup(true)
                .inherit_network();
        }
        if spec.metering.deterministic {
            determinism::apply(&mut builder);
        }
        let mut wasi = builder.build_p1();
        let resources = host_size(spec.limits.resources);
        wasmtime_wasi::WasiView::ctx(&mut wasi)
            .table
            .set_max_capacity(resources);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(host_size(spec.limits.http_fields_bytes));
        let guest = Guest {
            wasi,
            http,
            outgoing: Outgoing::new(spec.network),
            interfaces: self.interfaces.clone(),
            limits: Limits::new(spec.limits.clone(), Arc::clone(&self.memory_used)),
        };
        let mut store = Store::new(engine, guest);
        bound(&mut store, &spec.limits);
        if let Some(fuel) = spec.metering.fuel {
            store.set_fuel(fuel)?;
        }
        Ok(store)
    }
}

fn bound(store: &mut Store<Guest>, limits: &ResourceLimits) {
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(host_size(limits.hostcall_bytes));
    store.set_max_component_handles(host_size(limits.resources));
}

fn host_size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn permissions(access: RootAccess) -> FsPerms {
    match access {
        RootAccess::ReadWrite => FsPerms::ReadWrite,
        RootAccess::ReadOnly => FsPerms::ReadOnly,
    }
}

/// The environment with each name once, at its first place and with its last value. `PWD` tells
/// preview 1 guests the working directory, which they cannot be given otherwise.
fn environment(spec: &WasmSpec) -> Vec<(String, String)> {
    let mut merged: Vec<(String, String)> = Vec::with_capacity(spec.env.len() + 1);
    for (name, value) in &spec.env {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => merged.push((name.clone(), value.clone())),
        }
    }
    if spec.cwd != "/" && !merged.iter().any(|(name, _)| name == "PWD") {
        merged.push(("PWD".to_owned(), spec.cwd.clone()));
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::detect::BinaryKind;

    #[test]
    fn environment_with_duplicates_keeps_the_last_value() {
        let mut spec = WasmSpec::new(BinaryKind::CoreModule, Vec::new());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        spec.env = vec![pair("A", "1"), pair("B", "2"), pair("A", "3")];
        assert_eq!(environment(&spec), [pair("A", "3"), pair("B", "2")]);
        spec.cwd = "/work".to_owned();
        assert_eq!(environment(&spec)[2], pair("PWD", "/work"));
    }
}
