//! What is said about images that were built: which statements, and where they go.

use std::path::Path;

use anyhow::Context as _;
use builder::{
    Attestation, BuildOptions, BuiltImage, Detail, PREDICATE_TYPE, Provenance, STATEMENT,
};
use engine::Engine;
use image::{Reference, RegistryOptions, Statement};
use sys::durable::{self, Durability};

use super::BuildArgs;
use crate::render::Usage;

/// Who makes provenance.
const BUILDER: &str = concat!("urn:ketch:builder:", env!("CARGO_PKG_VERSION"));

/// The statements that are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    provenance: Option<Detail>,
    sbom: bool,
}

/// Everything that statements are made of.
pub(super) struct Attestations<'a> {
    pub(super) wanted: Wanted,
    pub(super) options: &'a BuildOptions,
    /// A context that was fetched: its repository and its commit.
    pub(super) source: Option<&'a (String, String)>,
}

impl Wanted {
    /// Reads `--provenance`, `--sbom` and `--attest`.
    pub(super) fn of(args: &BuildArgs) -> anyhow::Result<Self> {
        let mut wanted = Self::default();
        for text in &args.attest {
            let (kind, rest) = match text.split_once(',') {
                Some((kind, rest)) => (kind, rest),
                None => (text.as_str(), "true"),
            };
            match kind.strip_prefix("type=") {
                Some("provenance") => wanted.provenance(text, rest)?,
                Some("sbom") => wanted.sbom(text, rest)?,
                _ => {
                    return Err(Usage(format!(
                        "cannot use --attest `{text}`: it is type=provenance[,mode=min|max] or type=sbom"
                    ))
                    .into());
                }
            }
        }
        if let Some(text) = &args.provenance {
            wanted.provenance(text, text)?;
        }
        if let Some(text) = &args.sbom {
            wanted.sbom(text, text)?;
        }
        Ok(wanted)
    }

    fn provenance(&mut self, whole: &str, text: &str) -> Result<(), Usage> {
        self.provenance = match text {
            "true" | "min" | "mode=min" => Some(Detail::Min),
            "max" | "mode=max" => Some(Detail::Max),
            "false" | "disabled=true" => None,
            _ => {
                return Err(Usage(format!(
                    "cannot use the provenance `{whole}`: it is true, false, mode=min or mode=max"
                )));
            }
        };
        Ok(())
    }

    fn sbom(&mut self, whole: &str, text: &str) -> Result<(), Usage> {
        self.sbom = match text {
            "true" => true,
            "false" | "disabled=true" => false,
            _ => {
                return Err(Usage(format!(
                    "cannot use the list of packages `{whole}`: it is true or false, and made by ketch itself"
                )));
            }
        };
        Ok(())
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl Attestations<'_> {
    fn all(&self, name: &str, image: &BuiltImage) -> anyhow::Result<Vec<Attestation>> {
        let mut all = Vec::new();
        if let Some(detail) = self.wanted.provenance {
            let provenance = Provenance {
                detail,
                options: self.options,
                source: self.source,
                builder: BUILDER,
            };
            all.push(provenance.attest(name, image));
        }
        if self.wanted.sbom {
            all.push(builder::sbom(name, image, self.options.epoch.unwrap_or(0))?);
        }
        Ok(all)
    }

    /// Sends them after an image that was pushed under this name.
    pub(super) fn push(
        &self,
        engine: &Engine,
        images: &[BuiltImage],
        target: &Reference,
        registry: &RegistryOptions,
    ) -> anyhow::Result<()> {
        for image in images {
            for attestation in self.all(&target.familiar(), image)? {
                let kind = attestation.predicate_type.to_owned();
                let statement = Statement {
                    media_type: STATEMENT.to_owned(),
                    document: attestation.document,
                    annotations: [(PREDICATE_TYPE.to_owned(), kind)].into(),
                };
                engine
                    .store()
                    .push_statement(&statement, &image.manifest, target, registry)?;
            }
        }
        Ok(())
    }

    /// Writes them beside the files of an image.
    pub(super) fn write(&self, name: &str, image: &BuiltImage, dir: &Path) -> anyhow::Result<()> {
        for attestation in self.all(name, image)? {
            let path = dir.join(attestation.file_name);
            durable::replace_file(&path, &attestation.document, Durability::Atomic)
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        Ok(())
    }
}
