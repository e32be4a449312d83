//! From rules to a program: ranges of call numbers, a search tree, chains of argument tests.

use super::SeccompError;
use super::arch::{Arch, X32_BIT};
use super::calls::{self, ARM_PRIVATE};
use super::program::{
    AND, Assembler, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD_WORD, Target,
};
use super::rule::{Action, Condition, NewerCalls, Policy, Rule, Test};

/// Offsets into `struct seccomp_data` (`include/uapi/linux/seccomp.h`).
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// i386's calls that carry another call's number in their first argument.
const SOCKETCALL: &str = "socketcall";
const IPC: &str = "ipc";

/// `-1`: a tracer has cancelled the call (seccomp(2)).
const CANCELLED: u32 = u32::MAX;

/// Calls with the same fate: from `start` up to the next range's start.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: u32,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Return(Action),
    /// An index into [`Section::chains`].
    Chain(usize),
}

/// The number line of one value of `seccomp_data.arch`.
#[derive(Debug, Default)]
struct Section<'a> {
    ranges: Vec<Range>,
    chains: Vec<Chain<'a>>,
}

/// The rules of one call, tried in order.
#[derive(Debug)]
struct Chain<'a> {
    arch: Arch,
    links: Vec<Link<'a>>,
}

#[derive(Debug)]
struct Link<'a> {
    action: Action,
    conditions: &'a [Condition],
    /// Stands before the conditions and in place of those on argument 0.
    multiplexed: Option<Condition>,
}

/// One rule at one number. The order is by number, then by the rules' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    number: u32,
    rule: usize,
    /// The first argument that `socketcall` or `ipc` must have.
    multiplexed: Option<u32>,
}

/// Compiles `policy` into the bytes of an array of `struct sock_filter`.
pub(super) fn compile(policy: &Policy<'_>) -> Result<Vec<u8>, SeccompError> {
    let mut program = Assembler::new();
    let mut entries = Vec::with_capacity(policy.rules.len() + 64);
    let mut audits: Vec<u32> = Vec::new();
    for arch in policy.arches {
        if !audits.contains(&arch.audit()) {
            audits.push(arch.audit());
        }
    }
    // Backwards, so that the first architecture, the native one, is tested first.
    let mut sections = Vec::with_capacity(audits.len());
    for &audit in audits.iter().rev() {
        let section = build_section(policy, audit, &mut entries);
        let tree = write_tree(&mut program, &section, &section.ranges, policy.default);
        sections.push((audit, program.prepare(LOAD_WORD, OFFSET_NUMBER, tree)));
    }
    let mut entry = Target::Return(Action::KILL_THREAD);
    for (audit, start) in sections {
        entry = program.branch(JUMP_EQUAL, audit, start, entry);
    }
    let entry = program.prepare(LOAD_WORD, OFFSET_ARCH, entry);
    program.finish(entry)
}

fn build_section<'a>(policy: &Policy<'a>, audit: u32, entries: &mut Vec<Entry>) -> Section<'a> {
    let mut section = Section::default();
    if audit == Arch::X86_64.audit() {
        if policy.arches.contains(&Arch::X86_64) {
            add_arch(&mut section, policy, Arch::X86_64, entries);
        } else {
            section.start_range(0, Fate::Return(Action::KILL_THREAD));
        }
        if policy.arches.contains(&Arch::X32) {
            add_arch(&mut section, policy, Arch::X32, entries);
        } else {
            section.start_range(X32_BIT, Fate::Return(Action::KILL_THREAD));
            section.start_range(CANCELLED, Fate::Return(policy.default));
        }
    } else {
        for &arch in policy.arches.iter().filter(|arch| arch.audit() == audit) {
            add_arch(&mut section, policy, arch, entries);
        }
    }
    section
}

/// Appends one architecture's part of the number line.
fn add_arch<'a>(
    section: &mut Section<'a>,
    policy: &Policy<'a>,
    arch: Arch,
    entries: &mut Vec<Entry>,
) {
    let default = Fate::Return(policy.default);
    let newer = match policy.newer_calls {
        NewerCalls::NotImplemented => largest_number(policy, arch).map(|largest| largest + 1),
        NewerCalls::Default => None,
    };
    collect_entries(policy, arch, entries);
    section.start_range(arch.base(), default);
    let mut newer_done = false;
    for group in entries.chunk_by(|a, b| a.number == b.number) {
        let number = group[0].number;
        if let Some(newer) = newer.filter(|&newer| newer <= number && !newer_done) {
            section.add_newer(newer, default, arch);
            newer_done = true;
        }
        let fate = section.fate(policy, arch, group);
        section.start_range(number, fate);
        section.start_range(number + 1, default);
    }
    if let Some(newer) = newer.filter(|_| !newer_done) {
        section.add_newer(newer, default, arch);
    }
}

/// The largest number that any rule names, redundant ones too. Arm's private calls, far above
/// the others, say nothing about the profile's age.
fn largest_number(policy: &Policy<'_>, arch: Arch) -> Option<u32> {
    let numbers = policy
        .rules
        .iter()
        .filter_map(|rule| calls::call(rule.row).number(arch));
    numbers
        .filter(|&number| arch != Arch::Arm || number < ARM_PRIVATE)
        .max()
}

/// Fills `entries` with the rules that say more than the default action does.
fn collect_entries(policy: &Policy<'_>, arch: Arch, entries: &mut Vec<Entry>) {
    entries.clear();
    for (index, rule) in policy.rules.iter().enumerate() {
        if rule.action == policy.default {
            continue;
        }
        let call = calls::call(rule.row);
        if let Some(number) = call.number(arch) {
            entries.push(Entry {
                number,
                rule: index,
                multiplexed: None,
            });
        }
        if arch == Arch::X86
            && let Some((number, first)) = multiplexer(call.name)
        {
            entries.push(Entry {
                number,
                rule: index,
                multiplexed: Some(first),
            });
        }
    }
    entries.sort_unstable();
}

/// The call that carries `name` on i386, and the value of its first argument (`SYS_*` of
/// `include/uapi/linux/net.h`, the operations of `include/uapi/linux/ipc.h`).
fn multiplexer(name: &str) -> Option<(u32, u32)> {
    let (carrier, first) = match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    };
    Some((calls::call(calls::find(carrier)?).number(Arch::X86)?, first))
}

impl<'a> Section<'a> {
    /// Starts a range, which replaces one of the same start and joins one of the same fate.
    fn start_range(&mut self, start: u32, fate: Fate) {
        if self.ranges.last().is_some_and(|last| last.start == start) {
            self.ranges.pop();
        }
        if self.ranges.last().is_none_or(|last| last.fate != fate) {
            self.ranges.push(Range { start, fate });
        }
    }

    /// Starts the range of calls that the profile does not know yet.
    fn add_newer(&mut self, start: u32, default: Fate, arch: Arch) {
        self.start_range(start, Fate::Return(Action::ENOSYS));
        if arch == Arch::Arm {
            self.start_range(ARM_PRIVATE, default);
        }
    }

    /// What the rules of one number come to.
    fn fate(&mut self, policy: &Policy<'a>, arch: Arch, group: &[Entry]) -> Fate {
        let rules = group
            .iter()
            .map(|entry| (&policy.rules[entry.rule], entry.multiplexed));
        let unconditional = rules
            .clone()
            .find(|(rule, multiplexed)| rule.conditions.is_empty() && multiplexed.is_none());
        if let Some((rule, _)) = unconditional {
            return Fate::Return(rule.action);
        }
        let links = rules
            .map(|(rule, multiplexed)| link(rule, multiplexed))
            .collect();
        self.chains.push(Chain { arch, links });
        Fate::Chain(self.chains.len() - 1)
    }
}

fn link<'a>(rule: &Rule<'a>, multiplexed: Option<u32>) -> Link<'a> {
    let first = |value| Condition {
        argument: 0,
        test: Test::Equal(u64::from(value)),
    };
    Link {
        action: rule.action,
        conditions: rule.conditions,
        multiplexed: multiplexed.map(first),
    }
}

/// Writes the binary search over `ranges`; the accumulator holds the number when it runs.
fn write_tree(
    program: &mut Assembler,
    section: &Section<'_>,
    ranges: &[Range],
    default: Action,
) -> Target {
    match ranges {
        [] => Target::Return(default),
        [only] => write_fate(program, section, only.fate, default),
        // One number in the midst of others needs one test, not two.
        [before, one, after] if before.fate == after.fate && after.start == one.start + 1 => {
            let no = write_fate(program, section, before.fate, default);
            let yes = write_fate(program, section, one.fate, default);
            program.branch(JUMP_EQUAL, one.start, yes, no)
        }
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let yes = write_tree(program, section, right, default);
            let no = write_tree(program, section, left, default);
            program.branch(JUMP_GREATER_OR_EQUAL, right[0].start, yes, no)
        }
    }
}

fn write_fate(
    program: &mut Assembler,
    section: &Section<'_>,
    fate: Fate,
    default: Action,
) -> Target {
    let chain = match fate {
        Fate::Return(action) => return Target::Return(action),
        Fate::Chain(index) => &section.chains[index],
    };
    let mut next = Target::Return(default);
    for link in chain.links.iter().rev() {
        next = write_link(program, chain.arch, link, next);
    }
    next
}

/// Writes a rule's tests: all hold, and its action is returned, or control goes to `no`.
fn write_link(program: &mut Assembler, arch: Arch, link: &Link<'_>, no: Target) -> Target {
    let mut yes = Target::Return(link.action);
    let shadowed = |condition: &Condition| link.multiplexed.is_some() && condition.argument == 0;
    for condition in link.conditions.iter().rev().filter(|&one| !shadowed(one)) {
        yes = write_condition(program, arch, *condition, yes, no);
    }
    match link.multiplexed {
        Some(first) => write_condition(program, arch, first, yes, no),
        None => yes,
    }
}

/// Writes one test of one argument.
fn write_condition(
    program: &mut Assembler,
    arch: Arch,
    condition: Condition,
    yes: Target,
    no: Target,
) -> Target {
    let mut compare = Comparison {
        program,
        arch,
        argument: condition.argument,
    };
    match condition.test {
        Test::Equal(value) => compare.equal(u64::MAX, value, yes, no),
        Test::NotEqual(value) => compare.equal(u64::MAX, value, no, yes),
        // As libseccomp: bits of the value outside the mask do not count.
        Test::MaskedEqual { mask, value } => compare.equal(mask, value & mask, yes, no),
        Test::Greater(value) => compare.greater(JUMP_GREATER, value, yes, no),
        Test::GreaterOrEqual(value) => compare.greater(JUMP_GREATER_OR_EQUAL, value, yes, no),
        Test::LessOrEqual(value) => compare.greater(JUMP_GREATER, value, no, yes),
        Test::Less(value) => compare.greater(JUMP_GREATER_OR_EQUAL, value, no, yes),
    }
}

/// Writes comparisons of an argument's halves. Where arguments have 32 bits, the upper half is
/// 0, so that a larger value is never met instead of being cut short.
struct Comparison<'a> {
    program: &'a mut Assembler,
    arch: Arch,
    argument: u8,
}

impl Comparison<'_> {
    fn equal(&mut self, mask: u64, value: u64, yes: Target, no: Target) -> Target {
        let low = self.equal_half(Half::Low, mask, value, yes, no);
        if self.arch.is_64_bit() {
            return self.equal_half(Half::High, mask, value, low, no);
        }
        if Half::High.of(value) == 0 { low } else { no }
    }

    fn equal_half(&mut self, half: Half, mask: u64, value: u64, yes: Target, no: Target) -> Target {
        let (mask, value) = (half.of(mask), half.of(value));
        if mask == 0 {
            return yes;
        }
        let mut at = self.program.branch(JUMP_EQUAL, value, yes, no);
        if mask != u32::MAX {
            at = self.program.prepare(AND, mask, at);
        }
        self.program
            .prepare(LOAD_WORD, half.offset(self.argument), at)
    }

    /// `code` compares the lower halves: greater, or greater or equal.
    fn greater(&mut self, code: u16, value: u64, yes: Target, no: Target) -> Target {
        let (high, low) = (Half::High.of(value), Half::Low.of(value));
        if !self.arch.is_64_bit() && high != 0 {
            return no;
        }
        let at = self.program.branch(code, low, yes, no);
        let at = self
            .program
            .prepare(LOAD_WORD, Half::Low.offset(self.argument), at);
        if !self.arch.is_64_bit() {
            return at;
        }
        let at = self.program.branch(JUMP_EQUAL, high, at, no);
        let at = self.program.branch(JUMP_GREATER, high, yes, at);
        self.program
            .prepare(LOAD_WORD, Half::High.offset(self.argument), at)
    }
}

/// Half of a 64-bit value: classic BPF loads and compares 32 bits.
#[derive(Debug, Clone, Copy)]
enum Half {
    Low,
    High,
}

impl Half {
    #[expect(clippy::cast_possible_truncation, reason = "takes the value apart")]
    const fn of(self, value: u64) -> u32 {
        match self {
            Self::Low => value as u32,
            Self::High => (value >> 32) as u32,
        }
    }

    fn offset(self, argument: u8) -> u32 {
        let second = match self {
            Self::Low => cfg!(target_endian = "big"),
            Self::High => cfg!(target_endian = "little"),
        };
        OFFSET_ARGUMENTS + u32::from(argument) * 8 + u32::from(second) * 4
    }
}
