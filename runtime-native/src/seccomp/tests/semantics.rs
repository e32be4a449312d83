//! Single facts about what a filter answers, its flags and its refusals.

use oci_spec::runtime::{
    LinuxSeccompAction as Act, LinuxSeccompFilterFlag, LinuxSeccompOperator as Op, LinuxSyscall,
};

use super::super::{Arch, compile, default_profile};
use super::interpreter::{check, decode};
use super::{
    ALLOW, ENOSYS, EPERM, KILL, argument, ask, ask_number, call_number, masked, profile, rule,
};
use crate::capability;

#[test]
fn default_profile_refuses_what_a_container_must_not_do() {
    let program = default_profile(capability::DEFAULT, Arch::X86_64);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for name in [
            "bpf",
            "keyctl",
            "userfaultfd",
            "io_uring_setup",
            "mount",
            "kexec_load",
        ] {
            assert_eq!(ask(&program, arch, name, [0; 6]), EPERM, "{name}");
        }
        assert_eq!(
            ask(&program, arch, "unshare", [0x1000_0000, 0, 0, 0, 0, 0]),
            EPERM
        );
        assert_eq!(
            ask(&program, arch, "clone", [0x1000_0011, 0, 0, 0, 0, 0]),
            EPERM
        );
        assert_eq!(ask(&program, arch, "clone", [0x11, 0, 0, 0, 0, 0]), ALLOW);
        for (family, answer) in [
            (1, ALLOW),
            (2, ALLOW),
            (38, EPERM),
            (39, ALLOW),
            (40, EPERM),
            (41, ALLOW),
        ] {
            assert_eq!(
                ask(&program, arch, "socket", [family, 1, 0, 0, 0, 0]),
                answer,
                "{family}"
            );
        }
        for (persona, answer) in [
            (0, ALLOW),
            (8, ALLOW),
            (0xffff_ffff, ALLOW),
            (0x0040_0000, EPERM),
        ] {
            assert_eq!(
                ask(&program, arch, "personality", [persona, 0, 0, 0, 0, 0]),
                answer
            );
        }
        for name in ["faccessat2", "openat2", "execve", "ptrace", "chroot"] {
            assert_eq!(ask(&program, arch, name, [0; 6]), ALLOW, "{name}");
        }
    }
}

// opencontainers/runc#2151, moby/moby#42680: EPERM keeps a C library from falling back.
#[test]
fn default_profile_newer_calls_get_enosys() {
    let program = default_profile(capability::DEFAULT, Arch::X86_64);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        assert_eq!(ask(&program, arch, "clone3", [0; 6]), ENOSYS);
        assert_eq!(
            ask_number(&program, arch.audit(), 9999 | arch.base()),
            ENOSYS
        );
    }
    // Not on x32, whose numbers from 512 up are old.
    for arch in [Arch::X86_64, Arch::X86] {
        assert_eq!(ask(&program, arch, "file_getattr", [0; 6]), ENOSYS);
    }
    let privileged = default_profile(capability::ALL, Arch::X86_64);
    assert_eq!(ask(&privileged, Arch::X86_64, "clone3", [0; 6]), ALLOW);
    assert_eq!(
        ask(&privileged, Arch::X86_64, "unshare", [0x1000_0000; 6]),
        ALLOW
    );
}

#[test]
fn default_profile_fits_in_500_instructions() {
    for capabilities in [0, capability::DEFAULT, capability::ALL] {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = default_profile(capabilities, arch);
            check(&program);
            let length = decode(&program).len();
            assert!(length < 500, "{length} instructions");
        }
    }
}

#[test]
fn filter_unknown_architecture_is_killed() {
    let program = default_profile(capability::DEFAULT, Arch::X86_64);
    assert_eq!(ask_number(&program, Arch::Aarch64.audit(), 0), KILL);
    assert_eq!(ask_number(&program, 0, 0), KILL);
}

#[test]
fn filter_x32_call_without_x32_is_killed_but_a_cancelled_call_is_not() {
    let mut only = profile(
        Act::ScmpActErrno,
        vec![rule(&["read"], Act::ScmpActAllow, &[])],
    );
    only.set_architectures(None);
    let program = compile(&only, Arch::X86_64).unwrap().program;
    let audit = Arch::X86_64.audit();
    assert_eq!(ask_number(&program, audit, 0), ALLOW);
    assert_eq!(ask_number(&program, audit, 0x4000_0000), KILL);
    assert_eq!(ask_number(&program, audit, u32::MAX), EPERM);
}

#[test]
fn filter_without_rules_is_the_default_action() {
    let profile = profile(Act::ScmpActAllow, vec![]);
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    check(&program);
    assert_eq!(ask_number(&program, Arch::X86.audit(), 77), ALLOW);
    assert_eq!(ask_number(&program, 1, 77), KILL);
}

#[test]
fn actions_have_the_kernels_values_and_data() {
    let coded = |action, errno| {
        let mut rule = rule(&["read"], action, &[]);
        rule.set_errno_ret(errno);
        rule
    };
    for (rule, expected) in [
        (coded(Act::ScmpActKill, None), 0),
        (coded(Act::ScmpActKillThread, None), 0),
        (coded(Act::ScmpActKillProcess, None), 0x8000_0000),
        (coded(Act::ScmpActTrap, None), 0x0003_0000),
        (coded(Act::ScmpActErrno, None), 0x0005_0001),
        (coded(Act::ScmpActErrno, Some(38)), 0x0005_0026),
        (coded(Act::ScmpActErrno, Some(0)), 0x0005_0000),
        (coded(Act::ScmpActTrace, None), 0x7ff0_0001),
        (coded(Act::ScmpActTrace, Some(0xffff)), 0x7ff0_ffff),
        (coded(Act::ScmpActLog, None), 0x7ffc_0000),
        (coded(Act::ScmpActNotify, None), 0x7fc0_0000),
    ] {
        let profile = profile(Act::ScmpActAllow, vec![rule]);
        let program = compile(&profile, Arch::X86_64).unwrap().program;
        assert_eq!(ask(&program, Arch::X86_64, "read", [0; 6]), expected);
    }
}

// youki-dev/youki#2022: a specification library dropped the field.
#[test]
fn default_errno_is_obeyed_and_enosys_is_not_doubled() {
    let mut profile = profile(
        Act::ScmpActErrno,
        vec![rule(&["read"], Act::ScmpActAllow, &[])],
    );
    profile.set_default_errno_ret(Some(38));
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    assert_eq!(ask(&program, Arch::X86_64, "write", [0; 6]), ENOSYS);
    profile.set_default_errno_ret(Some(13));
    let json = serde_json::to_vec(&profile).unwrap();
    let profile = serde_json::from_slice(&json).unwrap();
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    assert_eq!(ask_number(&program, Arch::X86.audit(), 1), 0x0005_000d);
}

#[test]
fn rules_overlap_the_first_without_arguments_wins_then_the_first_match() {
    let equal = |value| [argument(0, Op::ScmpCmpEq, value)];
    let profile = profile(
        Act::ScmpActErrno,
        vec![
            rule(&["read", "write"], Act::ScmpActTrap, &equal(1)),
            rule(
                &["write"],
                Act::ScmpActLog,
                &[argument(0, Op::ScmpCmpLt, 5)],
            ),
            rule(&["read"], Act::ScmpActAllow, &[]),
            rule(&["read"], Act::ScmpActLog, &[]),
        ],
    );
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    assert_eq!(ask(&program, Arch::X86_64, "read", [1; 6]), ALLOW);
    assert_eq!(ask(&program, Arch::X86_64, "write", [1; 6]), 0x0003_0000);
    assert_eq!(ask(&program, Arch::X86_64, "write", [2; 6]), 0x7ffc_0000);
    assert_eq!(ask(&program, Arch::X86_64, "write", [6; 6]), EPERM);
}

#[test]
fn wide_value_on_a_32_bit_architecture_never_matches() {
    let wide = 0x1_0000_0001;
    let profile = profile(
        Act::ScmpActErrno,
        vec![
            rule(
                &["read"],
                Act::ScmpActAllow,
                &[argument(0, Op::ScmpCmpEq, wide)],
            ),
            rule(
                &["write"],
                Act::ScmpActAllow,
                &[argument(0, Op::ScmpCmpLt, wide)],
            ),
        ],
    );
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    assert_eq!(ask(&program, Arch::X86, "read", [1; 6]), EPERM);
    assert_eq!(ask(&program, Arch::X86, "write", [9; 6]), ALLOW);
    assert_eq!(ask(&program, Arch::X86_64, "read", [wide; 6]), ALLOW);
    assert_eq!(ask(&program, Arch::X86_64, "read", [1; 6]), EPERM);
}

#[test]
fn i386_multiplexed_calls_follow_their_names() {
    let profile = profile(
        Act::ScmpActErrno,
        vec![rule(
            &["accept", "shmget", "connect"],
            Act::ScmpActAllow,
            &[],
        )],
    );
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    for (name, first, answer) in [
        ("socketcall", 5, ALLOW),
        ("socketcall", 3, ALLOW),
        ("socketcall", 1, EPERM),
        ("ipc", 23, ALLOW),
        ("ipc", 21, EPERM),
    ] {
        assert_eq!(
            ask(&program, Arch::X86, name, [first, 9, 9, 9, 9, 9]),
            answer,
            "{name} {first}"
        );
    }
    assert_eq!(ask(&program, Arch::X86, "connect", [0; 6]), ALLOW);
}

#[test]
fn flags_default_to_spec_allow_and_notify_adds_the_listener() {
    let mut plain = profile(Act::ScmpActAllow, vec![]);
    assert_eq!(compile(&plain, Arch::X86_64).unwrap().flags, 4);
    plain.set_flags(Some(vec![]));
    assert_eq!(compile(&plain, Arch::X86_64).unwrap().flags, 0);
    plain.set_flags(Some(vec![
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
    ]));
    plain.set_syscalls(Some(vec![rule(&["mount"], Act::ScmpActNotify, &[])]));
    assert_eq!(compile(&plain, Arch::X86_64).unwrap().flags, 2 | 8 | 32);
}

#[test]
fn filter_with_far_targets_reaches_them() {
    // Every second call alone, each with three arguments: far more than 255 instructions.
    let three = [
        argument(0, Op::ScmpCmpGt, 0x1_0000_0000),
        masked(1, 0xff00_0000_00ff, 5),
        argument(2, Op::ScmpCmpNe, 7),
    ];
    let names: Vec<_> = (0..300)
        .step_by(2)
        .filter_map(|number| {
            let calls = &super::super::calls::CALLS;
            calls
                .iter()
                .find(|call| call.number(Arch::X86_64) == Some(number))
                .map(|call| call.name)
        })
        .collect();
    let profile = profile(
        Act::ScmpActErrno,
        vec![rule(&names, Act::ScmpActAllow, &three)],
    );
    let mut profile = profile;
    profile.set_architectures(None);
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    check(&program);
    assert!(
        decode(&program).iter().any(|&(code, ..)| code == 0x05),
        "a trampoline is needed"
    );
    let good = [0x1_0000_0001, 5, 8, 0, 0, 0];
    for number in 0..300 {
        let is_named = names
            .iter()
            .any(|name| call_number(name, Arch::X86_64) == Some(number));
        let call = |arguments| super::Call {
            number,
            arch: Arch::X86_64.audit(),
            arguments,
        };
        let largest = names
            .iter()
            .filter_map(|name| call_number(name, Arch::X86_64))
            .max();
        let other = if Some(number) > largest {
            ENOSYS
        } else {
            EPERM
        };
        assert_eq!(
            super::run(&program, &call(good)),
            if is_named { ALLOW } else { other }
        );
        assert_eq!(super::run(&program, &call([1 << 32, 5, 8, 0, 0, 0])), other);
        assert_eq!(super::run(&program, &call([1 << 33, 5, 7, 0, 0, 0])), other);
    }
}

#[test]
fn filter_over_the_kernels_limit_is_refused_with_the_limit() {
    let rules: Vec<LinuxSyscall> = (0..2000)
        .map(|value| {
            rule(
                &["ioctl"],
                Act::ScmpActAllow,
                &[argument(1, Op::ScmpCmpEq, value)],
            )
        })
        .collect();
    let error = compile(&profile(Act::ScmpActErrno, rules), Arch::X86_64)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("more than the kernel's limit of 4096"),
        "{error}"
    );
}

#[test]
fn compile_product_of_names_and_arguments_is_bounded() {
    let names = vec!["read"; 1000];
    let arguments: Vec<_> = (0..100)
        .map(|value| argument(0, Op::ScmpCmpEq, value))
        .collect();
    let profile = profile(
        Act::ScmpActErrno,
        vec![rule(&names, Act::ScmpActAllow, &arguments)],
    );
    let error = compile(&profile, Arch::X86_64).unwrap_err().to_string();
    assert!(
        error.contains("`syscalls` comes to 100000 rules"),
        "{error}"
    );
}

#[test]
fn compile_senseless_field_is_refused_by_rule_and_field() {
    let mut coded = rule(&["read", "write"], Act::ScmpActErrno, &[]);
    coded.set_errno_ret(Some(5000));
    let allow = rule(&["read"], Act::ScmpActAllow, &[]);
    for (rule, message) in [
        (
            coded,
            "seccomp rule `syscalls[1]` (`read` and 1 more): `errnoRet` is 5000, more than 4095",
        ),
        (
            rule(
                &["read"],
                Act::ScmpActAllow,
                &[argument(6, Op::ScmpCmpEq, 0)],
            ),
            "seccomp rule `syscalls[1]` (`read`): `args[0].index` is 6, but calls have the \
             arguments 0 to 5",
        ),
        (
            rule(&["write"], Act::ScmpActNotify, &[]),
            "seccomp rule `syscalls[1]` (`write`): `action` cannot be `SCMP_ACT_NOTIFY` for `write`",
        ),
        (
            rule(&[""], Act::ScmpActAllow, &[]),
            "seccomp rule `syscalls[1]` (``): `names[0]` is empty",
        ),
    ] {
        let profile = profile(Act::ScmpActErrno, vec![allow.clone(), rule]);
        assert_eq!(
            compile(&profile, Arch::X86_64).unwrap_err().to_string(),
            message
        );
    }
    let notify = profile(Act::ScmpActNotify, vec![]);
    let error = compile(&notify, Arch::X86_64).unwrap_err().to_string();
    assert!(
        error.starts_with("seccomp profile: `defaultAction` cannot be"),
        "{error}"
    );
}
