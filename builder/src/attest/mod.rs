//! Attestations: statements (in-toto v1) about an image, for whoever wants to know where it came from and
//! what is in it. They stand beside the image and never in it.

mod packages;
mod provenance;
mod sbom;

pub use packages::{Package, packages};
pub use provenance::{Detail, Provenance};
pub use sbom::sbom;

use serde_json::{Value, json};

use crate::execute::BuiltImage;

/// The media type of statements.
pub const STATEMENT: &str = "application/vnd.in-toto+json";

/// The annotation that tells what a statement is about.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// A statement about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What is said, as a URL.
    pub predicate_type: &'static str,
    /// The statement as JSON.
    pub document: Vec<u8>,
    /// The name of its file, where it is written to a directory.
    pub file_name: &'static str,
}

/// Puts what is said about an image into a statement.
fn statement(name: &str, image: &BuiltImage, predicate_type: &str, predicate: &Value) -> Vec<u8> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": name,
            "digest": { "sha256": image.manifest.digest.hex() },
        }],
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    statement.to_string().into_bytes()
}
