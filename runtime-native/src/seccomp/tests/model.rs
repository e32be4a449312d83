//! What a profile means, said a second time and as plainly as possible.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::super::{Arch, call_number};
use super::ARCHES;
use super::interpreter::Call;

/// A profile's meaning.
pub(super) struct Model<'a> {
    profile: &'a LinuxSeccomp,
    /// The rules that say more than the default, by architecture and number.
    rules: HashMap<(Arch, u32), Vec<&'a LinuxSyscall>>,
    /// The largest number that a rule names on each architecture, Arm's private calls aside.
    largest: HashMap<Arch, u32>,
}

impl<'a> Model<'a> {
    pub(super) fn new(profile: &'a LinuxSeccomp) -> Self {
        let mut model = Self {
            profile,
            rules: HashMap::new(),
            largest: HashMap::new(),
        };
        for rule in profile.syscalls().iter().flatten() {
            for (arch, number) in ARCHES.iter().flat_map(|&arch| {
                rule.names()
                    .iter()
                    .filter_map(move |name| Some((arch, call_number(name, arch)?)))
            }) {
                if arch != Arch::Arm || number < 0xf0000 {
                    let largest = model.largest.entry(arch).or_default();
                    *largest = number.max(*largest);
                }
                if rule.action().as_u32(rule.errno_ret()) != model.default() {
                    model.rules.entry((arch, number)).or_default().push(rule);
                }
            }
        }
        model
    }

    /// What the default action returns.
    pub(super) fn default(&self) -> u32 {
        self.profile
            .default_action()
            .as_u32(self.profile.default_errno_ret())
    }

    /// Whether the number is newer than all that the profile names (and the profile cares).
    pub(super) fn is_newer(&self, arch: Arch, number: u32) -> bool {
        let cares = !matches!(
            self.profile.default_action(),
            LinuxSeccompAction::ScmpActAllow
                | LinuxSeccompAction::ScmpActLog
                | LinuxSeccompAction::ScmpActTrace
        ) && self.profile.default_errno_ret() != Some(38);
        let private = arch == Arch::Arm && number >= 0xf0000;
        cares
            && !private
            && self
                .largest
                .get(&arch)
                .is_some_and(|&largest| number > largest)
    }

    /// What the profile says to a call on `arch`; not for i386's `socketcall` and `ipc`.
    pub(super) fn answer(&self, arch: Arch, call: &Call) -> u32 {
        if self.is_newer(arch, call.number) {
            return super::ENOSYS;
        }
        let rules = self
            .rules
            .get(&(arch, call.number))
            .map_or(&[][..], Vec::as_slice);
        let arguments = |rule: &&&'a LinuxSyscall| rule.args().as_deref().unwrap_or(&[]);
        let unconditional = rules.iter().find(|rule| arguments(rule).is_empty());
        let matching = || rules.iter().find(|rule| holds(arguments(rule), arch, call));
        unconditional
            .or_else(matching)
            .map_or(self.default(), |rule| {
                rule.action().as_u32(rule.errno_ret())
            })
    }
}

fn holds(arguments: &[LinuxSeccompArg], arch: Arch, call: &Call) -> bool {
    let mut indexes: Vec<_> = arguments.iter().map(LinuxSeccompArg::index).collect();
    indexes.sort_unstable();
    let repeated = indexes.windows(2).any(|pair| pair[0] == pair[1]);
    let mut each = arguments.iter().map(|argument| test(argument, arch, call));
    if repeated {
        each.any(|holds| holds)
    } else {
        each.all(|holds| holds)
    }
}

fn test(argument: &LinuxSeccompArg, arch: Arch, call: &Call) -> bool {
    let mut actual = call.arguments[argument.index()];
    if !matches!(arch, Arch::X86_64 | Arch::Aarch64) {
        actual &= 0xffff_ffff;
    }
    let value = argument.value();
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => actual != value,
        LinuxSeccompOperator::ScmpCmpLt => actual < value,
        LinuxSeccompOperator::ScmpCmpLe => actual <= value,
        LinuxSeccompOperator::ScmpCmpEq => actual == value,
        LinuxSeccompOperator::ScmpCmpGe => actual >= value,
        LinuxSeccompOperator::ScmpCmpGt => actual > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            actual & value == argument.value_two().unwrap_or(0) & value
        }
    }
}
