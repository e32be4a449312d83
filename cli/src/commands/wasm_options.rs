//! The options of `run` and `create` that only a wasm container has.

use clap::Args;
use engine::{WasmOptions, WasmPlug};

use super::options::module_file;
use crate::guest_options::{GuestArgs, pair};

/// Options of wasm containers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of wasm images")]
pub(crate) struct WasmArgs {
    #[command(flatten)]
    guest: GuestArgs,
    /// Take what the component imports, an interface or a package, from what another image or file
    /// exports (can be repeated)
    #[arg(long, value_name = "IMPORT=IMAGE")]
    wasm_plug: Vec<String>,
}

impl WasmArgs {
    /// The engine's options.
    pub(crate) fn resolve(&self) -> anyhow::Result<WasmOptions> {
        let guest = &self.guest;
        Ok(WasmOptions {
            invoke: guest.invoke.clone(),
            timeout_ms: guest.timeout_ms()?,
            fuel: guest.wasm_fuel,
            deterministic: guest.wasm_deterministic,
            no_files: guest.wasm_no_files,
            http_port: guest.wasm_http_port,
            http_reuse: guest.http_reuse()?,
            http_concurrency: guest.http_concurrency()?,
            config: guest.config()?,
            keyvalue: guest.wasm_keyvalue,
            logging: guest.wasm_logging,
            plugs: self
                .wasm_plug
                .iter()
                .map(|text| plug(text))
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

fn plug(text: &str) -> anyhow::Result<WasmPlug> {
    let (import, image) = pair(text, "--wasm-plug", "IMPORT=IMAGE")?;
    Ok(WasmPlug {
        import,
        module: module_file(&image)?,
        image,
    })
}
