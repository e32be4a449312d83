//! Where an image came from (SLSA provenance v1). Values of build arguments are never told, and no time is:
//! the same build says the same.

use image::{Digest, Platform};
use serde_json::{Value, json};

use super::{Attestation, statement};
use crate::execute::BuiltImage;
use crate::options::BuildOptions;

const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// How much is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    /// What the image was made from.
    #[default]
    Min,
    /// The Dockerfile's text and the names of build arguments, too.
    Max,
}

/// What is known of a build beside its image.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// How much is told.
    pub detail: Detail,
    /// The options of the build.
    pub options: &'a BuildOptions,
    /// A context that was fetched: its repository and its commit.
    pub source: Option<&'a (String, String)>,
    /// Who built, with its version.
    pub builder: &'a str,
}

impl Provenance<'_> {
    /// Tells where an image came from; `name` is the image's.
    #[must_use]
    pub fn attest(&self, name: &str, image: &BuiltImage) -> Attestation {
        let options = self.options;
        let mut request = json!({
            "platform": image.platform.to_string(),
            "target": options.target,
        });
        if self.detail == Detail::Max
            && let Some(request) = request.as_object_mut()
        {
            let names: Vec<&String> = options.args.keys().collect();
            request.insert("argumentNames".to_owned(), json!(names));
            request.insert("labels".to_owned(), json!(options.labels));
            request.insert("dockerfile".to_owned(), json!(options.dockerfile));
        }
        let mut dependencies: Vec<Value> = image
            .materials
            .iter()
            .map(|(name, digest)| dependency(name, digest, &image.platform))
            .collect();
        if let Some((url, commit)) = self.source {
            dependencies.push(json!({ "uri": url, "digest": { "gitCommit": commit } }));
        }
        let predicate = json!({
            "buildDefinition": {
                "buildType": "urn:ketch:dockerfile:1",
                "externalParameters": {
                    "configSource": {
                        "path": options.dockerfile_name,
                        "digest": { "sha256": Digest::of(options.dockerfile.as_bytes()).hex() },
                    },
                    "request": request,
                },
                "internalParameters": {
                    "builderPlatform": Platform::host().to_string(),
                    "sourceDateEpoch": options.epoch.unwrap_or(0),
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": { "builder": { "id": self.builder } },
        });
        Attestation {
            predicate_type: PREDICATE,
            document: statement(name, image, PREDICATE, &predicate),
            file_name: "provenance.json",
        }
    }
}

/// An image that was built upon (package-url `docker`).
fn dependency(name: &str, digest: &Digest, platform: &Platform) -> Value {
    let platform = platform.to_string().replace('/', "%2F");
    json!({
        "uri": format!("pkg:docker/{name}?digest=sha256:{}&platform={platform}", digest.hex()),
        "digest": { "sha256": digest.hex() },
    })
}
