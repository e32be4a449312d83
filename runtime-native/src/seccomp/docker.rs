//! Profiles in Docker's format: the runtime specification's, with rules that depend on the
//! container's capabilities and on the host.

use std::str::FromStr;

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;

use super::arch::Arch;
use super::error::RulePlace;
use super::{SeccompError, oci};
use crate::capability;

/// Docker's own profile has 20 KB; what is beyond this limit cannot fit into a filter.
const MAX_SIZE: usize = 1 << 20;

/// What the conditional rules of a profile are resolved against.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// The container's bounding set, bit n being capability n.
    pub capabilities: u64,
    /// The machine's architecture.
    pub arch: Arch,
    /// The kernel's version: the two numbers of `6.18`.
    pub kernel: (u32, u32),
}

impl Host {
    /// This machine, for a container that holds `capabilities`.
    ///
    /// A kernel release that does not start with two numbers counts as 0.0, so that rules with
    /// a `minKernel` in `includes` do not apply.
    #[must_use]
    pub fn current(capabilities: u64, arch: Arch) -> Self {
        let name = rustix::system::uname();
        let kernel = name
            .release()
            .to_str()
            .ok()
            .and_then(parse_release)
            .unwrap_or((0, 0));
        Self {
            capabilities,
            arch,
            kernel,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Option<String>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMapping>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<ConditionalRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMapping {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConditionalRule {
    /// One call, in profiles of Docker before 1.12.
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile in Docker's format and keeps the rules that hold for `host`.
///
/// # Errors
///
/// A [`SeccompError`] if it is not such a profile; the message names the rule and the field.
pub fn from_json(json: &[u8], host: &Host) -> Result<LinuxSeccomp, SeccompError> {
    if json.len() > MAX_SIZE {
        return Err(SeccompError::TooLarge {
            size: json.len(),
            limit: MAX_SIZE,
        });
    }
    let profile: Profile = serde_json::from_slice(json).map_err(SeccompError::Parse)?;
    let mut spec = LinuxSeccomp::default();
    spec.set_default_action(default_action(&profile)?);
    spec.set_default_errno_ret(profile.default_errno_ret);
    spec.set_architectures(architectures(&profile, host.arch)?);
    spec.set_flags(flags(&profile)?);
    spec.set_listener_path(profile.listener_path.map(Into::into));
    spec.set_listener_metadata(profile.listener_metadata);
    let mut rules = Vec::new();
    for (index, rule) in profile.syscalls.into_iter().flatten().enumerate() {
        rules.extend(resolve_rule(index, rule, host)?);
    }
    spec.set_syscalls(Some(rules));
    Ok(spec)
}

fn default_action(profile: &Profile) -> Result<LinuxSeccompAction, SeccompError> {
    // Docker runs a container unconfined if the profile is empty; that has its own option.
    let action = profile
        .default_action
        .as_deref()
        .ok_or_else(|| refuse("defaultAction", "is missing"))?;
    LinuxSeccompAction::from_str(action).map_err(|_| {
        refuse(
            "defaultAction",
            format!("is `{action}`, which is not an action"),
        )
    })
}

/// `architectures` as it is, or the entry of `archMap` for this machine.
fn architectures(profile: &Profile, native: Arch) -> Result<Option<Vec<SpecArch>>, SeccompError> {
    let map = profile.arch_map.as_deref().unwrap_or_default();
    if let Some(listed) = profile
        .architectures
        .as_ref()
        .filter(|listed| !listed.is_empty())
    {
        if !map.is_empty() {
            return Err(refuse("archMap", "cannot stand beside `architectures`"));
        }
        return listed
            .iter()
            .map(|name| parse_arch("architectures", name))
            .collect::<Result<_, _>>()
            .map(Some);
    }
    let name = native.to_spec().to_string();
    let Some(mapping) = map.iter().find(|mapping| mapping.architecture == name) else {
        return Ok(None);
    };
    let others = mapping.sub_architectures.iter().flatten();
    std::iter::once(&mapping.architecture)
        .chain(others)
        .map(|name| parse_arch("archMap", name))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn parse_arch(field: &str, name: &str) -> Result<SpecArch, SeccompError> {
    SpecArch::from_str(name)
        .map_err(|_| refuse(field, format!("has `{name}`, which is not an architecture")))
}

fn flags(profile: &Profile) -> Result<Option<Vec<LinuxSeccompFilterFlag>>, SeccompError> {
    let Some(flags) = &profile.flags else {
        return Ok(None);
    };
    let parse = |name: &String| {
        LinuxSeccompFilterFlag::from_str(name)
            .map_err(|_| refuse("flags", format!("has `{name}`, which is not a flag")))
    };
    flags.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

/// The rule in the runtime specification's form, or nothing if it does not hold for `host`.
fn resolve_rule(
    index: usize,
    rule: ConditionalRule,
    host: &Host,
) -> Result<Option<LinuxSyscall>, SeccompError> {
    let mut names = rule.names.unwrap_or_default();
    if let Some(name) = rule.name.filter(|name| !name.is_empty()) {
        if !names.is_empty() {
            return Err(RulePlace {
                index,
                names: &names,
            }
            .refuse("name", "cannot stand beside `names`"));
        }
        names.push(name);
    }
    let place = RulePlace {
        index,
        names: &names,
    };
    let action = LinuxSeccompAction::from_str(&rule.action).map_err(|_| {
        place.refuse(
            "action",
            format!("is `{}`, which is not an action", rule.action),
        )
    })?;
    let mut arguments = Vec::new();
    for (at, argument) in rule.args.iter().flatten().enumerate() {
        arguments.push(resolve_argument(place, at, argument)?);
    }
    let included = rule.includes.unwrap_or_default().includes(place, host)?;
    let excluded = rule.excludes.unwrap_or_default().excludes(place, host)?;
    if !included || excluded {
        return Ok(None);
    }
    let mut spec = LinuxSyscall::default();
    spec.set_action(action);
    spec.set_errno_ret(rule.errno_ret);
    spec.set_args((!arguments.is_empty()).then_some(arguments));
    spec.set_names(names);
    Ok(Some(spec))
}

fn resolve_argument(
    place: RulePlace<'_>,
    at: usize,
    argument: &Argument,
) -> Result<LinuxSeccompArg, SeccompError> {
    let op = LinuxSeccompOperator::from_str(&argument.op).map_err(|_| {
        place.refuse(
            format!("args[{at}].op"),
            format!("is `{}`, which is not an operator", argument.op),
        )
    })?;
    Ok(oci::argument(
        argument.index,
        op,
        argument.value,
        argument.value_two,
    ))
}

impl Filter {
    /// Whether every condition that is given holds: all capabilities, one of the architectures,
    /// the kernel's version.
    fn includes(&self, place: RulePlace<'_>, host: &Host) -> Result<bool, SeccompError> {
        let arches = self.arches.as_deref().unwrap_or_default();
        let right_arch = arches.is_empty() || self.names_arch(host);
        let held = self.caps_held(host).all(|held| held);
        let new_enough = self
            .kernel(place, "includes.minKernel", host)?
            .unwrap_or(true);
        Ok(right_arch && held && new_enough)
    }

    /// Whether any condition that is given holds.
    fn excludes(&self, place: RulePlace<'_>, host: &Host) -> Result<bool, SeccompError> {
        let held = self.caps_held(host).any(|held| held);
        let new_enough = self
            .kernel(place, "excludes.minKernel", host)?
            .unwrap_or(false);
        Ok(self.names_arch(host) || held || new_enough)
    }

    fn names_arch(&self, host: &Host) -> bool {
        self.arches
            .iter()
            .flatten()
            .any(|arch| arch == host.arch.profile_name())
    }

    /// For each capability whether the container holds it; nobody holds an unknown one.
    fn caps_held(&self, host: &Host) -> impl Iterator<Item = bool> {
        let mask = host.capabilities;
        self.caps
            .iter()
            .flatten()
            .map(move |name| capability::parse(name).is_ok_and(|bit| mask & bit == bit))
    }

    /// Whether the kernel is at least as new as the filter says, if it says so.
    fn kernel(
        &self,
        place: RulePlace<'_>,
        field: &str,
        host: &Host,
    ) -> Result<Option<bool>, SeccompError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let version = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .filter(|&version| version != (0, 0))
            .ok_or_else(|| {
                place.refuse(field, format!("is `{text}`, not a version such as `4.8`"))
            })?;
        Ok(Some(host.kernel >= version))
    }
}

/// The two numbers that start a kernel release such as `6.18.44-1-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

fn refuse(field: &str, problem: impl Into<String>) -> SeccompError {
    SeccompError::Profile {
        field: field.to_owned(),
        problem: problem.into(),
    }
}
