//! Which devices may be made, read and written: the files of v1, a program on v2
//! (runtime-spec v1.2 `config-linux.md#device-whitelist`).
//!
//! A list that is not empty is an allow-list: nothing but what it names, the last rule that matches
//! wins, and the devices that every container has stay, unless a rule names them.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::device_filter;
use crate::cgroup::limits::{Limits, missing};
use crate::plan::PlanError;

const LIST: &str = "linux.resources.devices (--device-cgroup-rule)";

/// The kinds of device, numbered as in `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Char = 2,
}

/// What may be done, as bits of `linux/bpf.h`.
pub(super) mod access {
    pub(crate) const MKNOD: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const WRITE: u8 = 4;
    pub(crate) const ALL: u8 = MKNOD | READ | WRITE;
}

/// One rule; what is not given matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

impl Rule {
    /// It matches every device and every access.
    pub(super) fn is_everything(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == access::ALL
    }
}

const NOTHING: Rule = Rule {
    allow: false,
    kind: None,
    major: None,
    minor: None,
    access: access::ALL,
};

/// null, zero, full, random, urandom, tty, console, ptmx, and every pts
/// (runtime-spec v1.2 `config-linux.md#default-devices`).
const DEFAULT: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// What a device list comes to, as systemd can say it (systemd.resource-control(5), `DeviceAllow=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeviceAccess {
    /// Everything is allowed.
    Unrestricted,
    /// These devices and no others: a path or a class each, and the letters of what may be done.
    Listed(Vec<(String, String)>),
    /// Something that it has no words for.
    Other,
}

/// What the resources say about devices.
pub(crate) fn device_access(resources: &LinuxResources) -> Result<DeviceAccess, PlanError> {
    let rules = rules(resources)?;
    if rules
        .last()
        .is_none_or(|rule| rule.allow && rule.is_everything())
    {
        return Ok(DeviceAccess::Unrestricted);
    }
    let Some((&NOTHING, allowed)) = rules.split_first() else {
        return Ok(DeviceAccess::Other);
    };
    let entries: Option<Vec<_>> = allowed.iter().map(systemd_entries).collect();
    Ok(entries.map_or(DeviceAccess::Other, |entries| {
        DeviceAccess::Listed(entries.concat())
    }))
}

/// The words for one rule. A path of numbers need not exist.
fn systemd_entries(rule: &Rule) -> Option<Vec<(String, String)>> {
    if !rule.allow {
        return None;
    }
    let kinds: &[&str] = match rule.kind {
        None => &["block", "char"],
        Some(Kind::Block) => &["block"],
        Some(Kind::Char) => &["char"],
    };
    let entry = |kind: &&str| {
        let name = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => format!("{kind}-{major}"),
            (None, None) => format!("{kind}-*"),
            (None, Some(_)) => return None,
        };
        Some((name, letters(rule.access)))
    };
    kinds.iter().map(entry).collect()
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let rules = rules(resources)?;
    if rules.is_empty() {
        return Ok(());
    }
    if !out.has_controller("devices") {
        if out.has_unified() {
            return filter(&rules, out);
        }
        return Err(missing("devices", LIST));
    }
    for rule in rules {
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        for line in legacy_lines(&rule) {
            out.set(file, line, LIST)?;
        }
    }
    Ok(())
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let rules = rules(resources)?;
    if rules.is_empty() {
        return Ok(());
    }
    filter(&rules, out)
}

fn filter(rules: &[Rule], out: &mut Limits<'_>) -> Result<(), PlanError> {
    // Without a filter everything is allowed.
    if !rules
        .last()
        .is_some_and(|rule| rule.allow && rule.is_everything())
    {
        out.set_device_filter(device_filter::encode(&device_filter::compile(rules)));
    }
    Ok(())
}

/// What may be done, as v1 and systemd write it.
fn letters(bits: u8) -> String {
    [
        (access::READ, 'r'),
        (access::WRITE, 'w'),
        (access::MKNOD, 'm'),
    ]
    .into_iter()
    .filter_map(|(bit, letter)| (bits & bit != 0).then_some(letter))
    .collect()
}

/// v1 knows `a` for everything only.
fn legacy_lines(rule: &Rule) -> Vec<String> {
    if rule.is_everything() {
        return vec!["a".to_owned()];
    }
    let number = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |v| v.to_string());
    let (major, minor) = (number(rule.major), number(rule.minor));
    let access = letters(rule.access);
    let kinds: &[&str] = match rule.kind {
        None => &["b", "c"],
        Some(Kind::Block) => &["b"],
        Some(Kind::Char) => &["c"],
    };
    kinds
        .iter()
        .map(|kind| format!("{kind} {major}:{minor} {access}"))
        .collect()
}

/// The whole list in order, beginning with "nothing"; empty when the specification has none.
fn rules(resources: &LinuxResources) -> Result<Vec<Rule>, PlanError> {
    let specified = resources.devices().as_deref().unwrap_or_default();
    let mut rules = Vec::with_capacity(specified.len() + DEFAULT.len() + 3);
    for rule in specified {
        let rule = parse(rule)?;
        if rules.is_empty() && !rule.is_everything() {
            deny_all_but_default(&mut rules);
        }
        if rule.is_everything() {
            // Nothing before it counts.
            rules.clear();
            if rule.allow {
                rules.push(rule);
            } else {
                deny_all_but_default(&mut rules);
            }
        } else if !repeats(&rules, rule) {
            rules.push(rule);
        }
    }
    let own = rules.len().min(1 + HARMLESS + DEFAULT.len());
    if rules.first() == Some(&NOTHING) && rules.iter().skip(own).all(|rule| rule.allow) {
        // What nothing is denied after may come last: v1 lists the rules in the order it got them.
        rules.get_mut(1..).unwrap_or_default().rotate_left(own - 1);
    }
    Ok(rules)
}

/// Whether a rule allows what is allowed already: each costs a write on v1.
fn repeats(rules: &[Rule], rule: Rule) -> bool {
    let mut since_denied = rules.iter().rev().take_while(|rule| rule.allow);
    rule.allow && since_denied.any(|earlier| *earlier == rule)
}

/// Rules that allow nodes to be made.
const HARMLESS: usize = 2;

fn deny_all_but_default(rules: &mut Vec<Rule>) {
    let allow = |kind, major, minor, access| Rule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access,
    };
    rules.push(NOTHING);
    // A node that cannot be opened is harmless.
    rules.push(allow(Kind::Char, None, None, access::MKNOD));
    rules.push(allow(Kind::Block, None, None, access::MKNOD));
    let default = DEFAULT.into_iter();
    rules.extend(default.map(|(major, minor)| allow(Kind::Char, Some(major), minor, access::ALL)));
}

fn parse(rule: &LinuxDeviceCgroup) -> Result<Rule, PlanError> {
    let unknown = |value: String| PlanError::Unknown {
        field: "linux.resources.devices",
        value,
    };
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        Some(LinuxDeviceType::P) => return Err(unknown("p".to_owned())),
    };
    // -1 is a wildcard to every runtime.
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .ok()
            .filter(|&number| number <= 0xf_ffff)
            .map(Some)
            .ok_or_else(|| unknown(value.to_string())),
    };
    let mut bits = 0;
    let letters = rule.access().as_deref().filter(|text| !text.is_empty());
    for letter in letters.unwrap_or("rwm").chars() {
        bits |= match letter {
            'r' => access::READ,
            'w' => access::WRITE,
            'm' => access::MKNOD,
            other => return Err(unknown(other.to_string())),
        };
    }
    Ok(Rule {
        allow: rule.allow(),
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        access: bits,
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxDeviceCgroupBuilder, LinuxResourcesBuilder};

    use super::*;

    fn list(rules: Vec<LinuxDeviceCgroup>) -> Vec<Rule> {
        let resources = LinuxResourcesBuilder::default().devices(rules);
        super::rules(&resources.build().unwrap()).unwrap()
    }

    fn char_rule(allow: bool, access: &str) -> LinuxDeviceCgroup {
        let rule = LinuxDeviceCgroupBuilder::default().allow(allow);
        let rule = rule.typ(LinuxDeviceType::C).major(10).minor(200);
        rule.access(access).build().unwrap()
    }

    fn everything(allow: bool) -> LinuxDeviceCgroup {
        let rule = LinuxDeviceCgroupBuilder::default().allow(allow);
        rule.access("rwm").build().unwrap()
    }

    #[test]
    fn devices_that_are_only_allowed_come_first_and_once() {
        let rules = list(vec![
            everything(false),
            char_rule(true, "rw"),
            char_rule(true, "rw"),
        ]);
        assert_eq!(legacy_lines(&rules[1]), ["c 10:200 rw"]);
        assert_eq!(rules.len(), 1 + 1 + HARMLESS + DEFAULT.len());
        let denied = list(vec![everything(false), char_rule(false, "w")]);
        assert_eq!(denied.last().map(|rule| rule.allow), Some(false));
        assert_eq!(legacy_lines(&denied[1]), ["c *:* m"]);
    }

    #[test]
    fn list_that_begins_with_a_device_still_denies_the_rest() {
        let rules = list(vec![char_rule(true, "rw")]);
        assert_eq!(rules.first(), Some(&NOTHING));
        assert_eq!(legacy_lines(&rules[1]), ["c 10:200 rw"]);
    }

    #[test]
    fn denying_everything_leaves_the_default_devices() {
        let rules = list(vec![everything(false)]);
        let lines: Vec<String> = rules.iter().flat_map(legacy_lines).collect();
        assert_eq!(lines.first().unwrap(), "a");
        assert!(lines.contains(&"c 1:3 rwm".to_owned()) && lines.contains(&"b *:* m".to_owned()));
    }

    #[test]
    fn allowing_everything_is_one_rule() {
        let rules = list(vec![char_rule(false, "r"), everything(true)]);
        assert_eq!(rules.len(), 1);
        assert!(list(Vec::new()).is_empty());
    }

    #[test]
    fn rule_that_is_no_device_is_refused() {
        let bad = LinuxDeviceCgroupBuilder::default().typ(LinuxDeviceType::P);
        assert!(parse(&bad.build().unwrap()).is_err());
        assert!(parse(&char_rule(true, "rx")).is_err());
        let bad = LinuxDeviceCgroupBuilder::default().major(-2_i64);
        assert!(parse(&bad.build().unwrap()).is_err());
    }
}
