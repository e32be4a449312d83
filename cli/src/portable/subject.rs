//! What is run: an image of the store, whose files are put together for this run alone, or a module
//! in a file of the user. The same rules choose as on Linux.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::image::{AssembledRoot, Image, Platform};
use anyhow::Context as _;
use runtime::code;
use runtime::detect::{
    self, Entrypoint, HEADER_LEN, ManifestFacts, RuntimeKind, RuntimeOverride, WasmSource,
};
use tempfile::TempDir;

use super::{NeedsLinux, Places, Refused};

/// A module, and the files that it sees.
pub(crate) struct Subject {
    pub(crate) module: PathBuf,
    /// Why it is run as it is.
    pub(crate) reason: String,
    /// The command; the first is the program as the image writes it.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
    /// The export that the command names: `module.wasm#export`.
    pub(crate) export: Option<String>,
    /// The port that the image exposes.
    pub(crate) port: Option<u16>,
    /// Its files. They go when this is dropped.
    pub(crate) root: TempDir,
}

/// An image, and what the user changes of its command.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) platform: Option<&'a Platform>,
    pub(crate) entrypoint: Option<&'a str>,
    pub(crate) command: &'a [String],
}

impl Subject {
    /// A module outside of the store, with no files.
    pub(crate) fn of_file(
        places: &Places,
        name: &str,
        path: &Path,
        command: &[String],
    ) -> anyhow::Result<Self> {
        let choice = detect::choose_file(name, &head(path)?).map_err(|reason| Refused {
            code: code::NOT_EXECUTABLE,
            message: format!("cannot run the file: {reason}"),
        })?;
        let mut args = vec![name.to_owned()];
        args.extend_from_slice(command);
        Ok(Self {
            module: path.to_path_buf(),
            reason: choice.reason.to_string(),
            args,
            env: Vec::new(),
            working_dir: String::new(),
            export: None,
            port: None,
            root: empty_root(places)?,
        })
    }

    /// An image of the store.
    pub(crate) fn of_image(places: &Places, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let name = wanted.name;
        let image = places.store.resolve(name, wanted.platform)?;
        let root = empty_root(places)?;
        let files = places.store.assemble(&image, root.path(), &())?;
        let env = image.config.config.env.clone();
        let mut args = arguments(&image, wanted);
        let mut export = None;
        if let Some(program) = args.first_mut()
            && let Some((path, invoked)) = program.split_once('#')
            && !invoked.is_empty()
            && find(&files, program, &env).is_none()
        {
            export = Some(invoked.to_owned());
            *program = path.to_owned();
        }
        let program = args.first().map(String::as_str).unwrap_or_default();
        let module = find(&files, program, &env);
        let probe = || match module.as_deref().map(head) {
            None => Entrypoint::Missing,
            Some(Ok(bytes)) => Entrypoint::from_bytes(&bytes),
            Some(Err(_)) => Entrypoint::Unknown,
        };
        let choice = detect::choose(&facts(&image), RuntimeOverride::Auto, probe)
            .map_err(|reason| anyhow::anyhow!("cannot run the image: {reason}"))?;
        if choice.runtime == RuntimeKind::Native {
            return Err(NeedsLinux {
                what: format!("run `{name}`, a program of Linux ({})", choice.reason),
                hint: None,
            }
            .into());
        }
        let layers = image.manifest.layers();
        let module = match choice.source {
            Some(WasmSource::Layer(index)) => layers
                .get(index)
                .map(|layer| places.layout.content().join(layer.digest().digest())),
            _ => module,
        };
        let missing = || Refused {
            code: code::NOT_FOUND,
            message: format!("cannot execute `{program}`: no such file in the image"),
        };
        Ok(Self {
            module: module.ok_or_else(missing)?,
            reason: choice.reason.to_string(),
            port: exposed_port(&image),
            working_dir: image.config.config.working_dir,
            args,
            env,
            export,
            root,
        })
    }
}

fn empty_root(places: &Places) -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("guest-")
        .tempdir_in(places.layout.tmp());
    dir.context("cannot make a directory for the guest's files")
}

fn head(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEADER_LEN as u64).read_to_end(&mut head))
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(head)
}

/// The program's file, found as `execve` would find it.
fn find(files: &AssembledRoot, program: &str, env: &[String]) -> Option<PathBuf> {
    if program.is_empty() || program.contains('/') {
        return files.file(program);
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    path.unwrap_or_default()
        .split(':')
        .find_map(|dir| files.file(&format!("{dir}/{program}")))
}

/// Entrypoint and command as Docker joins them: a new entrypoint drops the image's command.
fn arguments(image: &Image, wanted: &Wanted<'_>) -> Vec<String> {
    let (entrypoint, command) = (wanted.entrypoint, wanted.command);
    let run = &image.config.config;
    let mut args = match entrypoint {
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
        None => run.entrypoint.clone().unwrap_or_default(),
    };
    let has_program = entrypoint.is_some() || !args.is_empty() || run.cmd.is_some();
    if !command.is_empty() {
        args.extend_from_slice(command);
    } else if entrypoint.is_none() {
        args.extend(run.cmd.clone().unwrap_or_default());
    }
    if !image.wasm_layers.is_empty() && !has_program {
        // An artifact has no command: its own name stands first.
        let last = wanted.name.rsplit('/').next().unwrap_or_default();
        args.insert(0, last.split([':', '@']).next().unwrap_or(last).to_owned());
    }
    args
}

fn exposed_port(image: &Image) -> Option<u16> {
    let exposed = image.config.config.exposed_ports.keys();
    let ports = exposed.filter_map(|text| text.split('/').next()?.parse::<u16>().ok());
    ports.min()
}

fn facts(image: &Image) -> ManifestFacts {
    let manifest = &image.manifest;
    let annotations = manifest.annotations().iter().flatten();
    ManifestFacts {
        config_media_type: manifest.config().media_type().to_string(),
        artifact_type: manifest.artifact_type().as_ref().map(ToString::to_string),
        layer_media_types: manifest
            .layers()
            .iter()
            .map(|layer| layer.media_type().to_string())
            .collect(),
        os: image.config.os.clone(),
        architecture: image.config.architecture.clone(),
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}
