//! `--wasm-plug`: a component with what it imports taken from others, as a module of its own.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use runtime::detect::RuntimeOverride;
use runtime_wasm::compile::MAX_MODULE_BYTES;
use runtime_wasm::compose::{self, Plug};
use tempfile::NamedTempFile;

use crate::options::{ContainerOptions, WasmOptions};
use crate::{Engine, EngineError};

/// The module's file in the container's directory.
pub(crate) const FILE: &str = "composed.wasm";

/// Where imports of a component come from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WasmPlug {
    /// The interface, or the package, that is imported.
    pub import: String,
    /// The image, or the file as the user wrote it.
    pub image: String,
    /// The file, when it is one.
    pub module: Option<PathBuf>,
}

impl Engine {
    /// The module at `path` with its plugs, in a file that vanishes unless it is kept; `None` when there
    /// are no plugs.
    pub(crate) fn plugged(
        &self,
        path: &Path,
        name: &str,
        options: &WasmOptions,
    ) -> Result<Option<NamedTempFile>, EngineError> {
        if options.plugs.is_empty() {
            return Ok(None);
        }
        let socket = read(path, name)?;
        let mut parts = Vec::new();
        for plug in &options.plugs {
            let image = ContainerOptions {
                image: plug.image.clone(),
                module: plug.module.clone(),
                runtime: match plug.module {
                    Some(_) => RuntimeOverride::Auto,
                    None => RuntimeOverride::Wasm,
                },
                ..ContainerOptions::default()
            };
            let subject = self
                .subject(&image)
                .map_err(|error| refused(&plug.image, error))?;
            let path = subject.module.ok_or_else(|| {
                let text = format!("cannot plug `{}`: it is no wasm image", plug.image);
                EngineError::Unsupported(text)
            })?;
            parts.push(read(&path, &plug.image)?);
        }
        let plugs: Vec<_> = options
            .plugs
            .iter()
            .zip(&parts)
            .map(|(plug, bytes)| Plug {
                import: &plug.import,
                name: &plug.image,
                bytes,
            })
            .collect();
        let whole = compose::plug(name, &socket, &plugs).map_err(|error| {
            EngineError::Unsupported(format!("cannot use --wasm-plug: {error}"))
        })?;
        let failed = EngineError::io("write the module with its plugs");
        let mut file = tempfile::Builder::new()
            .prefix("plug-")
            .suffix(".wasm")
            .tempfile_in(self.layout.tmp())
            .map_err(&failed)?;
        file.write_all(&whole).map_err(&failed)?;
        Ok(Some(file))
    }
}

fn refused(image: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Image(error) => EngineError::Unsupported(format!(
            "cannot plug `{image}`: {error} (`ketch pull` gets it)"
        )),
        other => other,
    }
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path);
    file.and_then(|file| file.take(MAX_MODULE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(EngineError::io("read a module"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_MODULE_BYTES) {
        let text = format!(
            "cannot plug `{name}`: it is larger than {} MiB",
            MAX_MODULE_BYTES >> 20
        );
        return Err(EngineError::Unsupported(text));
    }
    Ok(bytes)
}
