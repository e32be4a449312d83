//! The stages of a Dockerfile as a graph: what each is made from, and which are needed.

use std::collections::{BTreeMap, BTreeSet};

use image::Reference;

use crate::dockerfile::{Arg, Dockerfile, From, Instruction, Kind, MountKind, expand};
use crate::error::BuildError;
use crate::options::NamedContext;

/// The last second of the year 9999, which is the last that a config can name.
const MAX_EPOCH: i64 = 253_402_300_799;

/// A stage.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) index: usize,
    pub(crate) name: Option<String>,
    pub(crate) from: Instruction,
    /// FROM's image, its variables replaced.
    pub(crate) image: String,
    /// FROM's platform, its variables replaced.
    pub(crate) platform: Option<String>,
    pub(crate) instructions: Vec<Instruction>,
}

impl Stage {
    /// What messages call it.
    pub(crate) fn label(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| format!("stage-{}", self.index))
    }
}

/// Where files come from that FROM, COPY and mounts name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Scratch,
    Stage(usize),
    Context(String),
    Image(String),
}

/// All stages, and the one that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    pub(crate) stages: Vec<Stage>,
    pub(crate) target: usize,
    /// What the stages before need, and so on: all that is built.
    pub(crate) needed: BTreeSet<usize>,
    /// The values of ARG before the first FROM.
    pub(crate) globals: BTreeMap<String, Option<String>>,
    /// Stages that contexts of the same name stand for, by their numbers.
    replaced: BTreeMap<usize, String>,
}

/// What the stages are looked at with.
pub(crate) struct Inputs<'a> {
    pub(crate) args: &'a BTreeMap<String, String>,
    /// `TARGETPLATFORM` and its like.
    pub(crate) automatic: &'a BTreeMap<String, String>,
    pub(crate) contexts: &'a BTreeMap<String, NamedContext>,
    pub(crate) target: Option<&'a str>,
}

impl Graph {
    pub(crate) fn new(file: &Dockerfile, inputs: &Inputs<'_>) -> Result<Self, BuildError> {
        let globals = globals(file, inputs)?;
        let mut stages: Vec<Stage> = Vec::new();
        for instruction in &file.instructions {
            match (&instruction.kind, stages.last_mut()) {
                (Kind::From(from), _) => {
                    let index = stages.len();
                    stages.push(stage(file, instruction, from, index, &globals, inputs)?);
                }
                (Kind::Arg(_), None) => {}
                (_, None) => {
                    let place = file.place_of(instruction.line, instruction.end, &instruction.name);
                    let what = format!("`{}` stands before the first FROM", instruction.name);
                    return Err(BuildError::at(place, what).with_hint("begin with `FROM image`"));
                }
                (_, Some(stage)) => stage.instructions.push(instruction.clone()),
            }
        }
        let replaced = stages.iter().filter_map(|stage| {
            let context = context_of(stage.name.as_deref()?, inputs.contexts)?;
            Some((stage.index, context.to_owned()))
        });
        let mut graph = Self {
            target: 0,
            replaced: replaced.collect(),
            stages,
            needed: BTreeSet::new(),
            globals,
        };
        graph.target = graph.find_target(file, inputs.target)?;
        graph.collect(file, inputs.contexts, graph.target, &mut Vec::new())?;
        Ok(graph)
    }

    fn find_target(&self, file: &Dockerfile, wanted: Option<&str>) -> Result<usize, BuildError> {
        let Some(last) = self.stages.len().checked_sub(1) else {
            let place = file.place(1, 1);
            return Err(BuildError::at(place, "the file has no FROM"));
        };
        let Some(wanted) = wanted else {
            return Ok(last);
        };
        self.by_name(wanted, self.stages.len())
            .ok_or_else(|| BuildError::NoSuchTarget {
                name: wanted.to_owned(),
                stages: self
                    .stages
                    .iter()
                    .map(Stage::label)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The stage of this name or number; of several with one name the last before `before`, else the
    /// last.
    fn by_name(&self, name: &str, before: usize) -> Option<usize> {
        let has_name = |stage: &&Stage| {
            stage
                .name
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        let named = |stages: &[Stage]| stages.iter().rev().find(has_name).map(|stage| stage.index);
        named(self.stages.get(..before).unwrap_or_default())
            .or_else(|| named(&self.stages))
            .or_else(|| {
                name.parse::<usize>()
                    .ok()
                    .filter(|index| *index < self.stages.len())
            })
    }

    /// What `name` means in stage `index`. FROM knows the stages before it only.
    pub(crate) fn origin(
        &self,
        name: &str,
        index: usize,
        is_from: bool,
        contexts: &BTreeMap<String, NamedContext>,
    ) -> Origin {
        if name.eq_ignore_ascii_case("scratch") && is_from {
            return Origin::Scratch;
        }
        let stage = self
            .by_name(name, index)
            .filter(|found| !is_from || *found < index);
        // Numbers are no stages for FROM.
        let is_number = name.parse::<usize>().is_ok();
        if let Some(stage) = stage.filter(|_| !(is_from && is_number)) {
            return match self.replaced.get(&stage) {
                Some(context) => Origin::Context(context.clone()),
                None => Origin::Stage(stage),
            };
        }
        match context_of(name, contexts) {
            Some(context) => Origin::Context(context.to_owned()),
            None => Origin::Image(name.to_owned()),
        }
    }

    /// The context that stands for a stage.
    pub(crate) fn replacement(&self, index: usize) -> Option<&str> {
        self.replaced.get(&index).map(String::as_str)
    }

    /// Everything that an instruction takes files from.
    pub(crate) fn sources(instruction: &Instruction) -> Vec<&str> {
        match &instruction.kind {
            Kind::Copy(copy) => copy.from.as_deref().into_iter().collect(),
            Kind::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.as_deref(),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn collect(
        &mut self,
        file: &Dockerfile,
        contexts: &BTreeMap<String, NamedContext>,
        index: usize,
        path: &mut Vec<usize>,
    ) -> Result<(), BuildError> {
        let Some(stage) = self.stages.get(index).cloned() else {
            return Ok(());
        };
        if path.contains(&index) {
            let place = file.place_of(stage.from.line, stage.from.end, &stage.from.name);
            let names: Vec<_> = path
                .iter()
                .chain([&index])
                .filter_map(|index| self.stages.get(*index))
                .map(Stage::label)
                .collect();
            let what = format!(
                "the stages need each other in a circle: {}",
                names.join(" needs ")
            );
            return Err(BuildError::at(place, what));
        }
        if self.needed.contains(&index) {
            return Ok(());
        }
        if self.replaced.contains_key(&index) {
            self.needed.insert(index);
            return Ok(());
        }
        path.push(index);
        let mut next = Vec::new();
        if let Origin::Stage(base) = self.origin(&stage.image, index, true, contexts) {
            next.push(base);
        }
        for instruction in &stage.instructions {
            for source in Self::sources(instruction) {
                if source.contains('$') {
                    let place = file.place_of(instruction.line, instruction.end, source);
                    let what = "variables are not replaced in `from`";
                    return Err(BuildError::at(place, what)
                        .with_hint("give it a name: `FROM $variable AS name`"));
                }
                match self.origin(source, index, false, contexts) {
                    Origin::Stage(other) => next.push(other),
                    // A number means a stage and nothing else.
                    Origin::Image(name) if name.parse::<usize>().is_ok() => {
                        let place = file.place_of(instruction.line, instruction.end, source);
                        let what = format!(
                            "there is no stage `{name}`: the file has {}",
                            self.stages.len()
                        );
                        return Err(BuildError::at(place, what));
                    }
                    _ => {}
                }
            }
        }
        for other in next {
            self.collect(file, contexts, other, path)?;
        }
        path.pop();
        self.needed.insert(index);
        Ok(())
    }
}

/// The context that a name of a stage or an image means: under that name, or for an image under
/// another spelling of it.
fn context_of<'c>(name: &str, contexts: &'c BTreeMap<String, NamedContext>) -> Option<&'c str> {
    if contexts.is_empty() || name.eq_ignore_ascii_case("scratch") {
        return None;
    }
    let spelt = |name: &str| {
        let familiar = Reference::parse(name).ok()?.familiar();
        let plain = familiar.strip_suffix(":latest").map(str::to_owned);
        Some(plain.unwrap_or(familiar))
    };
    let wanted = spelt(name);
    let is_meant = |key: &&String| {
        key.eq_ignore_ascii_case(name) || (wanted.is_some() && spelt(key) == wanted)
    };
    let exact = contexts.get_key_value(name).map(|(key, _)| key);
    exact
        .or_else(|| contexts.keys().find(is_meant))
        .map(String::as_str)
}

/// What a build counts the time from when nobody says it: a number before the first FROM.
pub(crate) fn default_epoch(file: &Dockerfile) -> Result<Option<i64>, BuildError> {
    for instruction in &file.instructions {
        let args = match &instruction.kind {
            Kind::Arg(args) => args,
            Kind::From(_) => break,
            _ => continue,
        };
        for arg in args {
            let Some(text) = arg
                .default
                .as_deref()
                .filter(|text| arg.name == "SOURCE_DATE_EPOCH" && !text.is_empty())
            else {
                continue;
            };
            let none = |_: &str| -> Option<String> { None };
            let word = expand::word(text, file.escape, &none).map(expand::Expanded::joined);
            let seconds = word.ok().and_then(|word| word.parse::<i64>().ok());
            let seconds = seconds.filter(|seconds| (0..=MAX_EPOCH).contains(seconds));
            return seconds.map(Some).ok_or_else(|| {
                let place = file.place_of(instruction.line, instruction.end, text);
                let what =
                    format!("`SOURCE_DATE_EPOCH` is `{text}`, which is no number of seconds");
                BuildError::at(place, what)
            });
        }
    }
    Ok(None)
}

fn globals(
    file: &Dockerfile,
    inputs: &Inputs<'_>,
) -> Result<BTreeMap<String, Option<String>>, BuildError> {
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
    for instruction in &file.instructions {
        let Kind::Arg(args) = &instruction.kind else {
            if matches!(instruction.kind, Kind::From(_)) {
                break;
            }
            continue;
        };
        for Arg { name, default } in args {
            let value = match (inputs.args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(text)) => {
                    let lookup = |name: &str| lookup(&values, inputs.automatic, name);
                    let expanded = expand::word(text, file.escape, &lookup).map_err(|what| {
                        BuildError::at(file.place_of(instruction.line, instruction.end, text), what)
                    })?;
                    Some(expanded.joined())
                }
                (None, None) => inputs.automatic.get(name).cloned(),
            };
            values.insert(name.clone(), value);
        }
    }
    Ok(values)
}

fn lookup(
    values: &BTreeMap<String, Option<String>>,
    automatic: &BTreeMap<String, String>,
    name: &str,
) -> Option<String> {
    values
        .get(name)
        .cloned()
        .flatten()
        .or_else(|| automatic.get(name).cloned())
}

fn stage(
    file: &Dockerfile,
    instruction: &Instruction,
    from: &From,
    index: usize,
    globals: &BTreeMap<String, Option<String>>,
    inputs: &Inputs<'_>,
) -> Result<Stage, BuildError> {
    let lookup = |name: &str| lookup(globals, inputs.automatic, name);
    let expand = |text: &str| {
        expand::word(text, file.escape, &lookup)
            .map(expand::Expanded::joined)
            .map_err(|what| {
                BuildError::at(file.place_of(instruction.line, instruction.end, text), what)
            })
    };
    let image = expand(&from.image)?;
    if image.is_empty() {
        let place = file.place_of(instruction.line, instruction.end, &from.image);
        let what = format!("`{}` stands for nothing", from.image);
        return Err(BuildError::at(place, what).with_hint(
            "give it a value with --build-arg, or a default with `ARG name=value` before FROM",
        ));
    }
    let platform = from.platform.as_deref().map(expand).transpose()?;
    Ok(Stage {
        index,
        name: from.stage.clone(),
        from: instruction.clone(),
        image,
        platform: platform.filter(|platform| !platform.is_empty()),
        instructions: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str, target: Option<&str>) -> Result<Graph, BuildError> {
        let file = Dockerfile::parse("Dockerfile", text).unwrap();
        let args = BTreeMap::from([("V".to_owned(), "9".to_owned())]);
        let automatic = BTreeMap::from([("BUILDPLATFORM".to_owned(), "linux/amd64".to_owned())]);
        let inputs = Inputs {
            args: &args,
            automatic: &automatic,
            contexts: &BTreeMap::new(),
            target,
        };
        Graph::new(&file, &inputs)
    }

    #[test]
    fn only_needed_stages_are_built() {
        let text = "ARG V=1\nARG IMAGE=a:${V}\nFROM ${IMAGE} AS base\nFROM base AS unused\nRUN x\nFROM b AS tools\nFROM --platform=$BUILDPLATFORM base\nCOPY --from=Tools /x /\nRUN --mount=from=0,target=/y z\n";
        let graph1 = graph(text, None).unwrap();
        assert_eq!(graph1.stages[0].image, "a:9");
        assert_eq!(graph1.stages[3].platform.as_deref(), Some("linux/amd64"));
        assert_eq!(graph1.needed.into_iter().collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(graph(text, Some("unused")).unwrap().needed.len(), 2);
        assert_eq!(graph(text, Some("2")).unwrap().target, 2);
    }

    #[test]
    fn contexts_stand_for_stages_and_images_of_their_names() {
        let text = "FROM a AS Base\nFROM docker.io/library/alpine:latest AS x\nFROM alpine:3 AS y\nFROM base\nCOPY --from=0 /x /\nCOPY --from=x /x /\nCOPY --from=alpine /x /\n";
        let file = Dockerfile::parse("Dockerfile", text).unwrap();
        let image = |name: &str| (name.to_owned(), NamedContext::Image("other".to_owned()));
        let contexts = BTreeMap::from([image("base"), image("alpine")]);
        let inputs = Inputs {
            args: &BTreeMap::new(),
            automatic: &BTreeMap::new(),
            contexts: &contexts,
            target: None,
        };
        let graph = Graph::new(&file, &inputs).unwrap();
        let origin = |name: &str, is_from| graph.origin(name, 3, is_from, &contexts);
        let context = |name: &str| Origin::Context(name.to_owned());
        assert_eq!(origin("base", true), context("base"));
        assert_eq!(origin("0", false), context("base"));
        assert_eq!(origin("x", false), Origin::Stage(1));
        assert_eq!(origin("alpine", false), context("alpine"));
        let image = &graph.stages[1].image;
        assert_eq!(graph.origin(image, 1, true, &contexts), context("alpine"));
        assert_eq!(
            origin("alpine:3", true),
            Origin::Image("alpine:3".to_owned())
        );
        // What a replaced stage is made from is not needed.
        assert_eq!(graph.replacement(0), Some("base"));
        assert_eq!(graph.needed.into_iter().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn epoch_may_stand_before_the_first_stage() {
        let epoch = |text: &str| default_epoch(&Dockerfile::parse("Dockerfile", text).unwrap());
        assert_eq!(
            epoch("ARG SOURCE_DATE_EPOCH=17\nFROM a\n").unwrap(),
            Some(17)
        );
        assert_eq!(
            epoch("ARG SOURCE_DATE_EPOCH=\"17\"\nFROM a\n").unwrap(),
            Some(17)
        );
        assert_eq!(
            epoch("ARG SOURCE_DATE_EPOCH\nFROM a\nARG SOURCE_DATE_EPOCH=3\n").unwrap(),
            None
        );
        let error = epoch("ARG X=1\nARG SOURCE_DATE_EPOCH=stage\nFROM a\n").unwrap_err();
        assert!(error.to_string().starts_with("Dockerfile:2:"), "{error}");
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let table = [
            (
                "FROM a\n",
                Some("x"),
                "no stage has this name; there are stage-0",
            ),
            (
                "FROM a AS x\nCOPY --from=y /a /b\nFROM b AS y\nCOPY --from=x /a /b\n",
                None,
                "in a circle: y needs x needs y",
            ),
            (
                "FROM a\nCOPY --from=7 /a /b\n",
                None,
                "there is no stage `7`",
            ),
            ("ARG X\nFROM $X\n", None, "stands for nothing"),
            ("RUN x\nFROM a\n", None, "stands before the first FROM"),
            ("FROM a\nCOPY --from=$X /a /b\n", None, "not replaced"),
            ("ARG X=1\n", None, "no FROM"),
            ("FROM a AS a\nCOPY --from=a x y\n", None, "in a circle"),
        ];
        for (text, target, expected) in table {
            let error = graph(text, target).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        // A stage may have the name of the image that it is made from.
        assert_eq!(graph("FROM a AS a\nRUN x\n", None).unwrap().needed.len(), 1);
    }
}
