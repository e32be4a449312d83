//! `GET /distribution/{name}/json`: what a registry has under a name.

use image::{Digest, Document, Reference};
use serde_json::{Value, json};

use crate::auth;
use crate::call::{Call, Reply, ok};
use crate::error::ApiError;

/// Where the credentials of a request are.
const AUTH: &str = "x-registry-auth";

/// Asks the registry.
pub(crate) async fn inspect(call: Call, name: &str) -> Reply {
    let reference =
        Reference::parse(name).map_err(|_| ApiError::bad("invalid reference format"))?;
    let options = auth::options(&call.daemon.options.registry, call.header(AUTH), &reference);
    let found = call.daemon.run(move |_| {
        let bytes = image::fetch_manifest(&reference, &options)?;
        record(&bytes)
    });
    ok(&found.await?)
}

fn record(bytes: &[u8]) -> Result<Value, ApiError> {
    let document = Document::parse(bytes, None)?;
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::internal(format!("cannot read the manifest: {error}")))?;
    let (kind, platforms) = match document {
        Document::Index(_) => {
            let entries = value["manifests"].as_array();
            let platforms = entries.into_iter().flatten().filter_map(|entry| {
                let platform = entry.get("platform")?;
                // Attestations stand in an index under a platform that there is not.
                (platform["os"] != "unknown").then(|| platform.clone())
            });
            (
                "application/vnd.oci.image.index.v1+json",
                platforms.collect(),
            )
        }
        _ => ("application/vnd.oci.image.manifest.v1+json", Vec::new()),
    };
    Ok(json!({
        "Descriptor": {
            "mediaType": value["mediaType"].as_str().unwrap_or(kind),
            "digest": Digest::of(bytes).to_string(),
            "size": bytes.len(),
        },
        "Platforms": platforms,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_shows_its_platforms_without_attestations() {
        let digest = Digest::of(b"x").to_string();
        let entry = |os: &str| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                "size": 1, "platform": { "os": os, "architecture": "amd64" },
            })
        };
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry("linux"), entry("unknown")],
        });
        let bytes = index.to_string();
        let found = record(bytes.as_bytes()).unwrap();
        assert_eq!(
            found["Platforms"],
            json!([{ "os": "linux", "architecture": "amd64" }])
        );
        assert_eq!(found["Descriptor"]["size"], bytes.len());
        assert_eq!(
            found["Descriptor"]["digest"],
            Digest::of(bytes.as_bytes()).to_string()
        );
    }
}
