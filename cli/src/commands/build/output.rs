//! Where the result of a build goes.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use builder::{Built, BuiltImage};
use engine::Engine;
use image::{Compression, Reference, RegistryOptions, SaveOptions};
use sys::durable::{self, Durability};

use super::BuildArgs;
use super::attest::Attestations;
use crate::render::{self, Usage};

/// What a result becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Registry,
    Local,
    Tar,
    Oci,
    Docker,
    WasmArtifact,
    CacheOnly,
}

impl Kind {
    /// Whether statements about the image go with it.
    pub(super) fn takes_statements(self) -> bool {
        matches!(self, Self::Registry | Self::Local)
    }

    /// Whether the image must be in the store for it.
    pub(super) fn needs_image(self) -> bool {
        matches!(
            self,
            Self::Image | Self::Registry | Self::Oci | Self::Docker
        )
    }
}

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) kind: Kind,
    dest: Option<PathBuf>,
    pub(super) name: Option<String>,
    is_archive: bool,
    /// How the image's own layers are compressed.
    pub(super) compression: Option<Compression>,
}

impl Output {
    pub(super) fn of(kind: Kind) -> Self {
        Self {
            kind,
            dest: None,
            name: None,
            is_archive: true,
            compression: None,
        }
    }

    /// `type=…,dest=…`, or a directory, or `-` for an archive on standard output.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        if !text.contains('=') {
            let mut output = Self::of(if text == "-" { Kind::Tar } else { Kind::Local });
            output.dest = Some(PathBuf::from(text));
            return Ok(output);
        }
        let wrong = |why: &str| Usage(format!("cannot use --output `{text}`: {why}"));
        let mut output = Self::of(Kind::Image);
        let mut pushes = false;
        let mut says_tar = false;
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", kind)) => {
                    output.kind = match kind {
                        "image" => Kind::Image,
                        "registry" => Kind::Registry,
                        "local" => Kind::Local,
                        "tar" => Kind::Tar,
                        "oci" => Kind::Oci,
                        "docker" => Kind::Docker,
                        "wasm-artifact" => Kind::WasmArtifact,
                        "cacheonly" => Kind::CacheOnly,
                        other => return Err(wrong(&format!("`{other}` is no type")).into()),
                    }
                }
                Some(("dest", path)) => output.dest = Some(PathBuf::from(path)),
                Some(("name", name)) => output.name = Some(name.to_owned()),
                Some(("push", "true")) => pushes = true,
                Some(("push", "false")) => {}
                Some(("tar", "false")) => {
                    output.is_archive = false;
                    says_tar = true;
                }
                Some(("tar", "true")) => says_tar = true,
                Some(("compression", kind)) => {
                    output.compression = Some(match kind {
                        "gzip" => Compression::Gzip,
                        "zstd" => Compression::Zstd,
                        "uncompressed" => Compression::None,
                        other => {
                            return Err(wrong(&format!(
                                "`{other}` is no compression here: there are gzip, zstd and uncompressed"
                            ))
                            .into());
                        }
                    });
                }
                _ => return Err(wrong(&format!("`{field}` is nothing that can be set")).into()),
            }
        }
        if pushes && output.kind == Kind::Image {
            output.kind = Kind::Registry;
        }
        let has_file = !matches!(output.kind, Kind::Image | Kind::Registry | Kind::CacheOnly);
        if output.dest.is_some() && !has_file {
            return Err(wrong("a dest is for what becomes a file or a directory").into());
        }
        if output.name.is_some() && !output.kind.needs_image() {
            return Err(wrong("only images have names").into());
        }
        if pushes && output.kind != Kind::Registry {
            return Err(wrong("only images are pushed").into());
        }
        if says_tar && output.kind != Kind::Oci {
            return Err(wrong("`tar` is for the type oci").into());
        }
        if output.compression.is_some() && !output.kind.needs_image() {
            return Err(wrong("only images are compressed").into());
        }
        let needs_dest = matches!(output.kind, Kind::Local)
            || (matches!(output.kind, Kind::Oci) && !output.is_archive);
        if needs_dest && output.dest.is_none() {
            return Err(wrong("it needs a dest").into());
        }
        Ok(output)
    }
}

/// What outputs are written with.
pub(super) struct Means<'a> {
    pub(super) engine: &'a Engine,
    pub(super) args: &'a BuildArgs,
    pub(super) registry: &'a RegistryOptions,
    pub(super) attestations: &'a Attestations<'a>,
}

/// Writes everything that was asked for.
pub(super) fn write(means: &Means<'_>, built: &Built, outputs: &[Output]) -> anyhow::Result<()> {
    let args = means.args;
    let id = match built.images.as_slice() {
        [one] => one.id,
        _ => built.top.digest,
    };
    let to_stdout = outputs.iter().any(|output| {
        matches!(output.kind, Kind::Tar | Kind::Oci | Kind::Docker)
            && is_stdout(output.dest.as_deref())
    });
    for output in outputs {
        one(means, built, output)?;
    }
    if let Some(path) = &args.iidfile {
        durable::replace_file(path, id.to_string().as_bytes(), Durability::Atomic)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if let Some(path) = &args.metadata_file {
        let metadata = serde_json::json!({
            "containerimage.config.digest": id.to_string(),
            "containerimage.digest": built.top.digest.to_string(),
            "containerimage.descriptor": {
                "mediaType": built.top.media_type,
                "digest": built.top.digest.to_string(),
                "size": built.top.size,
            },
            "image.name": args.tag.join(","),
        });
        let text = serde_json::to_string_pretty(&metadata)? + "\n";
        durable::replace_file(path, text.as_bytes(), Durability::Atomic)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let is_quiet = outputs
        .iter()
        .all(|output| matches!(output.kind, Kind::CacheOnly | Kind::Local | Kind::Tar));
    if !to_stdout && !is_quiet {
        render::print(&id.to_string())?;
    }
    for tag in &args.tag {
        if !args.quiet {
            render::line(&format!("named {}", Reference::parse(tag)?.familiar()));
        }
    }
    Ok(())
}

fn is_stdout(dest: Option<&Path>) -> bool {
    dest.is_none_or(|dest| dest == Path::new("-"))
}

fn one(means: &Means<'_>, built: &Built, output: &Output) -> anyhow::Result<()> {
    let (engine, args) = (means.engine, means.args);
    match output.kind {
        Kind::Image | Kind::CacheOnly => Ok(()),
        Kind::Registry => push(means, built, output),
        Kind::Local => {
            let dest = output.dest.clone().unwrap_or_default();
            for image in &built.images {
                let dest = match built.images.len() {
                    1 => dest.clone(),
                    _ => dest.join(image.platform.to_string().replace('/', "_")),
                };
                builder::export_directory(&image.layers, &dest)?;
                let name = args.tag.first().map_or("-", String::as_str);
                means.attestations.write(name, image, &dest)?;
            }
            Ok(())
        }
        Kind::Tar => {
            let image = single(built, "type=tar")?;
            to_file(output, |file| Ok(builder::export_tar(&image.layers, file)?))
        }
        Kind::Oci | Kind::Docker => {
            let mut names: Vec<String> = args.tag.iter().chain(&output.name).cloned().collect();
            if names.is_empty() {
                names.extend(built.images.first().map(|image| image.id.to_string()));
            }
            if !output.is_archive {
                let dest = output.dest.clone().unwrap_or_default();
                return Ok(engine
                    .store()
                    .save_dir(&names, &SaveOptions::default(), &dest)?);
            }
            to_file(output, |file| {
                Ok(engine.store().save(&names, &SaveOptions::default(), file)?)
            })
        }
        Kind::WasmArtifact => wasm_artifact(engine, built, args, output),
    }
}

fn single<'b>(built: &'b Built, what: &str) -> anyhow::Result<&'b BuiltImage> {
    match built.images.as_slice() {
        [one] => Ok(one),
        _ => Err(Usage(format!("cannot write {what}: it holds one platform")).into()),
    }
}

/// To the file that was named, which appears when it is complete, or to standard output.
fn to_file(
    output: &Output,
    write: impl FnOnce(&mut dyn io::Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(dest) = output
        .dest
        .as_deref()
        .filter(|dest| *dest != Path::new("-"))
    else {
        return write(&mut io::stdout().lock());
    };
    let failed = || format!("cannot write the output `{}`", dest.display());
    let parent = match dest.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".build-")
        .tempfile_in(parent)
        .with_context(failed)?;
    write(&mut io::BufWriter::new(file.as_file_mut()))?;
    file.as_file_mut().flush().with_context(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).with_context(failed)?;
    file.persist(dest).with_context(failed)?;
    Ok(())
}

fn push(means: &Means<'_>, built: &Built, output: &Output) -> anyhow::Result<()> {
    let (engine, args, registry) = (means.engine, means.args, means.registry);
    for tag in args.tag.iter().chain(&output.name) {
        let target = Reference::parse(tag)?;
        let display = crate::progress::Display::new(if args.quiet {
            crate::progress::ProgressStyle::None
        } else {
            crate::progress::ProgressStyle::Auto
        });
        let pushed = engine.store().push(tag, &target, None, registry, &display);
        display.finish();
        let pushed = pushed?;
        means
            .attestations
            .push(engine, &built.images, &target, registry)?;
        render::line(&format!(
            "pushed {} {}",
            target.familiar(),
            pushed.top.digest
        ));
    }
    Ok(())
}

/// The CNCF artifact of the module that the entrypoint names, under the image's name, or as a file.
fn wasm_artifact(
    engine: &Engine,
    built: &Built,
    args: &BuildArgs,
    output: &Output,
) -> anyhow::Result<()> {
    let image = single(built, "type=wasm-artifact")?;
    let program = image
        .command
        .first()
        .context("cannot make a wasm artifact: the image has no entrypoint")?;
    let root = image::LayeredRoot::new(image.layers.clone());
    let found = root
        .lookup(&Path::new("/").join(program))
        .with_context(|| format!("cannot make a wasm artifact of `{program}`"))?;
    let name = match args.tag.first() {
        Some(tag) => Reference::parse(tag)?,
        None => {
            return Err(
                Usage("cannot make a wasm artifact: give it a name with --tag".to_owned()).into(),
            );
        }
    };
    crate::module_file::wrap(engine.store(), &found.host_path, &name)?;
    for tag in args.tag.iter().skip(1) {
        engine
            .store()
            .tag(&name.to_string(), &Reference::parse(tag)?)?;
    }
    if output.dest.is_some() {
        return to_file(output, |file| {
            Ok(engine
                .store()
                .save(&[name.to_string()], &SaveOptions::default(), file)?)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_directories_archives_and_types() {
        let kind = |text: &str| Output::parse(text).unwrap().kind;
        assert_eq!(kind("out"), Kind::Local);
        assert_eq!(kind("-"), Kind::Tar);
        assert_eq!(kind("type=oci,dest=x.tar"), Kind::Oci);
        assert_eq!(kind("type=image,push=true,name=a"), Kind::Registry);
        let zstd = Output::parse("type=image,compression=zstd").unwrap();
        assert_eq!(zstd.compression, Some(Compression::Zstd));
        for bad in [
            "type=zip",
            "type=local",
            "dest=x,compression=9",
            "type=tar,compression=zstd",
            "type=image,dest=x",
            "type=local,dest=x,name=a",
            "type=tar,push=true",
            "type=docker,tar=false,dest=x",
            "type=oci,dest=x,nmae=y",
        ] {
            assert!(Output::parse(bad).is_err(), "{bad}");
        }
    }
}
