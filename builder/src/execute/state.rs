//! What a stage is at a point of its making.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use engine::Engine;
use image::{BuiltLayer, DiffId, HistoryEntry, Image, ImageConfig, LayeredRoot, Platform};
use sha2::{Digest as _, Sha256};

use crate::dockerfile::{CommandLine, Instruction};
use crate::error::BuildError;
use crate::scope::{Scope, env_value, set_env};

/// The image that a stage begins with.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) image: Image,
    /// Its unpacked layers, uppermost first.
    pub(crate) dirs: Vec<PathBuf>,
}

/// A layer that the build made or found.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) diff_id: DiffId,
    pub(crate) size: u64,
    /// As long as it has no name of its own.
    pub(crate) held: Option<Arc<BuiltLayer>>,
}

/// The image that a stage is so far.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) base: Option<Arc<Base>>,
    /// The stage's own layers, the lowest first.
    pub(crate) own: Vec<Layer>,
    pub(crate) config: ImageConfig,
    pub(crate) scope: Scope,
    pub(crate) platform: Platform,
    /// CMD stood in this stage: an ENTRYPOINT does not take it away.
    pub(crate) cmd_is_own: bool,
}

/// The PATH of images whose config has none, as other builders write it down.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `ENV PATH=/x:$PATH` is written with a PATH in mind, whatever the base image says.
fn set_path(config: &mut ImageConfig) {
    if config.os == "linux" && env_value(&config.config, "PATH").is_none() {
        set_env(&mut config.config, "PATH", PATH);
    }
}

impl State {
    pub(crate) fn scratch(platform: &Platform) -> Self {
        let mut config = ImageConfig::default();
        platform.os().clone_into(&mut config.os);
        platform.architecture().clone_into(&mut config.architecture);
        config.variant = platform.variant().map(str::to_owned);
        set_path(&mut config);
        Self {
            base: None,
            own: Vec::new(),
            config,
            scope: Scope::default(),
            platform: platform.clone(),
            cmd_is_own: false,
        }
    }

    pub(crate) fn of_image(base: Arc<Base>) -> Self {
        let mut config = base.image.config.clone();
        config.build_cache = None;
        let platform = base.image.platform.clone();
        if config.os.is_empty() {
            platform.os().clone_into(&mut config.os);
            platform.architecture().clone_into(&mut config.architecture);
        }
        set_path(&mut config);
        Self {
            base: Some(base),
            own: Vec::new(),
            config,
            scope: Scope::default(),
            platform,
            cmd_is_own: false,
        }
    }

    /// The directories to stack, uppermost first; none for an empty image.
    pub(crate) fn dirs(&self, engine: &Engine) -> Result<Vec<PathBuf>, BuildError> {
        let mut dirs = Vec::new();
        let mut seen = BTreeSet::new();
        for layer in self.own.iter().rev() {
            // overlayfs refuses a directory that stands in the stack twice; the upper one counts.
            if seen.insert(layer.diff_id) {
                dirs.push(layer.root(engine)?);
            }
        }
        if let Some(base) = &self.base {
            let new = base
                .dirs
                .iter()
                .filter(|dir| !dirs.contains(dir))
                .cloned()
                .collect::<Vec<_>>();
            dirs.extend(new);
        }
        Ok(dirs)
    }

    /// The stage's files as one tree.
    pub(crate) fn root(&self, engine: &Engine) -> Result<LayeredRoot, BuildError> {
        let mut dirs = self.dirs(engine)?;
        if dirs.is_empty() {
            dirs.push(engine.store().empty_root()?);
        }
        Ok(LayeredRoot::new(dirs))
    }

    /// What its files are: the same for the same layers, however they came to be.
    pub(crate) fn chain(&self) -> String {
        let mut hasher = Sha256::new();
        let base = self
            .base
            .iter()
            .flat_map(|base| base.image.config.rootfs.diff_ids.clone());
        for id in base.chain(self.own.iter().map(|layer| layer.diff_id.to_string())) {
            hasher.update(id.as_bytes());
            hasher.update(b"\n");
        }
        hex::encode(hasher.finalize())
    }

    /// The shell of shell forms.
    pub(crate) fn shell(&self) -> Vec<String> {
        let default = || ["/bin/sh", "-c"].map(str::to_owned).to_vec();
        self.config
            .config
            .shell
            .clone()
            .filter(|shell| !shell.is_empty())
            .unwrap_or_else(default)
    }

    /// A command as a config holds it.
    pub(crate) fn command(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(list) => list.clone(),
            CommandLine::Shell(text) if text.is_empty() => Vec::new(),
            CommandLine::Shell(text) => {
                let mut list = self.shell();
                list.push(text.clone());
                list
            }
        }
    }

    /// A path as the working directory makes it absolute.
    pub(crate) fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let cwd = self.config.config.working_dir.trim_end_matches('/');
        format!("{cwd}/{path}")
    }

    /// Writes an instruction down: as it stands in the file, so that no value of a variable is told.
    pub(crate) fn record(&mut self, instruction: &Instruction, created: &str, made_layer: bool) {
        self.config.history.push(HistoryEntry {
            created: Some(created.to_owned()),
            created_by: Some(instruction.text.clone()),
            comment: Some("ketch".to_owned()),
            empty_layer: (!made_layer).then_some(true),
            ..HistoryEntry::default()
        });
    }
}

impl Layer {
    pub(crate) fn root(&self, engine: &Engine) -> Result<PathBuf, BuildError> {
        // Its name comes first: once it has one, the directory that it had before is gone, or goes.
        if let Some(root) = engine.store().built_root(&self.diff_id) {
            return Ok(root);
        }
        let held = self.held.as_ref().map(|held| held.root());
        Ok(held.ok_or(image::ImageError::BlobMissing(self.diff_id.0))?)
    }
}
