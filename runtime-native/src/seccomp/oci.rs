//! The seccomp section of a runtime specification (runtime-spec v1.2 `config-linux.md#seccomp`).

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::Arch;
use super::error::RulePlace;
use super::rule::{Action, Condition, NewerCalls, Policy, Rule, Test};
use super::{SeccompError, calls, compile as compiler};

/// `SECCOMP_FILTER_FLAG_*` of `include/uapi/linux/seccomp.h`.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// `EPERM` and `ENOSYS`.
const EPERM: u16 = 1;
const ENOSYS: u32 = 38;

/// `MAX_ERRNO` of `include/linux/err.h`: the kernel would lower what is above it.
const MAX_ERRNO: u32 = 4095;

/// Far more rules than fit into a filter, and few enough to sort in a moment.
const MAX_RULES: usize = 1 << 16;

/// The flags of a profile that sets none: like runc, without the slow-down against speculation
/// that the kernel otherwise ties to a filter.
pub const DEFAULT_FLAGS: u32 = FLAG_SPEC_ALLOW;

/// A filter that is ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// An array of `struct sock_filter` in this machine's byte order.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`; `NEW_LISTENER` is among them if a rule notifies.
    pub flags: u32,
}

/// One rule, read: every list of conditions is a rule of its own for every row.
struct Parsed {
    rows: Vec<u16>,
    action: Action,
    /// Never empty; an empty list of conditions always holds.
    alternatives: Vec<Vec<Condition>>,
}

/// Compiles a runtime specification's profile for all architectures that it lists, and `native`.
///
/// Names that no architecture knows are left out, as in runc. If the default action refuses
/// calls, numbers above the largest one that the profile names get `ENOSYS`, so that a C library
/// falls back to an older call. Where rules overlap, the first one without arguments wins, then
/// the first whose arguments match. A rule that names one argument twice holds if either
/// condition does.
///
/// # Errors
///
/// A [`SeccompError`] names the rule and field that mean nothing, or the kernel's limit.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Compiled, SeccompError> {
    let default =
        action(profile.default_action(), profile.default_errno_ret()).map_err(|problem| {
            SeccompError::Profile {
                field: "defaultErrnoRet".to_owned(),
                problem,
            }
        })?;
    if default == Action::NOTIFY {
        return Err(SeccompError::Profile {
            field: "defaultAction".to_owned(),
            problem: "cannot be `SCMP_ACT_NOTIFY`: nothing could start".to_owned(),
        });
    }
    let parsed = profile
        .syscalls()
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, rule)| parse_rule(index, rule))
        .collect::<Result<Vec<_>, _>>()?;
    let notifies = parsed.iter().any(|rule| rule.action == Action::NOTIFY);
    let newer_calls = if default.permits() || profile.default_errno_ret() == Some(ENOSYS) {
        NewerCalls::Default
    } else {
        NewerCalls::NotImplemented
    };
    let arches = arches(profile, native);
    let policy = Policy {
        default,
        newer_calls,
        arches: &arches,
        rules: flatten(&parsed)?,
    };
    Ok(Compiled {
        program: compiler::compile(&policy)?,
        flags: flags(profile, notifies),
    })
}

/// One rule for each call and alternative, in the profile's order.
fn flatten(parsed: &[Parsed]) -> Result<Vec<Rule<'_>>, SeccompError> {
    let count = parsed
        .iter()
        .map(|rule| rule.rows.len() * rule.alternatives.len())
        .sum::<usize>();
    if count > MAX_RULES {
        return Err(SeccompError::Profile {
            field: "syscalls".to_owned(),
            problem: format!("comes to {count} rules for single calls, more than {MAX_RULES}"),
        });
    }
    let mut rules = Vec::with_capacity(count);
    for rule in parsed {
        for &row in &rule.rows {
            rules.extend(rule.alternatives.iter().map(|conditions| Rule {
                row,
                action: rule.action,
                conditions,
            }));
        }
    }
    Ok(rules)
}

fn parse_rule(index: usize, rule: &LinuxSyscall) -> Result<Parsed, SeccompError> {
    let place = RulePlace {
        index,
        names: rule.names(),
    };
    let action =
        action(rule.action(), rule.errno_ret()).map_err(|why| place.refuse("errnoRet", why))?;
    for (at, name) in rule.names().iter().enumerate() {
        if name.is_empty() {
            return Err(place.refuse(format!("names[{at}]"), "is empty"));
        }
        // Init hands the listener over with `write`, and nobody listens yet.
        if action == Action::NOTIFY && name == "write" {
            return Err(place.refuse("action", "cannot be `SCMP_ACT_NOTIFY` for `write`"));
        }
    }
    let conditions = rule
        .args()
        .iter()
        .flatten()
        .enumerate()
        .map(|(at, argument)| parse_argument(place, at, argument))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Parsed {
        rows: rule
            .names()
            .iter()
            .filter_map(|name| calls::find(name))
            .collect(),
        action,
        alternatives: alternatives(conditions),
    })
}

/// All conditions together, or each alone if two test the same argument (as in runc, which kept
/// it from the time before conditions could be combined).
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let repeated = conditions.iter().enumerate().any(|(at, condition)| {
        conditions[..at]
            .iter()
            .any(|earlier| earlier.argument == condition.argument)
    });
    if repeated {
        conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect()
    } else {
        vec![conditions]
    }
}

fn parse_argument(
    place: RulePlace<'_>,
    at: usize,
    argument: &LinuxSeccompArg,
) -> Result<Condition, SeccompError> {
    let index = u8::try_from(argument.index())
        .ok()
        .filter(|&index| index < 6)
        .ok_or_else(|| {
            let problem = format!(
                "is {}, but calls have the arguments 0 to 5",
                argument.index()
            );
            place.refuse(format!("args[{at}].index"), problem)
        })?;
    let value = argument.value();
    let test = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => Test::MaskedEqual {
            mask: value,
            value: argument.value_two().unwrap_or(0),
        },
    };
    Ok(Condition {
        argument: index,
        test,
    })
}

/// A condition in the runtime specification's form.
pub(super) fn argument(
    index: usize,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default()
        .index(index)
        .op(op)
        .value(value);
    let builder = match value_two {
        Some(second) => builder.value_two(second),
        None => builder,
    };
    builder.build().expect("every field has a default")
}

/// What the filter returns for an action; the error says what is wrong with `errnoRet`.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, String> {
    let value = |limit: u32| match errno {
        None => Ok(EPERM),
        Some(errno) => u16::try_from(errno)
            .ok()
            .filter(|&errno| u32::from(errno) <= limit)
            .ok_or_else(|| format!("is {errno}, more than {limit}")),
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            Action::KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => Action::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => Action::TRAP,
        LinuxSeccompAction::ScmpActErrno => Action::errno(value(MAX_ERRNO)?),
        LinuxSeccompAction::ScmpActNotify => Action::NOTIFY,
        LinuxSeccompAction::ScmpActTrace => Action::trace(value(u32::from(u16::MAX))?),
        LinuxSeccompAction::ScmpActLog => Action::LOG,
        LinuxSeccompAction::ScmpActAllow => Action::ALLOW,
    })
}

/// The native architecture, then the others that the profile lists and this program knows.
fn arches(profile: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let mut arches = vec![native];
    for &listed in profile.architectures().iter().flatten() {
        if let Some(arch) = Arch::from_spec(listed, native)
            && !arches.contains(&arch)
        {
            arches.push(arch);
        }
    }
    arches
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> u32 {
    let listed = match profile.flags() {
        None => DEFAULT_FLAGS,
        Some(flags) => flags.iter().fold(0, |mask, flag| {
            mask | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    FLAG_WAIT_KILLABLE_RECV
                }
                // Init has one thread: there is none to bring into line, and the kernel refuses
                // the flag together with a listener.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            }
        }),
    };
    listed | if notifies { FLAG_NEW_LISTENER } else { 0 }
}
