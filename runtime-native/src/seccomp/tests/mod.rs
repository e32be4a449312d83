//! Filters are run by an interpreter of classic BPF and compared with a model of the rules and
//! with the filters that libseccomp makes.

mod differential;
mod interpreter;
mod model;
mod oracle;
mod profiles;
mod semantics;

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::rule::Action;
use super::{Arch, call_number, oci};
use interpreter::{Call, run};

const ARCHES: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

const X86_FAMILY: [SpecArch; 3] = [
    SpecArch::ScmpArchX86_64,
    SpecArch::ScmpArchX86,
    SpecArch::ScmpArchX32,
];

/// What `program` says to the call `name` with `arguments`.
fn ask(program: &[u8], arch: Arch, name: &str, arguments: [u64; 6]) -> u32 {
    let number = call_number(name, arch).expect("the call exists there");
    run(
        program,
        &Call {
            number,
            arch: arch.audit(),
            arguments,
        },
    )
}

/// What `program` says to a call by number, without arguments.
fn ask_number(program: &[u8], audit: u32, number: u32) -> u32 {
    run(
        program,
        &Call {
            number,
            arch: audit,
            arguments: [0; 6],
        },
    )
}

fn profile(default: LinuxSeccompAction, rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(default);
    profile.set_architectures(Some(X86_FAMILY.to_vec()));
    profile.set_syscalls(Some(rules));
    profile
}

fn rule(names: &[&str], action: LinuxSeccompAction, arguments: &[LinuxSeccompArg]) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|&name| name.to_owned()).collect());
    rule.set_action(action);
    rule.set_args((!arguments.is_empty()).then(|| arguments.to_vec()));
    rule
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    oci::argument(index, op, value, None)
}

fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    oci::argument(
        index,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
        mask,
        Some(value),
    )
}

const ALLOW: u32 = Action::ALLOW.0;
const EPERM: u32 = Action::errno(1).0;
const ENOSYS: u32 = Action::ENOSYS.0;
const KILL: u32 = Action::KILL_THREAD.0;
