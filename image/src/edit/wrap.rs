//! A WebAssembly module as an image: the CNCF artifact (tag-runtime `wasm-oci-artifact`, version 0),
//! which other runtimes and registries read.

use std::io::{self, Read, Write as _};

use serde::Serialize;

use crate::archive::put_manifest;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::lease::Lease;
use crate::reference::Reference;
use crate::store::Store;

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";

/// The largest module: some languages bring their whole runtime.
const MAX_MODULE: u64 = 1024 * 1024 * 1024;

/// What is known of a module that is wrapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WasmArtifact {
    /// For a component: what it asks for and what it offers. `None` for a core module.
    pub component: Option<(Vec<String>, Vec<String>)>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [Digest; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Component<'a>>,
}

#[derive(Serialize)]
struct Component<'a> {
    exports: &'a [String],
    imports: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'static str>,
}

impl Store {
    /// Makes an image of a module. Gives the digest of its manifest.
    ///
    /// # Errors
    /// When the bytes are no WebAssembly, or nothing can be written. Then nothing is left.
    pub fn wrap_wasm(
        &self,
        module: impl Read,
        name: &Reference,
        artifact: &WasmArtifact,
    ) -> Result<Digest, ImageError> {
        let lease = self.lease()?;
        let result = self.wrap_leased(module, name, artifact, &lease);
        self.discard_leased(lease)?;
        result
    }

    fn wrap_leased(
        &self,
        module: impl Read,
        name: &Reference,
        artifact: &WasmArtifact,
        lease: &Lease,
    ) -> Result<Digest, ImageError> {
        let layer = self.store_module(module, lease)?;
        let component = artifact.component.as_ref();
        let config = Config {
            created: artifact.created.as_deref(),
            architecture: "wasm",
            os: component.map_or("wasip1", |_| "wasip2"),
            layer_digests: [layer.digest],
            component: component.map(|(imports, exports)| Component {
                exports,
                imports,
                target: target_of(exports),
            }),
        };
        let config = serde_json::to_vec(&config).map_err(|error| write_failed(error.into()))?;
        let descriptor = Descriptor {
            media_type: CONFIG.to_owned(),
            digest: Digest::of(&config),
            size: config.len() as u64,
        };
        lease.add([descriptor.digest])?;
        self.content.put(&config)?;
        let manifest = put_manifest(&self.content, lease, &descriptor, &[layer])?;
        self.record(std::slice::from_ref(name), &manifest, None)?;
        Ok(manifest.digest)
    }

    fn store_module(&self, mut module: impl Read, lease: &Lease) -> Result<Descriptor, ImageError> {
        let mut magic = Vec::new();
        module
            .by_ref()
            .take(8)
            .read_to_end(&mut magic)
            .map_err(read_failed)?;
        if !magic.starts_with(b"\0asm") || magic.len() < 8 {
            return Err(ImageError::InvalidArchive {
                reason: "it is no WebAssembly module".to_owned(),
            });
        }
        let mut blob = self.content.writer(None, Some(MAX_MODULE))?;
        blob.write_all(&magic).map_err(write_failed)?;
        io::copy(&mut module, &mut blob).map_err(read_failed)?;
        let blob = blob.verify()?;
        let layer = Descriptor {
            media_type: LAYER.to_owned(),
            digest: blob.digest,
            size: blob.size,
        };
        lease.add([layer.digest])?;
        blob.sync()?;
        blob.publish()?;
        Ok(layer)
    }
}

/// The world that the exports belong to, where they say so.
fn target_of(exports: &[String]) -> Option<&'static str> {
    let offers = |interface: &str| exports.iter().any(|export| export.starts_with(interface));
    if offers("wasi:http/incoming-handler") {
        Some("wasi:http/proxy")
    } else if offers("wasi:cli/run") {
        Some("wasi:cli/command")
    } else {
        None
    }
}

fn read_failed(source: io::Error) -> ImageError {
    ImageError::ReadStream {
        what: "the module",
        source,
    }
}

fn write_failed(source: io::Error) -> ImageError {
    ImageError::WriteStream {
        what: "the image",
        source,
    }
}
