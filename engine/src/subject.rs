//! What a container is made of: an image of the store, or a module that lies in a file of the user.
//! The runtime is chosen before anything else is asked of it: why it cannot be run at all is the
//! better answer than what is missing of its command.

use std::path::{Path, PathBuf};

use image::{Image, LayeredRoot, RunConfig};
use network::{PortRequest, Transport};
use runtime::detect::{self, BinaryKind, Choice, Reason, RuntimeKind, RuntimeOverride, annotation};
use runtime_wasm::HttpOptions;
use tempfile::NamedTempFile;

use crate::options::{ContainerOptions, WasmOptions};
use crate::runtime_choice::{self, head, module_path};
use crate::{Engine, EngineError};

/// Everything about it that creating a container needs.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The image's identifier, or the empty string for a file.
    pub(crate) id: String,
    /// Read-only layers, uppermost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) config: RunConfig,
    /// The command; empty when there is none.
    pub(crate) args: Vec<String>,
    pub(crate) choice: Choice,
    /// The file with the module.
    pub(crate) module: Option<PathBuf>,
    /// That file, when the module was put together for this container.
    pub(crate) composed: Option<NamedTempFile>,
    /// What was asked for, and what the command says (`module.wasm#export`).
    pub(crate) wasm: WasmOptions,
    /// Where an HTTP world listens unless it is told otherwise: the port that the image exposes.
    pub(crate) port: Option<u16>,
}

impl Subject {
    /// Where an HTTP world listens: where it is told to, else at the port that is exposed, else at
    /// the one that is published. One that is exposed and not among those published would serve nobody.
    pub(crate) fn http_port(&self, published: &[PortRequest]) -> u16 {
        let tcp = |request: &&PortRequest| request.transport == Transport::Tcp;
        let published = || published.iter().filter(tcp).map(|r| r.container_port);
        let exposed = self
            .port
            .filter(|port| published().next().is_none() || published().any(|other| other == *port));
        self.wasm
            .http_port
            .or(exposed)
            .or_else(|| published().next())
            .unwrap_or(HttpOptions::PORT)
    }
}

/// Which runtime an image or a file gets, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The runtime.
    pub runtime: RuntimeKind,
    /// The fact that decided, in words.
    pub reason: String,
    /// The command; empty when there is none.
    pub command: Vec<String>,
    /// The file with the module, for the wasm runtime.
    pub module: Option<PathBuf>,
    /// Module or component, where its first bytes were seen.
    pub kind: Option<BinaryKind>,
}

impl Engine {
    /// Which runtime a container with these options would get, and why. Nothing is run, and no
    /// container is made.
    ///
    /// # Errors
    /// As [`Engine::create`], as far as the choice goes.
    pub fn explain(&self, options: &ContainerOptions) -> Result<Explanation, EngineError> {
        let subject = self.subject(options)?;
        let seen = subject.module.as_deref().map(head).transpose()?;
        Ok(Explanation {
            runtime: subject.choice.runtime,
            reason: subject.choice.reason.to_string(),
            command: subject.args,
            kind: seen.and_then(|bytes| detect::binary_kind(&options.image, &bytes).ok()),
            module: subject.module,
        })
    }

    /// Finds it and decides.
    pub(crate) fn subject(&self, options: &ContainerOptions) -> Result<Subject, EngineError> {
        let mut subject = match &options.module {
            Some(path) => self.file(options, path),
            None => self.image(options),
        }?;
        if let Some(path) = &subject.module {
            subject.composed = self.plugged(path, &options.image, &subject.wasm)?;
        }
        if let Some(file) = &subject.composed {
            subject.module = Some(file.path().to_path_buf());
        }
        Ok(subject)
    }

    fn image(&self, options: &ContainerOptions) -> Result<Subject, EngineError> {
        let image = self
            .store
            .resolve(&options.image, options.platform.as_ref())?;
        let mut layers = self.store.ensure_unpacked(&image, &())?;
        let root = LayeredRoot::new(layers.clone());
        let mut args = arguments(options, &image);
        let mut wasm = options.wasm.clone();
        if let Some(first) = args.first_mut()
            && let Some((path, export)) =
                runtime_choice::split_export(&root, first, &image.config.config.env)
        {
            *first = path;
            wasm.invoke.get_or_insert(export);
        }
        let program = args.first().map(String::as_str).unwrap_or_default();
        let env = &image.config.config.env;
        let choice = runtime_choice::choose(&image, options.runtime, &root, program, env)?;
        refuse_plugin(&image.config.config, &choice)?;
        let module = match choice.runtime {
            RuntimeKind::Native => {
                wasm.refuse(&choice)?;
                None
            }
            RuntimeKind::Wasm => {
                if let Some(links) = self.store.relative_links(&image, &layers)? {
                    layers.insert(0, links);
                }
                let content = self.layout.content();
                Some(module_path(&content, &image, &choice, &root, program)?)
            }
        };
        Ok(Subject {
            id: image.id.to_string(),
            layers,
            port: runtime_choice::exposed_port(&image),
            config: image.config.config,
            args,
            choice,
            module,
            composed: None,
            wasm,
        })
    }

    /// A module outside of the store: its container has nothing but what is mounted into it.
    fn file(&self, options: &ContainerOptions, path: &Path) -> Result<Subject, EngineError> {
        let name = &options.image;
        let given = [
            (
                options.runtime == RuntimeOverride::Native,
                "--runtime native",
            ),
            (options.platform.is_some(), "--platform"),
            (options.entrypoint.is_some(), "--entrypoint"),
        ];
        if let Some((_, option)) = given.into_iter().find(|(given, _)| *given) {
            let text = format!("cannot use {option} with `{name}`: it is a file, not an image");
            return Err(EngineError::Unsupported(text));
        }
        let refused = |reason| EngineError::Start {
            code: runtime::code::NOT_EXECUTABLE,
            message: format!("cannot run the file: {reason}"),
        };
        let choice = detect::choose_file(name, &head(path)?).map_err(refused)?;
        let mut args = vec![name.clone()];
        args.extend(options.command.iter().cloned());
        Ok(Subject {
            id: String::new(),
            layers: vec![self.store.empty_root()?],
            config: RunConfig::default(),
            args,
            choice,
            module: Some(path.to_path_buf()),
            composed: None,
            wasm: options.wasm.clone(),
            port: None,
        })
    }
}

/// The annotation by which an image says "run my entrypoint as wasm" is also that of plugins for
/// Envoy, which have neither entrypoint nor command.
fn refuse_plugin(run: &RunConfig, choice: &Choice) -> Result<(), EngineError> {
    let given = [&run.entrypoint, &run.cmd].into_iter().flatten();
    let has_program = given.flatten().next().is_some();
    match &choice.reason {
        Reason::Annotation { key, .. } if key == annotation::VARIANT && !has_program => {
            let reason = detect::Unsupported::ProxyWasm;
            let text = format!("cannot run the image: {reason}");
            Err(EngineError::Unsupported(text))
        }
        _ => Ok(()),
    }
}

/// Entrypoint and command as Docker joins them: a new entrypoint drops the image's command.
fn arguments(options: &ContainerOptions, image: &Image) -> Vec<String> {
    let run = &image.config.config;
    let entrypoint = options.entrypoint.clone();
    let command = if !options.command.is_empty() {
        options.command.clone()
    } else if entrypoint.is_none() {
        run.cmd.clone().unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut args = entrypoint.unwrap_or_else(|| run.entrypoint.clone().unwrap_or_default());
    args.extend(command);
    if !image.wasm_layers.is_empty() && !has_program(options, run) {
        // An artifact has no command: its own name stands first, the user's arguments follow.
        let name = options.image.rsplit('/').next().unwrap_or_default();
        args.insert(0, name.split([':', '@']).next().unwrap_or(name).to_owned());
    }
    if args.first().is_some_and(String::is_empty) {
        args.clear();
    }
    args
}

fn has_program(options: &ContainerOptions, run: &RunConfig) -> bool {
    let own = run
        .entrypoint
        .as_ref()
        .is_some_and(|entrypoint| !entrypoint.is_empty());
    options.entrypoint.is_some() || own || run.cmd.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_is_refused_and_a_container_with_the_same_annotation_is_not() {
        let choice = Choice {
            runtime: RuntimeKind::Wasm,
            source: None,
            kind: None,
            reason: Reason::Annotation {
                key: annotation::VARIANT.to_owned(),
                value: "compat".to_owned(),
            },
        };
        let mut run = RunConfig::default();
        let error = refuse_plugin(&run, &choice).unwrap_err().to_string();
        assert!(error.contains("proxy-wasm plugin"), "{error}");
        run.entrypoint = Some(vec!["/app.wasm".to_owned()]);
        assert!(refuse_plugin(&run, &choice).is_ok());
    }
}
