//! From a logical line to an instruction.

use super::flags::{self, Flag};
use super::instruction::{
    Arg, CommandLine, Copy, From, Instruction, Kind, OnBuild, Run, Security, Source,
};
use super::lines::Logical;
use super::words::{pairs, split_words};
use super::{Dockerfile, Heredoc, device, health, heredoc, mount};
use crate::error::BuildError;

/// Every instruction, for the hint about one that is none.
const NAMES: [&str; 18] = [
    "FROM",
    "RUN",
    "CMD",
    "ENTRYPOINT",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "LABEL",
    "EXPOSE",
    "VOLUME",
    "USER",
    "WORKDIR",
    "SHELL",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ONBUILD",
    "MAINTAINER",
];

/// What is wrong with an instruction: the text that it is about, and why.
pub(super) struct Wrong {
    pub(super) at: String,
    pub(super) what: String,
}

impl std::convert::From<String> for Wrong {
    fn from(what: String) -> Self {
        let at = String::new();
        Self { at, what }
    }
}

impl std::convert::From<&str> for Wrong {
    fn from(what: &str) -> Self {
        what.to_owned().into()
    }
}

/// Parses one instruction.
pub(super) fn instruction(file: &Dockerfile, line: &Logical) -> Result<Instruction, BuildError> {
    let text = line.text.trim_start();
    let (name, rest) = split_name(text);
    let kind = kind(name, rest, &line.heredocs, file.escape).map_err(|wrong| {
        let about = if wrong.at.is_empty() { name } else { &wrong.at };
        let place = file.place_of(line.line, line.end, about);
        let error = BuildError::at(place, wrong.what);
        match nearest(name) {
            Some(other) => error.with_hint(format!("did you mean `{other}`?")),
            None => error,
        }
    })?;
    Ok(Instruction {
        kind,
        name: name.to_owned(),
        line: line.line,
        end: line.end,
        text: text.to_owned(),
    })
}

/// Parses an instruction that stands alone: one of ONBUILD.
pub(crate) fn instruction_of(text: &str, name: &str) -> Result<Instruction, BuildError> {
    let file = Dockerfile::parse(name, text)?;
    let place = file.place(1, 1);
    let mut all = file.instructions.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(BuildError::at(place, "it is more than one instruction")),
    }
}

pub(super) fn split_name(text: &str) -> (&str, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (name, rest.trim())
}

/// The instruction that an unknown name may have been meant to be.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    if NAMES.contains(&name.as_str()) {
        return None;
    }
    NAMES
        .into_iter()
        .min_by_key(|known| distance(known, &name))
        .filter(|known| distance(known, &name) <= 2)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().take(32).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn kind(name: &str, rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Kind, Wrong> {
    let upper = name.to_ascii_uppercase();
    if !NAMES.contains(&upper.as_str()) {
        return Err(Wrong {
            at: name.to_owned(),
            what: format!("`{name}` is no instruction"),
        });
    }
    let (flags, args) = flags::take(rest, escape);
    let has_flags = matches!(
        upper.as_str(),
        "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK"
    );
    if let (Some(flag), false) = (flags.first(), has_flags || upper == "ONBUILD") {
        // What looks like a flag is an argument of these.
        if !matches!(
            upper.as_str(),
            "CMD" | "ENTRYPOINT" | "LABEL" | "ENV" | "ARG" | "USER" | "MAINTAINER"
        ) {
            return Err(unknown_flag(&upper, flag));
        }
    }
    let args = if has_flags { args } else { rest };
    if args.is_empty() && !matches!(upper.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(format!("{upper} needs an argument").into());
    }
    Ok(match upper.as_str() {
        "FROM" => Kind::From(from(&flags, args)?),
        "RUN" => Kind::Run(run(&flags, args, heredocs)?),
        "CMD" => Kind::Cmd(command(args)),
        "ENTRYPOINT" => Kind::Entrypoint(command(args)),
        "COPY" => Kind::Copy(copy("COPY", &flags, args, heredocs)?),
        "ADD" => Kind::Add(copy("ADD", &flags, args, heredocs)?),
        "ENV" => {
            let (pairs, old) = pairs(args, escape)?;
            Kind::Env(pairs, old)
        }
        "LABEL" => {
            let (pairs, old) = pairs(args, escape)?;
            Kind::Label(pairs, old)
        }
        "ARG" => Kind::Arg(arg(args, escape)?),
        "EXPOSE" => Kind::Expose(split_words(args)),
        "VOLUME" => match json(args) {
            Some(list) if list.is_empty() => return Err("VOLUME needs a path".into()),
            Some(list) => Kind::Volume(list),
            None => Kind::Volume(split_words(args)),
        },
        "USER" => Kind::User(args.to_owned()),
        "WORKDIR" => Kind::Workdir(args.to_owned()),
        "SHELL" => match json(args) {
            Some(list) if !list.is_empty() => Kind::Shell(list),
            _ => return Err(r#"SHELL needs a list: ["/bin/sh", "-c"]"#.into()),
        },
        "STOPSIGNAL" => match split_words(args).as_slice() {
            [one] => Kind::StopSignal(one.clone()),
            _ => return Err("STOPSIGNAL needs one signal".into()),
        },
        "HEALTHCHECK" => Kind::Healthcheck(health::parse(&flags, args)?),
        "ONBUILD" => Kind::OnBuild(on_build(args, heredocs, escape)?),
        _ => Kind::Maintainer(args.to_owned()),
    })
}

pub(super) fn unknown_flag(instruction: &str, flag: &Flag) -> Wrong {
    Wrong {
        at: format!("--{}", flag.name),
        what: format!("{instruction} has no flag `--{}`", flag.name),
    }
}

pub(super) fn value(flag: &Flag) -> Result<String, Wrong> {
    match &flag.value {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(Wrong {
            at: format!("--{}", flag.name),
            what: format!("the flag `--{0}` needs a value: `--{0}=…`", flag.name),
        }),
    }
}

fn is_true(flag: &Flag) -> Result<bool, Wrong> {
    match flag.value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(Wrong {
            at: format!("--{}", flag.name),
            what: format!("`--{}={other}` is neither true nor false", flag.name),
        }),
    }
}

fn once(seen: &mut Vec<String>, flag: &Flag) -> Result<(), Wrong> {
    if seen.contains(&flag.name) {
        return Err(Wrong {
            at: format!("--{}", flag.name),
            what: format!("the flag `--{}` stands twice", flag.name),
        });
    }
    seen.push(flag.name.clone());
    Ok(())
}

fn from(flags: &[Flag], args: &str) -> Result<From, Wrong> {
    let mut platform = None;
    let mut seen = Vec::new();
    for flag in flags {
        once(&mut seen, flag)?;
        match flag.name.as_str() {
            "platform" => platform = Some(value(flag)?),
            _ => return Err(unknown_flag("FROM", flag)),
        }
    }
    let words = split_words(args);
    let (image, stage, keyword) = match words.as_slice() {
        [image] => (image, None, None),
        [image, keyword, stage] if keyword.eq_ignore_ascii_case("as") => {
            if !is_stage_name(stage) {
                return Err(Wrong {
                    at: stage.clone(),
                    what: format!(
                        "`{stage}` cannot be the name of a stage: names are [a-z][a-z0-9._-]*"
                    ),
                });
            }
            (image, Some(stage.clone()), Some(keyword.clone()))
        }
        _ => return Err("FROM needs an image and nothing else, or `image AS name`".into()),
    };
    Ok(From {
        platform,
        image: image.clone(),
        stage,
        keyword,
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn run(flags: &[Flag], args: &str, heredocs: &[Heredoc]) -> Result<Run, Wrong> {
    let mut run = Run {
        command: command(args),
        heredocs: heredocs.to_vec(),
        mounts: Vec::new(),
        network: None,
        security: Security::Sandbox,
        devices: Vec::new(),
    };
    let mut seen = Vec::new();
    for flag in flags {
        if flag.name != "mount" && flag.name != "device" {
            once(&mut seen, flag)?;
        }
        match flag.name.as_str() {
            "mount" => {
                let mount = mount::parse(&value(flag)?).map_err(|what| Wrong {
                    at: "--mount".to_owned(),
                    what,
                })?;
                run.mounts.push(mount);
            }
            "network" => {
                let network = value(flag)?;
                if !["default", "none", "host"].contains(&network.as_str()) {
                    return Err(Wrong {
                        at: "--network".to_owned(),
                        what: format!("`--network={network}` is none of default, none, host"),
                    });
                }
                run.network = Some(network);
            }
            "security" => {
                run.security = match value(flag)?.as_str() {
                    "sandbox" => Security::Sandbox,
                    "insecure" => Security::Insecure,
                    other => {
                        return Err(Wrong {
                            at: "--security".to_owned(),
                            what: format!("`--security={other}` is neither sandbox nor insecure"),
                        });
                    }
                };
            }
            "device" => {
                let device = device::parse(&value(flag)?).map_err(|what| Wrong {
                    at: "--device".to_owned(),
                    what,
                })?;
                run.devices.push(device);
            }
            _ => return Err(unknown_flag("RUN", flag)),
        }
    }
    Ok(run)
}

/// A JSON list is the exec form; everything else, also a broken list, is for the shell.
pub(super) fn command(args: &str) -> CommandLine {
    match json(args) {
        Some(list) => CommandLine::Exec(list),
        None => CommandLine::Shell(args.to_owned()),
    }
}

fn json(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn copy(name: &str, flags: &[Flag], args: &str, heredocs: &[Heredoc]) -> Result<Copy, Wrong> {
    let mut copy = Copy::default();
    let mut seen = Vec::new();
    let is_add = name == "ADD";
    for flag in flags {
        if flag.name != "exclude" {
            once(&mut seen, flag)?;
        }
        match flag.name.as_str() {
            "chown" => copy.chown = Some(value(flag)?),
            "chmod" => copy.chmod = Some(value(flag)?),
            "link" => copy.link = is_true(flag)?,
            "exclude" => copy.exclude.push(value(flag)?),
            "from" if !is_add => copy.from = Some(value(flag)?),
            "parents" if !is_add => copy.parents = is_true(flag)?,
            "checksum" if is_add => copy.checksum = Some(value(flag)?),
            "keep-git-dir" if is_add => copy.keep_git_dir = is_true(flag)?,
            "unpack" if is_add => copy.unpack = Some(is_true(flag)?),
            _ => return Err(unknown_flag(name, flag)),
        }
    }
    let mut words = json(args).unwrap_or_else(|| split_words(args));
    let destination = words
        .pop()
        .ok_or_else(|| format!("{name} needs a source and a destination"))?;
    if words.is_empty() {
        return Err(format!("{name} needs a source and a destination").into());
    }
    copy.destination = destination;
    let mut documents = heredocs.iter();
    for word in words {
        copy.sources.push(match heredoc::parse(&word) {
            Some(_) => match documents.next() {
                Some(document) => Source::Inline(document.clone()),
                None => Source::Path(word),
            },
            None => Source::Path(word),
        });
    }
    if heredoc::parse(&copy.destination).is_some() {
        return Err(format!("the destination of {name} cannot be a heredoc").into());
    }
    Ok(copy)
}

fn arg(args: &str, escape: char) -> Result<Vec<Arg>, Wrong> {
    let words = super::words::raw_words(args, escape);
    let all = words.iter().map(|word| {
        let (name, default) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if name.is_empty() {
            return Err(Wrong {
                at: word.clone(),
                what: format!("`{word}` has no name"),
            });
        }
        let name = name.to_owned();
        Ok(Arg { name, default })
    });
    all.collect()
}

/// Whether a variable of this name can be used as `$name`.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn on_build(args: &str, heredocs: &[Heredoc], escape: char) -> Result<OnBuild, Wrong> {
    let (name, rest) = split_name(args);
    if ["ONBUILD", "FROM", "MAINTAINER"]
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one))
    {
        return Err(Wrong {
            at: name.to_owned(),
            what: format!("ONBUILD cannot hold `{name}`"),
        });
    }
    // What is wrong with it is told now, not to who builds upon the image.
    kind(name, rest, heredocs, escape)?;
    let mut text = args.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(OnBuild { text })
}
