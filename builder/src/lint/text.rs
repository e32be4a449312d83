//! The rules that need nothing but the text.

use std::collections::BTreeMap;

use super::finding::{Finding, is_skipped};
use super::origins;
use super::values::{self, Surroundings};
use crate::dockerfile::{CommandLine, Dockerfile, Instruction, Kind, is_identifier};

/// Names that tell a secret.
const SECRETS: [&str; 8] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
];
const MORE_SECRETS: [&str; 3] = ["pswd", "secret", "token"];

/// Whether the name of a variable tells that its value is a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(['_', '-']);
    let is_public = words.clone().any(|word| word == "public");
    let tells = words.any(|word| SECRETS.contains(&word) || MORE_SECRETS.contains(&word));
    tells && !is_public
}

/// Runs the rules that need the text only. Rules that are skipped find nothing.
#[must_use]
pub fn lint(file: &Dockerfile) -> Vec<Finding> {
    let mut linter = Linter {
        file,
        findings: Vec::new(),
    };
    linter.casing();
    linter.stages();
    linter.continuations();
    for instruction in &file.instructions {
        linter.instruction(instruction);
    }
    linter.repeated();
    linter.descriptions();
    origins::lint(&mut linter);
    values::lint_workdirs(&mut linter);
    let mut findings = linter.findings;
    findings.retain(|finding| !is_skipped(file, finding.rule));
    findings.sort_by_key(|finding| finding.place.line);
    findings
}

/// As [`lint`], with the rules that need to know what is around the file: for a check without a build,
/// which finds the same while it runs.
#[must_use]
pub fn lint_with(file: &Dockerfile, around: &Surroundings<'_>) -> Vec<Finding> {
    let mut linter = Linter {
        file,
        findings: lint(file),
    };
    values::lint_variables(&mut linter, around);
    values::lint_ignored(&mut linter, around);
    let mut findings = linter.findings;
    findings.retain(|finding| !is_skipped(file, finding.rule));
    findings.sort_by_key(|finding| finding.place.line);
    findings
}

pub(super) struct Linter<'a> {
    pub(super) file: &'a Dockerfile,
    findings: Vec<Finding>,
}

impl Linter<'_> {
    pub(super) fn find(
        &mut self,
        rule: &'static str,
        instruction: &Instruction,
        about: &str,
        text: String,
    ) {
        self.findings.push(Finding {
            rule,
            place: self.file.place_of(instruction.line, instruction.end, about),
            end: instruction.end,
            text,
        });
    }

    fn casing(&mut self) {
        let is_upper = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_lower = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase());
        let names = self.file.instructions.iter().map(|one| one.name.as_str());
        let (upper, lower) = (
            names.clone().filter(|name| is_upper(name)).count(),
            names.filter(|name| is_lower(name)).count(),
        );
        for instruction in &self.file.instructions {
            let name = &instruction.name;
            let wrong = if upper >= lower {
                !is_upper(name)
            } else {
                !is_lower(name)
            };
            if wrong {
                let wanted = if upper >= lower { "upper" } else { "lower" };
                let text = format!(
                    "`{name}` should be written in {wanted} case, as most instructions here"
                );
                self.find("ConsistentInstructionCasing", instruction, name, text);
            }
        }
    }

    fn stages(&mut self) {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for instruction in &self.file.instructions {
            let Kind::From(from) = &instruction.kind else {
                continue;
            };
            if let Some(name) = &from.stage {
                if name.to_ascii_lowercase() != *name {
                    let text = format!("the name of stage `{name}` should be in lower case");
                    self.find("StageNameCasing", instruction, name, text);
                }
                if ["scratch", "context"].contains(&name.to_ascii_lowercase().as_str()) {
                    let text = format!("`{name}` means something else where a stage can stand");
                    self.find("ReservedStageName", instruction, name, text);
                }
                if let Some(line) = names.insert(name.to_ascii_lowercase(), instruction.line) {
                    let text = format!("the stage of line {line} has the name `{name}` too");
                    self.find("DuplicateStageName", instruction, name, text);
                }
            }
            if let Some(keyword) = &from.keyword {
                let upper = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase());
                if upper(keyword) != upper(&instruction.name) {
                    let text = format!(
                        "`{keyword}` and `{}` should have the same case",
                        instruction.name
                    );
                    self.find("FromAsCasing", instruction, keyword, text);
                }
            }
            if let Some(platform) = &from.platform {
                match platform.as_str() {
                    "$TARGETPLATFORM" | "${TARGETPLATFORM}" => {
                        let text = "the platform is the target's without being told".to_owned();
                        self.find("RedundantTargetPlatform", instruction, "--platform", text);
                    }
                    constant if !constant.contains('$') => {
                        let text = format!(
                            "the platform is always `{constant}`: whoever builds for another one gets this"
                        );
                        self.find(
                            "FromPlatformFlagConstDisallowed",
                            instruction,
                            "--platform",
                            text,
                        );
                    }
                    _ => {}
                }
            }
        }
    }

    fn continuations(&mut self) {
        for line in &self.file.empty_continuations {
            self.findings.push(Finding {
                rule: "NoEmptyContinuation",
                place: self.file.place(*line, 1),
                end: *line,
                text: "an empty line stands in an instruction that goes on: later versions may end it here".to_owned(),
            });
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            Kind::Maintainer(_) => {
                let text =
                    "MAINTAINER is out of use: write `LABEL org.opencontainers.image.authors=…`"
                        .to_owned();
                self.find("MaintainerDeprecated", instruction, &instruction.name, text);
            }
            Kind::Env(_, true) | Kind::Label(_, true) => {
                let text = format!("write `{} name=value`, with `=`", instruction.kind.name());
                self.find("LegacyKeyValueFormat", instruction, &instruction.name, text);
            }
            Kind::Cmd(CommandLine::Shell(text)) | Kind::Entrypoint(CommandLine::Shell(text))
                if !text.is_empty() =>
            {
                let text = format!(
                    "write {} as a list: the shell does not pass on the signals that end a container",
                    instruction.kind.name()
                );
                self.find("JSONArgsRecommended", instruction, &instruction.name, text);
            }
            Kind::Expose(ports) => {
                for port in ports.iter().filter(|port| !port.contains('$')) {
                    self.port(instruction, port);
                }
            }
            _ => {}
        }
        let mut secrets = Vec::new();
        match &instruction.kind {
            Kind::Env(pairs, _) => secrets.extend(pairs.iter().map(|(name, _)| name.clone())),
            Kind::Arg(args) => secrets.extend(args.iter().map(|arg| arg.name.clone())),
            _ => {}
        }
        for name in secrets.iter().filter(|name| is_secret_name(name)) {
            let text = format!(
                "`{name}` looks like a secret, and {} is not for secrets: use `RUN --mount=type=secret`",
                instruction.kind.name()
            );
            self.find("SecretsUsedInArgOrEnv", instruction, name, text);
        }
        if let Kind::Arg(args) = &instruction.kind {
            for arg in args.iter().filter(|arg| !is_identifier(&arg.name)) {
                let text = format!("`{}` cannot be used as a variable", arg.name);
                self.find("UndefinedVar", instruction, &arg.name, text);
            }
        }
    }

    fn port(&mut self, instruction: &Instruction, port: &str) {
        let (range, protocol) = match port.split_once('/') {
            Some((range, protocol)) => (range, Some(protocol)),
            None => (port, None),
        };
        if let Some(protocol) = protocol
            && protocol.to_ascii_lowercase() != protocol
        {
            let text = format!("write the protocol of `{port}` in lower case");
            self.find("ExposeProtoCasing", instruction, port, text);
        }
        if range.contains([':', '.']) {
            let text =
                format!("`{port}` names an address or a port of the host, which EXPOSE has not");
            self.find("ExposeInvalidFormat", instruction, port, text);
        }
    }

    /// CMD, ENTRYPOINT and HEALTHCHECK stand once in a stage: the last one wins.
    fn repeated(&mut self) {
        let mut last: BTreeMap<&'static str, &Instruction> = BTreeMap::new();
        let mut found: Vec<(&Instruction, usize)> = Vec::new();
        for instruction in &self.file.instructions {
            match &instruction.kind {
                Kind::From(_) => last.clear(),
                Kind::Cmd(_) | Kind::Entrypoint(_) | Kind::Healthcheck(_) => {
                    if let Some(before) = last.insert(instruction.kind.name(), instruction) {
                        found.push((before, instruction.line));
                    }
                }
                _ => {}
            }
        }
        for (instruction, line) in found {
            let text = format!(
                "{} stands once more in line {line}, and the last one wins",
                instruction.kind.name()
            );
            self.find(
                "MultipleInstructionsDisallowed",
                instruction,
                &instruction.name,
                text,
            );
        }
    }
}

impl Linter<'_> {
    /// A comment before a stage or an ARG describes it, when the file says that such comments count.
    fn descriptions(&mut self) {
        let rule = "InvalidDefinitionDescription";
        let wanted = &self.file.check.experimental;
        if !wanted.iter().any(|name| name == "all" || name == rule) {
            return;
        }
        for instruction in &self.file.instructions {
            let name = match &instruction.kind {
                Kind::From(from) => from.stage.as_deref(),
                Kind::Arg(args) => args.first().map(|arg| arg.name.as_str()),
                _ => None,
            };
            let before = instruction.line.checked_sub(2);
            let comment = before
                .and_then(|at| self.file.lines.get(at))
                .and_then(|line| line.strip_prefix('#'));
            let (Some(name), Some(comment)) = (name, comment) else {
                continue;
            };
            if comment.split_whitespace().next() != Some(name) {
                let text = format!(
                    "the comment before `{name}` should begin with that name, or be apart from it by an empty line"
                );
                self.find(rule, instruction, name, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(&'static str, usize)> {
        let file = Dockerfile::parse("Dockerfile", text).unwrap();
        lint(&file)
            .into_iter()
            .map(|finding| (finding.rule, finding.place.line))
            .collect()
    }

    #[test]
    fn each_rule_finds_its_case_and_nothing_else() {
        let table: [(&str, &[(&str, usize)]); 25] = [
            ("FROM $A:1\nRUN x\n", &[("UndefinedArgInFrom", 1)]),
            ("ARG A\nFROM a:$A\n", &[("InvalidDefaultArgInFrom", 2)]),
            ("ARG A=1\nARG B=$A\nFROM a:$B\n", &[]),
            ("FROM --platform=$BUILDPLATFORM a:${T:-1}\n", &[]),
            (
                "FROM a\nWORKDIR x\nWORKDIR y\n",
                &[("WorkdirRelativePath", 2)],
            ),
            ("FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n", &[]),
            (
                "# check=experimental=all\n# other\nFROM a AS b\n# A is this\nARG A\n",
                &[("InvalidDefinitionDescription", 3)],
            ),
            ("# other\nFROM a AS b\n", &[]),
            ("# check=skip=WorkdirRelativePath\nFROM a\nWORKDIR x\n", &[]),
            ("FROM a AS Base\n", &[("StageNameCasing", 1)]),
            ("FROM a as base\n", &[("FromAsCasing", 1)]),
            ("FROM a\nRUN x \\\n\n y\n", &[("NoEmptyContinuation", 3)]),
            (
                "FROM a\nrun x\nRUN y\n",
                &[("ConsistentInstructionCasing", 2)],
            ),
            ("FROM a AS b\nFROM c AS b\n", &[("DuplicateStageName", 2)]),
            ("FROM a AS scratch\n", &[("ReservedStageName", 1)]),
            ("FROM a\nCMD x y\n", &[("JSONArgsRecommended", 2)]),
            ("FROM a\nMAINTAINER me\n", &[("MaintainerDeprecated", 2)]),
            (
                "FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n",
                &[("MultipleInstructionsDisallowed", 2)],
            ),
            ("FROM a\nENV x y\n", &[("LegacyKeyValueFormat", 2)]),
            (
                "FROM --platform=$TARGETPLATFORM a\n",
                &[("RedundantTargetPlatform", 1)],
            ),
            (
                "FROM --platform=linux/amd64 a\n",
                &[("FromPlatformFlagConstDisallowed", 1)],
            ),
            ("FROM a\nARG API_TOKEN\n", &[("SecretsUsedInArgOrEnv", 2)]),
            (
                "FROM a\nEXPOSE 80/TCP 127.0.0.1:80\n",
                &[("ExposeProtoCasing", 2), ("ExposeInvalidFormat", 2)],
            ),
            ("# check=skip=JSONArgsRecommended\nFROM a\nCMD x\n", &[]),
            (
                "FROM a\nENV PUBLIC_KEY=x A=1\nEXPOSE 80/tcp $P\nCMD [\"x\"]\n",
                &[],
            ),
        ];
        for (text, expected) in table {
            assert_eq!(rules(text), expected, "{text}");
        }
    }
}
