//! What is in an image, as a document of SPDX 2.3.

use serde_json::{Value, json};

use super::{Attestation, packages, statement};
use crate::error::BuildError;
use crate::execute::{BuiltImage, created};

const PREDICATE: &str = "https://spdx.dev/Document";

/// Lists the packages of an image; `name` is the image's, `epoch` the time that the document has.
///
/// # Errors
/// When a file of the image cannot be read.
pub fn sbom(name: &str, image: &BuiltImage, epoch: i64) -> Result<Attestation, BuildError> {
    let packages = packages(&image.layers)?;
    let id = |at: usize| format!("SPDXRef-Package-{at}");
    let listed: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(at, package)| {
            json!({
                "SPDXID": id(at),
                "name": package.name,
                "versionInfo": package.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "sourceInfo": format!("named by {}", package.found_in),
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": package.purl,
                }],
            })
        })
        .collect();
    let relations: Vec<Value> = (0..packages.len())
        .map(|at| {
            json!({
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": id(at),
            })
        })
        .collect();
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:ketch:spdx:{}", image.manifest.digest.hex()),
        "creationInfo": { "created": created(epoch), "creators": ["Tool: ketch"] },
        "packages": listed,
        "relationships": relations,
    });
    Ok(Attestation {
        predicate_type: PREDICATE,
        document: statement(name, image, PREDICATE, &document),
        file_name: "sbom.spdx.json",
    })
}
