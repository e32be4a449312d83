//! Every number, every architecture, every interesting argument: ours, the model's and
//! libseccomp's answers are the same.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::super::arch::X32_BIT;
use super::super::{Arch, calls, compile, default_profile, default_spec};
use super::interpreter::{Call, check, run};
use super::model::Model;
use super::{ARCHES, argument, call_number, masked, oracle, profile, rule};
use crate::capability;

/// Arguments around every value that a profile compares with, alone in each position.
fn interesting_arguments(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let mut values = BTreeSet::from([0, 1, 0xffff_ffff, 1 << 32, u64::MAX, 1 << 63]);
    let mut used = BTreeSet::new();
    let rules = profile.syscalls().iter().flatten();
    for condition in rules.flat_map(|rule| rule.args().iter().flatten()) {
        used.insert(condition.index());
        for value in [condition.value(), condition.value_two().unwrap_or(0)] {
            for near in [value.wrapping_sub(1), value, value.wrapping_add(1), !value] {
                values.extend([near, near ^ 1 << 32]);
            }
        }
    }
    let mut all = vec![[0; 6], [u64::MAX; 6]];
    for &index in &used {
        for &value in &values {
            for others in [0, 7] {
                let mut arguments = [others; 6];
                arguments[index] = value;
                all.push(arguments);
            }
        }
    }
    all
}

/// The numbers that are asked, on each value of `seccomp_data.arch`.
fn numbers() -> Vec<u32> {
    let edges = [
        0x3fff_ffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
        9999,
    ];
    (0..600)
        .chain(X32_BIT..X32_BIT + 600)
        .chain(0xf0000..0xf0007)
        .chain(edges)
        .collect()
}

/// The architecture of a number, if the profile lists it.
fn arch_of(listed: &[Arch], audit: u32, number: u32) -> Option<Arch> {
    let x86_64 = if number >= X32_BIT {
        Arch::X32
    } else {
        Arch::X86_64
    };
    let arch = if audit == Arch::X86_64.audit() {
        x86_64
    } else {
        *ARCHES.iter().find(|arch| arch.audit() == audit)?
    };
    listed.contains(&arch).then_some(arch)
}

fn listed(profile: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let others = profile.architectures().iter().flatten();
    std::iter::once(native)
        .chain(others.filter_map(|&arch| Arch::from_spec(arch, native)))
        .collect()
}

/// Asks `expected` and the compiled program the same questions; returns how many.
fn compare(
    profile: &LinuxSeccomp,
    native: Arch,
    expected: impl Fn(Option<Arch>, &Call) -> u32,
) -> usize {
    let program = compile(profile, native).expect("it compiles").program;
    check(&program);
    let listed = listed(profile, native);
    let arguments = interesting_arguments(profile);
    let conditional: BTreeSet<_> = conditional_numbers(profile);
    let mut asked = 0;
    for arch in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x1234] {
        for number in numbers() {
            let arguments = if conditional.contains(&number) {
                &arguments[..]
            } else {
                &arguments[..2]
            };
            for &arguments in arguments {
                let call = Call {
                    number,
                    arch,
                    arguments,
                };
                let ours = run(&program, &call);
                let theirs = expected(arch_of(&listed, arch, number), &call);
                assert_eq!(ours, theirs, "{ours:#x} is not {theirs:#x} for {call:x?}");
                asked += 1;
            }
        }
    }
    asked
}

/// Numbers, of any architecture, whose answer depends on arguments.
fn conditional_numbers(profile: &LinuxSeccomp) -> BTreeSet<u32> {
    let rules = profile.syscalls().iter().flatten();
    let names = rules
        .filter(|rule| rule.args().is_some())
        .flat_map(LinuxSyscall::names);
    let carriers = ["socketcall".to_owned(), "ipc".to_owned()];
    names
        .chain(&carriers)
        .flat_map(|name| {
            ARCHES
                .iter()
                .filter_map(move |&arch| call_number(name, arch))
        })
        .collect()
}

fn compare_with_libseccomp(mut profile: LinuxSeccomp, native: Arch) -> usize {
    let answer = oracle::filter(&profile);
    check(&answer.filter);
    // Both compile what both know.
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        let names = rule
            .names()
            .iter()
            .filter(|name| !answer.unknown.contains(name));
        rule.set_names(names.cloned().collect());
    }
    profile.set_syscalls(Some(rules));
    let newer = newer_than_libseccomp();
    let model = Model::new(&profile);
    compare(&profile, native, |arch, call| match arch {
        // libseccomp leaves this to the runtime.
        Some(arch) if model.is_newer(arch, call.number) => super::ENOSYS,
        Some(arch) if newer.contains(&(arch.column(), call.number)) => model.answer(arch, call),
        _ => run(&answer.filter, call),
    })
}

/// Numbers, with their architecture, that the table has and the library has not: a call can
/// come to one architecture later than to others.
fn newer_than_libseccomp() -> BTreeSet<(usize, u32)> {
    let names: Vec<_> = calls::CALLS.iter().map(|call| call.name).collect();
    let theirs = oracle::numbers(&names);
    let mut newer = BTreeSet::new();
    for arch in ARCHES {
        for &name in &names {
            let number = &theirs[arch.to_spec().to_string()][name];
            let multiplexed = number
                .as_i64()
                .is_some_and(|number| (-224..=-101).contains(&number));
            if let Some(ours) = call_number(name, arch)
                && !multiplexed
                && number.as_i64() != Some(i64::from(ours))
            {
                newer.insert((arch.column(), ours));
            }
        }
    }
    newer
}

fn compare_with_model(profile: &LinuxSeccomp, native: Arch) -> usize {
    let model = Model::new(profile);
    compare(profile, native, |arch, call| match arch {
        Some(arch) => model.answer(arch, call),
        None if call.number == u32::MAX
            && call.arch == Arch::X86_64.audit()
            && listed(profile, native).contains(&Arch::X86_64) =>
        {
            model.default()
        }
        None => super::KILL,
    })
}

/// A profile with all operators and actions, without two rules that contradict each other: what
/// libseccomp makes of those depends on their order in its tree.
fn varied_profile(default: LinuxSeccompAction) -> LinuxSeccomp {
    use LinuxSeccompAction::{
        ScmpActAllow, ScmpActErrno, ScmpActKillProcess, ScmpActLog, ScmpActNotify, ScmpActTrace,
        ScmpActTrap,
    };
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpLe, ScmpCmpLt, ScmpCmpNe};
    let mut coded = rule(&["mkdir"], ScmpActErrno, &[]);
    coded.set_errno_ret(Some(95));
    let mut traced = rule(&["rmdir"], ScmpActTrace, &[argument(5, ScmpCmpEq, 3)]);
    traced.set_errno_ret(Some(0x1234));
    profile(
        default,
        vec![
            rule(
                &["read", "write", "close", "no_such_call"],
                ScmpActAllow,
                &[],
            ),
            rule(&["open"], ScmpActErrno, &[]),
            coded,
            traced,
            rule(&["kill"], ScmpActTrap, &[argument(0, ScmpCmpNe, 0x12345)]),
            rule(&["lseek"], ScmpActLog, &[argument(1, ScmpCmpLt, 0x1000)]),
            rule(&["mmap"], ScmpActAllow, &[argument(2, ScmpCmpLe, 7)]),
            rule(
                &["mprotect"],
                ScmpActKillProcess,
                &[argument(2, ScmpCmpGt, 3)],
            ),
            rule(&["madvise"], ScmpActAllow, &[argument(2, ScmpCmpGe, 100)]),
            rule(&["clone"], ScmpActAllow, &[masked(0, 0x7e02_0000, 0)]),
            rule(&["fcntl"], ScmpActNotify, &[masked(1, 0xf0, 0x10)]),
            rule(
                &["ioctl"],
                ScmpActAllow,
                &[argument(0, ScmpCmpEq, 1), argument(1, ScmpCmpNe, 0x5412)],
            ),
            rule(
                &["prctl"],
                ScmpActAllow,
                &[argument(0, ScmpCmpEq, 15), argument(0, ScmpCmpEq, 16)],
            ),
            rule(&["semop", "accept"], ScmpActAllow, &[]),
            rule(&["socket"], ScmpActAllow, &[argument(0, ScmpCmpEq, 1)]),
        ],
    )
}

#[test]
fn call_numbers_are_libseccomps() {
    if !oracle::is_available() {
        return;
    }
    let names: Vec<_> = calls::CALLS.iter().map(|call| call.name).collect();
    let theirs = oracle::numbers(&names);
    let mut compared = 0;
    for arch in ARCHES {
        for &name in &names {
            let number = theirs[arch.to_spec().to_string()][name]
                .as_i64()
                .expect("a number");
            // Below 0: newer than the library, or i386's calls that it splits up again.
            let Ok(number) = u32::try_from(number) else {
                continue;
            };
            assert_eq!(call_number(name, arch), Some(number), "{name} on {arch:?}");
            compared += 1;
        }
    }
    assert!(compared > 1500, "{compared} numbers were compared");
}

#[test]
fn call_table_is_sorted_without_repetition() {
    assert!(
        calls::CALLS
            .windows(2)
            .all(|pair| pair[0].name < pair[1].name)
    );
    for (row, call) in calls::CALLS.iter().enumerate() {
        assert_eq!(calls::find(call.name).map(usize::from), Some(row));
    }
}

#[test]
fn default_profile_answers_as_libseccomps_filter() {
    if !oracle::is_available() {
        return;
    }
    for capabilities in [0, capability::DEFAULT, capability::ALL] {
        let asked = compare_with_libseccomp(default_spec(capabilities, Arch::X86_64), Arch::X86_64);
        assert!(asked > 10_000, "{asked} questions");
    }
}

#[test]
fn default_profile_for_arm_answers_as_libseccomps_filter() {
    if !oracle::is_available() {
        return;
    }
    // libseccomp adds the machine's own architecture; it is asked about too.
    let mut spec = default_spec(capability::DEFAULT, Arch::Aarch64);
    spec.set_architectures(Some(vec![SpecArch::ScmpArchAarch64, SpecArch::ScmpArchArm]));
    let native = Arch::native().expect("a known machine");
    compare_with_libseccomp(spec, native);
}

#[test]
fn varied_profile_answers_as_libseccomps_filter() {
    if !oracle::is_available() {
        return;
    }
    for default in [
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActKill,
        LinuxSeccompAction::ScmpActTrap,
    ] {
        compare_with_libseccomp(varied_profile(default), Arch::X86_64);
    }
    let mut only_x86_64 = varied_profile(LinuxSeccompAction::ScmpActErrno);
    only_x86_64.set_architectures(None);
    compare_with_libseccomp(only_x86_64, Arch::X86_64);
}

#[test]
fn default_profile_answers_as_the_model() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for capabilities in [0, capability::DEFAULT, capability::ALL] {
            // i386's socketcall and ipc are allowed whole, so the model knows them too.
            compare_with_model(&default_spec(capabilities, arch), arch);
        }
    }
}

#[test]
fn default_profile_is_its_specification_compiled() {
    for arch in ARCHES {
        for capabilities in [0, capability::DEFAULT, capability::ALL] {
            let spec = default_spec(capabilities, arch);
            let compiled = compile(&spec, arch).expect("it compiles");
            assert_eq!(compiled.program, default_profile(capabilities, arch));
            assert_eq!(compiled.flags, super::super::DEFAULT_FLAGS);
        }
    }
}

/// A small generator of numbers with a long period (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("small")]
    }

    fn condition(&mut self) -> LinuxSeccompArg {
        use LinuxSeccompOperator::{
            ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpLe, ScmpCmpLt, ScmpCmpNe,
        };
        let values = [
            0,
            1,
            2,
            0xff,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 1,
            1 << 63,
            u64::MAX,
        ];
        let index = self.one_of(&[0, 0, 1, 5]);
        if self.below(4) == 0 {
            return masked(index, self.one_of(&values), self.one_of(&values));
        }
        let op = self.one_of(&[
            ScmpCmpEq, ScmpCmpNe, ScmpCmpLt, ScmpCmpLe, ScmpCmpGt, ScmpCmpGe,
        ]);
        argument(index, op, self.one_of(&values))
    }

    /// Calls that are not carried by `socketcall` or `ipc`, which the model leaves out.
    fn rule(&mut self) -> LinuxSyscall {
        use LinuxSeccompAction::{
            ScmpActAllow, ScmpActErrno, ScmpActKillProcess, ScmpActLog, ScmpActTrap,
        };
        let calls = [
            "read", "write", "getpid", "clone", "ioctl", "fork", "openat2", "set_tls",
        ];
        let conditions: Vec<_> = (0..self.below(4)).map(|_| self.condition()).collect();
        let action = self.one_of(&[
            ScmpActAllow,
            ScmpActErrno,
            ScmpActKillProcess,
            ScmpActLog,
            ScmpActTrap,
        ]);
        rule(
            &[self.one_of(&calls), self.one_of(&calls)],
            action,
            &conditions,
        )
    }
}

#[test]
fn random_profiles_answer_as_the_model() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..60 {
        let default = numbers.one_of(&[
            LinuxSeccompAction::ScmpActErrno,
            LinuxSeccompAction::ScmpActAllow,
        ]);
        let rules = (0..numbers.below(8)).map(|_| numbers.rule()).collect();
        let mut profile = profile(default, rules);
        if numbers.below(2) == 0 {
            profile.set_architectures(Some(vec![SpecArch::ScmpArchAarch64, SpecArch::ScmpArchArm]));
        }
        compare_with_model(&profile, Arch::X86_64);
    }
}
