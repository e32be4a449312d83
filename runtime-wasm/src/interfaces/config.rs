//! `wasi:config/store`: values that the user gave with `--wasm-config`.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::link::Guest;

/// Why there is no value. Reading what was given cannot fail.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// Nothing goes wrong here; the type says that it could.
type Answer<T> = wasmtime::Result<(Result<T, Error>,)>;

pub(super) fn define(linker: &mut Linker<Guest>, import: &str) -> wasmtime::Result<()> {
    let mut interface = linker.instance(import)?;
    interface.func_wrap(
        "get",
        |store: StoreContextMut<'_, Guest>, (key,): (String,)| {
            let values = &store.data().interfaces.config;
            let found = values.iter().rev().find(|(known, _)| *known == key);
            let answer: Answer<Option<String>> = Ok((Ok(found.map(|(_, value)| value.clone())),));
            answer
        },
    )?;
    interface.func_wrap("get-all", |store: StoreContextMut<'_, Guest>, (): ()| {
        let answer: Answer<Vec<(String, String)>> =
            Ok((Ok(store.data().interfaces.config.clone()),));
        answer
    })?;
    Ok(())
}
