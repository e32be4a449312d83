//! Rules that follow variables, working directories and the context through the stages.

use std::collections::{BTreeMap, BTreeSet};

use super::origins::defaults;
use super::text::Linter;
use crate::dockerfile::{Copy, Dockerfile, Instruction, Kind, Source, expand};
use crate::ignore::{Ignore, clean};

/// The variables of an image, `name=value`; `None` when nobody knows them here.
pub type EnvOf<'a> = dyn Fn(&str) -> Option<Vec<String>> + 'a;

/// What a check without a build knows of what is around the file.
#[derive(Default)]
pub struct Surroundings<'a> {
    /// Who knows the variables of images.
    pub env_of: Option<&'a EnvOf<'a>>,
    /// The text of `.dockerignore`.
    pub ignore: Option<&'a str>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("ignore", &self.ignore)
            .finish_non_exhaustive()
    }
}

/// A relative WORKDIR goes on from what the base image has, which may change.
pub(super) fn lint_workdirs(linter: &mut Linter<'_>) {
    let file = linter.file;
    let mut settled: BTreeMap<String, bool> = BTreeMap::new();
    let (mut stage, mut is_settled) = (String::new(), false);
    for instruction in &file.instructions {
        match &instruction.kind {
            Kind::From(from) => {
                settled.insert(std::mem::take(&mut stage), is_settled);
                is_settled = settled
                    .get(&from.image.to_ascii_lowercase())
                    .copied()
                    .unwrap_or(false);
                stage = from
                    .stage
                    .as_deref()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
            }
            Kind::Workdir(path) => {
                if !is_settled && !path.starts_with(['/', '$', '"', '\'']) {
                    let text = format!(
                        "`{path}` is relative to a directory that the base image may change"
                    );
                    linter.find("WorkdirRelativePath", instruction, path, text);
                }
                is_settled = true;
            }
            _ => {}
        }
    }
}

/// The variables that a stage has at some point.
#[derive(Debug, Clone, Default)]
struct Known {
    names: BTreeSet<String>,
    /// The variables of the base image are among them.
    is_complete: bool,
}

/// Variables must be set somewhere. Nothing is said of stages whose base image nobody knows.
pub(super) fn lint_variables(linter: &mut Linter<'_>, around: &Surroundings<'_>) {
    let file = linter.file;
    let globals = defaults(file);
    let mut stages: BTreeMap<String, Known> = BTreeMap::new();
    let (mut stage, mut known) = (String::new(), Known::default());
    for instruction in &file.instructions {
        match &instruction.kind {
            Kind::From(from) => {
                stages.insert(std::mem::take(&mut stage), std::mem::take(&mut known));
                let lookup = |name: &str| globals.get(name).cloned();
                let image = expand::word(&from.image, file.escape, &lookup)
                    .map(expand::Expanded::joined)
                    .unwrap_or_default();
                known = match stages.get(&image.to_ascii_lowercase()) {
                    Some(base) if !image.is_empty() => base.clone(),
                    _ => of_image(&image, around),
                };
                stage = from
                    .stage
                    .as_deref()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
            }
            kind => {
                if known.is_complete {
                    let unset = unset(file, instruction, &known);
                    for name in unset {
                        let text = format!("the variable `{name}` is nowhere set");
                        linter.find("UndefinedVar", instruction, &format!("${name}"), text);
                    }
                }
                match kind {
                    Kind::Arg(args) => known.names.extend(args.iter().map(|arg| arg.name.clone())),
                    Kind::Env(pairs, _) => {
                        known
                            .names
                            .extend(pairs.iter().map(|(name, _)| name.clone()));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn of_image(image: &str, around: &Surroundings<'_>) -> Known {
    let env = match image {
        "scratch" => Some(Vec::new()),
        image => around.env_of.and_then(|env_of| env_of(image)),
    };
    let mut known = Known {
        is_complete: env.is_some(),
        // Every stage has a PATH.
        names: BTreeSet::from(["PATH".to_owned()]),
    };
    let names = env
        .iter()
        .flatten()
        .filter_map(|pair| pair.split('=').next());
    known.names.extend(names.map(str::to_owned));
    known
}

/// The variables of an instruction that have no value.
fn unset(file: &Dockerfile, instruction: &Instruction, known: &Known) -> BTreeSet<String> {
    // What a value is does not matter, but `${name:?}` must find one.
    let lookup = |name: &str| known.names.contains(name).then(|| "x".to_owned());
    let mut found = BTreeSet::new();
    for text in texts(&instruction.kind) {
        if let Ok(expanded) = expand::word(text, file.escape, &lookup) {
            found.extend(expanded.unset);
        }
    }
    if let Kind::Copy(copy) | Kind::Add(copy) = &instruction.kind {
        for source in &copy.sources {
            if let Source::Inline(document) = source
                && document.expand
                && let Ok(expanded) = expand::heredoc(&document.content, file.escape, &lookup)
            {
                found.extend(expanded.unset);
            }
        }
    }
    found
}

/// The texts of an instruction in which variables are replaced.
fn texts(kind: &Kind) -> Vec<&str> {
    match kind {
        Kind::Env(pairs, _) | Kind::Label(pairs, _) => pairs
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()])
            .collect(),
        Kind::Arg(args) => args
            .iter()
            .filter_map(|arg| arg.default.as_deref())
            .collect(),
        Kind::Expose(list) | Kind::Volume(list) => list.iter().map(String::as_str).collect(),
        Kind::User(text) | Kind::Workdir(text) | Kind::StopSignal(text) => vec![text],
        Kind::Copy(copy) | Kind::Add(copy) => {
            let mut texts = paths(copy);
            texts.push(&copy.destination);
            let options = [&copy.chown, &copy.chmod, &copy.checksum];
            texts.extend(options.into_iter().filter_map(|option| option.as_deref()));
            texts.extend(copy.exclude.iter().map(String::as_str));
            texts
        }
        _ => Vec::new(),
    }
}

fn paths(copy: &Copy) -> Vec<&str> {
    copy.sources
        .iter()
        .filter_map(|source| match source {
            Source::Path(path) => Some(path.as_str()),
            Source::Inline(_) => None,
        })
        .collect()
}

/// What `.dockerignore` leaves out cannot be copied.
pub(super) fn lint_ignored(linter: &mut Linter<'_>, around: &Surroundings<'_>) {
    let Some(Ok(ignore)) = around.ignore.map(Ignore::parse) else {
        return;
    };
    for instruction in &linter.file.instructions {
        let (Kind::Copy(copy) | Kind::Add(copy)) = &instruction.kind else {
            continue;
        };
        if copy.from.is_some() {
            continue;
        }
        for path in paths(copy) {
            let plain = clean(path);
            if !plain.is_empty()
                && !path.contains(['*', '?', '[', '$'])
                && !path.contains("://")
                && ignore.ignores(&plain)
                && !ignore.may_keep_below(&plain)
            {
                let text = format!("`{path}` is left out of the context by .dockerignore");
                linter.find("CopyIgnoredFile", instruction, path, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::lint_with;

    #[test]
    fn variables_and_files_are_looked_for_around_the_file() {
        let env_of = |image: &str| (image == "known").then(|| vec!["HERE=1".to_owned()]);
        let around = Surroundings {
            env_of: Some(&env_of),
            ignore: Some("*.log\ndir\n!dir/kept\n"),
        };
        let rules = |text: &str| -> Vec<(&str, usize)> {
            let file = Dockerfile::parse("Dockerfile", text).unwrap();
            lint_with(&file, &around)
                .into_iter()
                .map(|finding| (finding.rule, finding.place.line))
                .collect()
        };
        let table: [(&str, &[(&str, usize)]); 7] = [
            (
                "FROM known\nENV A=$HERE:$PATH:$GONE\nLABEL a=$A\nUSER ${B:-b}\n",
                &[("UndefinedVar", 2)],
            ),
            ("FROM unknown\nENV A=$GONE\n", &[]),
            (
                "FROM scratch AS a\nARG B\nFROM a\nCOPY $B $C /\n",
                &[("UndefinedVar", 4)],
            ),
            ("FROM scratch\nENV A=$A\n", &[("UndefinedVar", 2)]),
            (
                "FROM scratch\nCOPY <<E /x\n$GONE\nE\n",
                &[("UndefinedVar", 3)],
            ),
            (
                "FROM scratch\nCOPY x.log /\nADD dir *.log https://a/b.log /d/\n",
                &[("CopyIgnoredFile", 2)],
            ),
            ("FROM scratch AS a\nFROM a\nCOPY --from=a x.log /\n", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(rules(text), expected, "{text}");
        }
    }
}
