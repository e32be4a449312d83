//! What a profile means, said a second time and as plainly as possible.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::super::{Arch, call_number};
use super::interpreter::Call;

/// The largest number that a rule names on `arch`, Arm's private calls aside.
pub(super) fn largest(profile: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    let names = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(LinuxSyscall::names);
    let numbers = names.filter_map(|name| call_number(name, arch));
    numbers
        .filter(|&number| arch != Arch::Arm || number < 0xf0000)
        .max()
}

/// Whether the number is newer than all that the profile names (and the profile cares).
pub(super) fn is_newer(profile: &LinuxSeccomp, arch: Arch, number: u32) -> bool {
    let cares = !matches!(
        profile.default_action(),
        LinuxSeccompAction::ScmpActAllow
            | LinuxSeccompAction::ScmpActLog
            | LinuxSeccompAction::ScmpActTrace
    ) && profile.default_errno_ret() != Some(38);
    let private = arch == Arch::Arm && number >= 0xf0000;
    cares && !private && largest(profile, arch).is_some_and(|largest| number > largest)
}

/// What the profile says to a call on `arch`; not for i386's `socketcall` and `ipc`.
pub(super) fn answer(profile: &LinuxSeccomp, arch: Arch, call: &Call) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    if is_newer(profile, arch, call.number) {
        return super::ENOSYS;
    }
    let rules: Vec<_> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| {
            rule.names()
                .iter()
                .any(|n| call_number(n, arch) == Some(call.number))
        })
        .filter(|rule| rule.action().as_u32(rule.errno_ret()) != default)
        .collect();
    let unconditional = rules
        .iter()
        .find(|rule| rule.args().as_deref().unwrap_or(&[]).is_empty());
    let matching = || {
        rules
            .iter()
            .find(|rule| holds(rule.args().as_deref().unwrap_or(&[]), arch, call))
    };
    unconditional
        .or_else(matching)
        .map_or(default, |rule| rule.action().as_u32(rule.errno_ret()))
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
