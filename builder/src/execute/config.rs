//! Instructions that change the image's config and nothing else.

use std::time::Instant;

use engine::is_signal;
use image::Healthcheck;
use serde_json::{Map, Value};

use super::Execution;
use super::stage::{At, created};
use super::state::State;
use crate::cache::KeyBuilder;
use crate::copy::Placer;
use crate::dockerfile::{CommandLine, Health, Kind, instruction_of};
use crate::error::BuildError;
use crate::ignore::clean;
use crate::lint::is_secret_name;
use crate::progress::StepEnd;
use crate::scope::set_env;

impl Execution<'_> {
    /// Carries out an instruction that makes no layer.
    pub(super) fn configure(&self, state: &mut State, at: At<'_>) -> Result<(), BuildError> {
        match &at.instruction.kind {
            Kind::Env(pairs, _) => {
                let snapshot = state.clone();
                for (name, value) in pairs {
                    let name = self.expand(&snapshot, at, name)?;
                    let value = self.expand(&snapshot, at, value)?;
                    set_env(&mut state.config.config, &name, &value);
                }
            }
            Kind::Label(pairs, _) => {
                let snapshot = state.clone();
                for (name, value) in pairs {
                    let name = self.expand(&snapshot, at, name)?;
                    let value = self.expand(&snapshot, at, value)?;
                    state.config.config.labels.insert(name, value);
                }
            }
            Kind::Expose(list) => {
                for text in list {
                    for word in self.expand_words(state, at, text)? {
                        let ports = ports(&word).ok_or_else(|| {
                            at.fail(
                                text,
                                format!(
                                    "`{word}` is no port: write `number[-number][/tcp|udp|sctp]`"
                                ),
                            )
                        })?;
                        for port in ports {
                            state.config.config.exposed_ports.insert(port, empty());
                        }
                    }
                }
            }
            Kind::Volume(list) => {
                for text in list {
                    let path = self.expand(state, at, text)?;
                    if path.is_empty() {
                        return Err(at.fail(text, "the path of a volume cannot be empty"));
                    }
                    state.config.config.volumes.insert(path, empty());
                }
            }
            Kind::User(text) => {
                let user = self.expand(state, at, text)?;
                if user.is_empty() {
                    return Err(at.fail(text, format!("`{text}` stands for nobody")));
                }
                state.config.config.user = user;
            }
            Kind::Shell(shell) => state.config.config.shell = Some(shell.clone()),
            Kind::StopSignal(text) => {
                let signal = self.expand(state, at, text)?;
                if !is_signal(&signal) {
                    return Err(at.fail(text, format!("`{signal}` is no signal")));
                }
                state.config.config.stop_signal = Some(signal);
            }
            Kind::Cmd(command) => {
                state.config.config.cmd = Some(state.command(command));
                state.cmd_is_own = true;
            }
            Kind::Entrypoint(command) => {
                state.config.config.entrypoint = Some(state.command(command));
                if !state.cmd_is_own {
                    state.config.config.cmd = None;
                }
            }
            Kind::Healthcheck(health) => {
                state.config.config.healthcheck = Some(healthcheck(health));
            }
            Kind::OnBuild(trigger) => {
                instruction_of(&trigger.text, &at.file.name)?;
                state
                    .config
                    .config
                    .on_build
                    .get_or_insert_default()
                    .push(trigger.text.clone());
            }
            Kind::Maintainer(text) => state.config.author = Some(text.clone()),
            Kind::From(_)
            | Kind::Run(_)
            | Kind::Copy(_)
            | Kind::Add(_)
            | Kind::Arg(_)
            | Kind::Workdir(_) => {}
        }
        Ok(())
    }

    /// WORKDIR: a change of the config, and a layer when there is no such directory yet.
    pub(super) fn workdir(
        &self,
        state: &mut State,
        at: At<'_>,
        text: &str,
    ) -> Result<(), BuildError> {
        let path = self.expand(state, at, text)?;
        let path = format!("/{}", clean(&state.absolute(&path)));
        state.config.config.working_dir.clone_from(&path);
        let engine = self.shared.engine;
        let created = created(self.shared.epoch);
        let root = state.root(engine)?;
        let wasm_only =
            state.platform.os() == "wasi" && state.base.is_none() && state.own.is_empty();
        let there = root
            .lookup(std::path::Path::new(&path))
            .is_ok_and(|found| found.is_dir());
        if there || wasm_only {
            state.record(at.instruction, &created, false);
            return Ok(());
        }
        let mut key = KeyBuilder::new("workdir");
        key.add("chain", &state.chain());
        key.add("path", &path);
        key.add("user", &state.config.config.user);
        key.add("epoch", &self.shared.epoch.to_string());
        let key = [key.finish()];
        let layer = self.step(&at.title(), |_| {
            if let Some(layer) = self.cached(&key, self.uses_cache(at.stage.index)) {
                return Ok((layer, StepEnd::Cached));
            }
            let begin = Instant::now();
            let made = || -> Result<_, BuildError> {
                let refused = |refusal: crate::copy::Refusal| self.refused(at, refusal);
                let mut placer =
                    Placer::new(self.shared.session, Some(root.clone()), self.shared.epoch)
                        .map_err(refused)?;
                let user = &state.config.config.user;
                if !user.is_empty() {
                    placer.owner = Some(engine.owner_of(user, &root)?);
                }
                placer.directory(path.as_bytes()).map_err(refused)?;
                placer.finish().map_err(refused)
            };
            let built = made().map_err(|error| {
                error.or_at(&at.place(text), "cannot make the working directory")
            })?;
            Ok((
                self.keep_layer(built, &key, "WORKDIR", at.instruction, begin),
                StepEnd::Done,
            ))
        })?;
        state.own.push(layer);
        state.record(at.instruction, &created, true);
        Ok(())
    }
}

/// Names of arguments that tell that their values are secrets: values of ARG are no secrets.
pub(crate) fn secret_arguments<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    names
        .map(String::as_str)
        .filter(|name| is_secret_name(name))
        .collect()
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// `80`, `80/udp`, `8000-8010/tcp` as single ports.
fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return None;
    }
    let number = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port > 0 && !text.starts_with('+'))
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    (first <= last).then(|| {
        (first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect()
    })
}

fn healthcheck(health: &Health) -> Healthcheck {
    let test = match &health.command {
        None => vec!["NONE".to_owned()],
        Some(CommandLine::Exec(list)) => [vec!["CMD".to_owned()], list.clone()].concat(),
        Some(CommandLine::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    Healthcheck {
        test,
        interval: health.interval,
        timeout: health.timeout,
        start_period: health.start_period,
        start_interval: health.start_interval,
        retries: health.retries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_single_in_a_config() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("80-82/UDP").unwrap(), ["80/udp", "81/udp", "82/udp"]);
        for bad in ["", "0", "65536", "82-80", "80/icmp", "a", "1:2", "+1"] {
            assert!(ports(bad).is_none(), "{bad}");
        }
    }
}
