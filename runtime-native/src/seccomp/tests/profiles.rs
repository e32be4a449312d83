//! Profiles in Docker's format.

use oci_spec::runtime::{Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction};

use super::super::{Arch, Host, SeccompError, compile, from_json};
use super::{ALLOW, EPERM, ask};
use crate::capability;

const HOST: Host = Host {
    capabilities: capability::DEFAULT,
    arch: Arch::X86_64,
    kernel: (6, 18),
};

fn read(json: &str, host: &Host) -> Result<LinuxSeccomp, SeccompError> {
    from_json(json.as_bytes(), host)
}

/// The calls that a profile of one conditional rule names on `host`.
fn is_kept(condition: &str, host: &Host) -> bool {
    let json = format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO",
            "syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",{condition}}}]}}"#
    );
    let rules = read(&json, host)
        .expect("a profile")
        .syscalls()
        .clone()
        .expect("rules");
    !rules.is_empty()
}

#[test]
fn from_json_conditional_rules_are_resolved_for_the_host() {
    for (condition, kept) in [
        (r#""includes":{}"#, true),
        (r#""includes":{"caps":["CAP_SYS_CHROOT"]}"#, true),
        (
            r#""includes":{"caps":["CAP_SYS_CHROOT","CAP_SYS_ADMIN"]}"#,
            false,
        ),
        (r#""includes":{"caps":["CAP_FROM_THE_FUTURE"]}"#, false),
        (r#""includes":{"arches":["amd64","x32"]}"#, true),
        (r#""includes":{"arches":["arm64"]}"#, false),
        (r#""includes":{"minKernel":"4.8"}"#, true),
        (r#""includes":{"minKernel":"6.18"}"#, true),
        (r#""includes":{"minKernel":"6.19"}"#, false),
        (r#""includes":{"minKernel":"7.0"}"#, false),
        (r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#, true),
        (r#""excludes":{"caps":["CAP_SYS_ADMIN","CAP_KILL"]}"#, false),
        (r#""excludes":{"arches":["s390","s390x"]}"#, true),
        (r#""excludes":{"arches":["amd64"]}"#, false),
        (r#""excludes":{"minKernel":"4.8"}"#, false),
        (
            r#""includes":{"caps":["CAP_KILL"]},"excludes":{"caps":["CAP_CHOWN"]}"#,
            false,
        ),
    ] {
        assert_eq!(is_kept(condition, &HOST), kept, "{condition}");
    }
}

#[test]
fn from_json_arch_map_gives_this_machines_entry() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[
        {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
        {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
        {"architecture":"SCMP_ARCH_FROM_THE_FUTURE","subArchitectures":null}],"syscalls":[]}"#;
    let profile = read(json, &HOST).unwrap();
    assert_eq!(
        profile.architectures().as_deref(),
        Some(&super::X86_FAMILY[..])
    );
    assert_eq!(profile.default_errno_ret(), Some(1));
    let profile = read(
        json,
        &Host {
            arch: Arch::Aarch64,
            ..HOST
        },
    )
    .unwrap();
    let expected = [SpecArch::ScmpArchAarch64, SpecArch::ScmpArchArm];
    assert_eq!(profile.architectures().as_deref(), Some(&expected[..]));
}

#[test]
fn from_json_profile_compiles_with_arguments_and_old_names() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO",
        "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_MIPS64"],"syscalls":[
        {"name":"read","action":"SCMP_ACT_ALLOW","args":null},
        {"names":["personality"],"action":"SCMP_ACT_ALLOW","comment":"only ask",
         "args":[{"index":0,"value":4294967295,"valueTwo":0,"op":"SCMP_CMP_EQ"}]}]}"#;
    let profile = read(json, &HOST).unwrap();
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
    let program = compile(&profile, Arch::X86_64).unwrap().program;
    assert_eq!(ask(&program, Arch::X86_64, "read", [0; 6]), ALLOW);
    assert_eq!(
        ask(&program, Arch::X86_64, "personality", [0xffff_ffff; 6]),
        ALLOW
    );
    assert_eq!(ask(&program, Arch::X86_64, "personality", [0; 6]), EPERM);
}

#[test]
fn from_json_senseless_profile_is_refused_by_rule_and_field() {
    let rule = |fields: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],{fields}}}]}}"#
        )
    };
    let place = "seccomp rule `syscalls[0]` (`read`): ";
    for (json, message) in [
        (
            "{}".to_owned(),
            "seccomp profile: `defaultAction` is missing".to_owned(),
        ),
        (
            r#"{"defaultAction":"ALLOW"}"#.to_owned(),
            "seccomp profile: `defaultAction` is `ALLOW`, which is not an action".to_owned(),
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#
                .to_owned(),
            "seccomp profile: `archMap` cannot stand beside `architectures`".to_owned(),
        ),
        (
            rule(r#""action":"SCMP_ACT_NO""#),
            format!("{place}`action` is `SCMP_ACT_NO`, which is not an action"),
        ),
        (
            rule(r#""action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"EQ"}]"#),
            format!("{place}`args[0].op` is `EQ`, which is not an operator"),
        ),
        (
            rule(r#""action":"SCMP_ACT_ALLOW","name":"write""#),
            format!("{place}`name` cannot stand beside `names`"),
        ),
        (
            rule(r#""action":"SCMP_ACT_ALLOW","includes":{"minKernel":"four"}"#),
            format!("{place}`includes.minKernel` is `four`, not a version such as `4.8`"),
        ),
        (
            "[".to_owned(),
            "cannot parse the seccomp profile".to_owned(),
        ),
    ] {
        assert_eq!(read(&json, &HOST).unwrap_err().to_string(), message);
    }
}

#[test]
fn from_json_too_large_a_profile_is_refused() {
    let error = from_json(&vec![b' '; (1 << 20) + 1], &HOST).unwrap_err();
    assert!(matches!(
        error,
        SeccompError::TooLarge {
            limit: 1_048_576,
            ..
        }
    ));
}

#[test]
fn current_host_has_this_kernels_version() {
    let host = Host::current(0, Arch::X86_64);
    assert!(host.kernel >= (5, 0), "{:?}", host.kernel);
}
