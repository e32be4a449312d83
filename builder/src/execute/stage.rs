//! One stage: its base, the triggers that this brings, its instructions.

use std::sync::Arc;

use image::Platform;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::state::{Base, State};
use super::{Execution, lock};
use crate::dockerfile::{Copy, Dockerfile, Instruction, Kind, Source, expand};
use crate::error::{BuildError, Place};
use crate::lint::Finding;
use crate::options::NamedContext;
use crate::progress::StepEnd;
use crate::scope::Sources;
use crate::stages::{Origin, Stage};

/// An instruction with the file that it stands in: the Dockerfile, or a trigger of a base image.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) instruction: &'a Instruction,
    pub(super) stage: &'a Stage,
    /// What progress calls it: `[stage 2/5]`.
    pub(super) label: &'a str,
}

impl At<'_> {
    /// The place of some text of the instruction.
    pub(super) fn place(&self, about: &str) -> Place {
        let about = if about.is_empty() {
            &self.instruction.name
        } else {
            about
        };
        self.file
            .place_of(self.instruction.line, self.instruction.end, about)
    }

    pub(super) fn fail(&self, about: &str, what: impl Into<String>) -> BuildError {
        BuildError::at(self.place(about), what)
    }

    /// The instruction on one line, for progress.
    pub(super) fn title(&self) -> String {
        let text: String = self
            .instruction
            .text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        format!("{} {text}", self.label)
    }
}

/// The time of the image, as configs have it.
pub(crate) fn created(epoch: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(epoch).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Formatting fails only for years beyond 9999.
    time.format(&Rfc3339).unwrap_or_default()
}

impl Execution<'_> {
    pub(super) fn run_stage(&self, index: usize) -> Result<State, BuildError> {
        let stage = self.graph.stages.get(index).ok_or(BuildError::Stopped)?;
        let file = self.shared.file;
        let mut state = self.begin(stage)?;
        if self.graph.replacement(index).is_some() {
            return Ok(state);
        }
        let triggers = state.config.config.on_build.take().unwrap_or_default();
        let counted = |instruction: &&Instruction| !matches!(instruction.kind, Kind::Arg(_));
        let total = 1 + triggers.len() + stage.instructions.iter().filter(counted).count();
        let mut number = 1;
        for text in &triggers {
            number += 1;
            let name = format!("ONBUILD of {}", stage.image);
            let file = Dockerfile::parse(&name, text)?;
            for instruction in &file.instructions {
                let label = format!("[{} {number}/{total}]", stage.label());
                let at = At {
                    file: &file,
                    instruction,
                    stage,
                    label: &label,
                };
                self.instruction(&mut state, at)?;
            }
        }
        for instruction in &stage.instructions {
            if counted(&instruction) {
                number += 1;
            }
            let label = format!("[{} {number}/{total}]", stage.label());
            let at = At {
                file,
                instruction,
                stage,
                label: &label,
            };
            self.instruction(&mut state, at)?;
        }
        lock(&self.consumed).extend(state.scope.consumed.iter().cloned());
        Ok(state)
    }

    /// What a stage is before its first instruction.
    fn begin(&self, stage: &Stage) -> Result<State, BuildError> {
        let file = self.shared.file;
        let place = file.place_of(stage.from.line, stage.from.end, &stage.image);
        let platform = match &stage.platform {
            Some(text) => text.parse::<Platform>().map_err(|error| {
                BuildError::from(error).or_at(&place, "cannot build for this platform")
            })?,
            None => self.platform.clone(),
        };
        let contexts = &self.shared.options.contexts;
        let origin = match self.graph.replacement(stage.index) {
            Some(context) => Origin::Context(context.to_owned()),
            None => self.graph.origin(&stage.image, stage.index, true, contexts),
        };
        let title = |name: &str| format!("[{}] FROM {name}", stage.label());
        match origin {
            Origin::Scratch => Ok(State::scratch(&platform)),
            Origin::Stage(other) => {
                let mut state = (*self.stage(other)?).clone();
                state.cmd_is_own = false;
                Ok(state)
            }
            Origin::Context(name) => match contexts.get(&name) {
                Some(NamedContext::Image(image)) if image == "scratch" => {
                    Ok(State::scratch(&platform))
                }
                Some(NamedContext::Image(image)) => {
                    let find = || self.image(image, &platform, &place);
                    self.begin_with(stage, &title(image), &platform, &place, find)
                }
                Some(NamedContext::Layout(dir, reference)) => {
                    let find = || self.layout_image(dir, reference, &platform, &place);
                    self.begin_with(stage, &title(&name), &platform, &place, find)
                }
                _ => self.begin_with_files(stage, &name, &platform),
            },
            Origin::Image(name) => {
                let find = || self.image(&name, &platform, &place);
                self.begin_with(stage, &title(&name), &platform, &place, find)
            }
        }
    }

    /// A stage of the files of a directory, and of nothing else.
    fn begin_with_files(
        &self,
        stage: &Stage,
        context: &str,
        platform: &Platform,
    ) -> Result<State, BuildError> {
        let label = format!("[{}]", stage.label());
        let at = At {
            file: self.shared.file,
            instruction: &stage.from,
            stage,
            label: &label,
        };
        let all = Copy {
            sources: vec![Source::Path("/".to_owned())],
            destination: "/".to_owned(),
            from: Some(context.to_owned()),
            ..Copy::default()
        };
        let mut state = State::scratch(platform);
        self.copy(&mut state, at, &all)?;
        Ok(state)
    }

    fn begin_with(
        &self,
        stage: &Stage,
        title: &str,
        platform: &Platform,
        place: &Place,
        find: impl FnOnce() -> Result<Arc<Base>, BuildError>,
    ) -> Result<State, BuildError> {
        let base: Arc<Base> = self.step(title, |_| Ok((find()?, StepEnd::Cached)))?;
        if !base.image.platform.serves(platform) {
            self.find(
                self.shared.file,
                Finding {
                    rule: "InvalidBaseImagePlatform",
                    place: place.clone(),
                    end: stage.from.end,
                    text: format!(
                        "the image is for {} and the stage for {platform}",
                        base.image.platform
                    ),
                },
            );
        }
        Ok(State::of_image(base))
    }

    fn instruction(&self, state: &mut State, at: At<'_>) -> Result<(), BuildError> {
        if self.is_stopped() {
            return Err(BuildError::Stopped);
        }
        match &at.instruction.kind {
            Kind::Run(run) => self.run_command(state, at, run),
            Kind::Copy(copy) | Kind::Add(copy) => self.copy(state, at, copy),
            Kind::Workdir(text) => self.workdir(state, at, text),
            Kind::Arg(args) => {
                for arg in args {
                    let default = match &arg.default {
                        Some(text) => Some(self.expand(state, at, text)?),
                        None => None,
                    };
                    let sources = Sources {
                        given: &self.shared.options.args,
                        globals: &self.graph.globals,
                        automatic: &self.automatic,
                    };
                    state.scope.declare(&arg.name, default, &sources);
                }
                let created = created(self.shared.epoch);
                state.record(at.instruction, &created, false);
                Ok(())
            }
            _ => {
                self.configure(state, at)?;
                let created = created(self.shared.epoch);
                state.record(at.instruction, &created, false);
                Ok(())
            }
        }
    }

    /// A text with its variables replaced, as one word.
    pub(super) fn expand(
        &self,
        state: &State,
        at: At<'_>,
        text: &str,
    ) -> Result<String, BuildError> {
        let lookup = |name: &str| state.scope.lookup(&state.config.config, name);
        let expanded =
            expand::word(text, at.file.escape, &lookup).map_err(|what| at.fail(text, what))?;
        self.note_unset(state, at, &expanded);
        Ok(expanded.joined())
    }

    /// A text with its variables replaced, as words.
    pub(super) fn expand_words(
        &self,
        state: &State,
        at: At<'_>,
        text: &str,
    ) -> Result<Vec<String>, BuildError> {
        let lookup = |name: &str| state.scope.lookup(&state.config.config, name);
        let expanded =
            expand::words(text, at.file.escape, &lookup).map_err(|what| at.fail(text, what))?;
        self.note_unset(state, at, &expanded);
        Ok(expanded.words)
    }

    pub(super) fn note_unset(&self, state: &State, at: At<'_>, expanded: &expand::Expanded) {
        for name in &expanded.unset {
            if !state.scope.is_declared(name) {
                self.find(
                    at.file,
                    Finding {
                        rule: "UndefinedVar",
                        place: at.place(&format!("${name}")),
                        end: at.instruction.end,
                        text: format!("the variable `{name}` is nowhere set"),
                    },
                );
            }
        }
    }
}
