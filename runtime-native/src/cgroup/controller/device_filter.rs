//! The device list as a program of the kernel's virtual machine: `BPF_PROG_TYPE_CGROUP_DEVICE`
//! (`linux/bpf.h`, `kernel/bpf/cgroup.c`; instructions: `Documentation/bpf/standardization`).
//!
//! The program sees what is asked for (`struct bpf_cgroup_dev_ctx`) and answers 1 or 0. It goes
//! through the rules from the last to the first and strikes out each access that a rule allows; an
//! access that a rule denies before it was struck out ends it, and so does the end of the list.

use super::devices::{Rule, access};

/// One instruction, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    pub(super) to: u8,
    pub(super) from: u8,
    pub(super) offset: i16,
    pub(super) value: i32,
}

/// Operations, each a class, a source and a code.
pub(super) mod code {
    /// `to = *(u32 *)(from + offset)`
    pub(crate) const LOAD_WORD: u8 = 0x61;
    /// `to = from`
    pub(crate) const MOVE: u8 = 0xbf;
    /// `to = value`
    pub(crate) const SET: u8 = 0xb7;
    /// `to &= value`
    pub(crate) const AND: u8 = 0x57;
    /// `to >>= value`
    pub(crate) const SHIFT_RIGHT: u8 = 0x77;
    /// `if to != value { skip offset }`, 32 bits
    pub(crate) const IF_NOT: u8 = 0x56;
    /// `if to & value != 0 { skip offset }`, 32 bits
    pub(crate) const IF_ANY_BIT: u8 = 0x46;
    /// `skip offset`
    pub(crate) const SKIP: u8 = 0x05;
    /// `return r0`
    pub(crate) const EXIT: u8 = 0x95;
}

/// The answer.
const ANSWER: u8 = 0;
/// The context at the start.
const CONTEXT: u8 = 1;
/// Block or char.
const KIND: u8 = 2;
/// The accesses that no rule has allowed yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction {
        code,
        to,
        from,
        offset,
        value,
    }
}

const fn answer(value: i32) -> [Instruction; 2] {
    [
        instruction(code::SET, ANSWER, 0, 0, value),
        instruction(code::EXIT, 0, 0, 0, 0),
    ]
}

/// The program for a list of rules of which the last that matches wins, access by access. What no
/// rule matches is denied.
pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    // `access_type` holds the access above the kind.
    let mut program = vec![
        instruction(code::LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(code::MOVE, OPEN, KIND, 0, 0),
        instruction(code::AND, KIND, 0, 0, 0xffff),
        instruction(code::SHIFT_RIGHT, OPEN, 0, 0, 16),
        instruction(code::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(code::LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        if rule.is_everything() {
            // The rules before it are never reached, which the kernel's verifier would refuse.
            program.extend(answer(i32::from(rule.allow)));
            return program;
        }
        program.extend(rule_code(rule));
    }
    program.extend(answer(0));
    program
}

fn rule_code(rule: &Rule) -> Vec<Instruction> {
    let allowed = i32::from(rule.access);
    let verdict: Vec<Instruction> = if rule.allow {
        let rest = i32::from(access::ALL & !rule.access);
        let struck = [
            instruction(code::AND, OPEN, 0, 0, rest),
            instruction(code::IF_NOT, OPEN, 0, 2, 0),
        ];
        struck.into_iter().chain(answer(1)).collect()
    } else {
        let denied = [
            instruction(code::IF_ANY_BIT, OPEN, 0, 1, allowed),
            instruction(code::SKIP, 0, 0, 2, 0),
        ];
        denied.into_iter().chain(answer(0)).collect()
    };
    let number = |value: u32| i32::from_ne_bytes(value.to_ne_bytes());
    let conditions: Vec<(u8, i32)> = [
        rule.kind.map(|kind| (KIND, kind as i32)),
        rule.major.map(|major| (MAJOR, number(major))),
        rule.minor.map(|minor| (MINOR, number(minor))),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Each condition that does not hold skips the rest of the rule: at most seven instructions.
    let mut left = i16::try_from(conditions.len() + verdict.len()).unwrap_or(i16::MAX);
    let mut code = Vec::with_capacity(conditions.len() + verdict.len());
    for (register, value) in conditions {
        left -= 1;
        code.push(instruction(code::IF_NOT, register, 0, left, value));
    }
    code.extend(verdict);
    code
}

/// The bytes that the kernel loads.
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        // `dst_reg` and `src_reg` are bit fields of one byte.
        let registers = if cfg!(target_endian = "little") {
            instruction.from << 4 | instruction.to
        } else {
            instruction.to << 4 | instruction.from
        };
        bytes.extend([instruction.code, registers]);
        bytes.extend(instruction.offset.to_ne_bytes());
        bytes.extend(instruction.value.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::devices::Kind;
    use super::*;

    /// What is asked for.
    #[derive(Debug, Clone, Copy)]
    struct Request {
        kind: Kind,
        major: u32,
        minor: u32,
        access: u8,
    }

    /// The half that 32-bit comparisons see.
    fn low(register: u64) -> u64 {
        register & 0xffff_ffff
    }

    /// Runs a program as the kernel does; a jump out of it or an unknown operation is a panic.
    fn run(program: &[Instruction], request: Request) -> bool {
        let context = [
            u32::from(request.access) << 16 | request.kind as u32,
            request.major,
            request.minor,
        ];
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let i = program[at];
            at += 1;
            let value = i64::from(i.value).cast_unsigned();
            let to = registers[usize::from(i.to)];
            let taken = match i.code {
                code::LOAD_WORD => {
                    assert_eq!(i.from, CONTEXT);
                    let word = usize::try_from(i.offset / 4).unwrap();
                    registers[usize::from(i.to)] = u64::from(context[word]);
                    false
                }
                code::MOVE => {
                    registers[usize::from(i.to)] = registers[usize::from(i.from)];
                    false
                }
                code::SET => {
                    registers[usize::from(i.to)] = value;
                    false
                }
                code::AND => {
                    registers[usize::from(i.to)] = to & value;
                    false
                }
                code::SHIFT_RIGHT => {
                    registers[usize::from(i.to)] = to >> value;
                    false
                }
                code::IF_NOT => low(to) != low(value),
                code::IF_ANY_BIT => low(to) & low(value) != 0,
                code::SKIP => true,
                code::EXIT => return registers[usize::from(ANSWER)] == 1,
                other => panic!("operation {other:#x}"),
            };
            if taken {
                at += usize::try_from(i.offset).unwrap();
            }
        }
    }

    /// What the list means, without a program: for each access the last rule that matches decides.
    fn means(rules: &[Rule], request: Request) -> bool {
        let bits = [access::MKNOD, access::READ, access::WRITE];
        let asked = bits.into_iter().filter(|bit| request.access & bit != 0);
        asked.into_iter().all(|bit| {
            let last = rules.iter().rev().find(|rule| {
                rule.access & bit != 0
                    && rule.kind.is_none_or(|kind| kind == request.kind)
                    && rule.major.is_none_or(|major| major == request.major)
                    && rule.minor.is_none_or(|minor| minor == request.minor)
            });
            last.is_some_and(|rule| rule.allow)
        })
    }

    fn every_rule() -> Vec<Rule> {
        let mut rules = Vec::new();
        for allow in [true, false] {
            for kind in [None, Some(Kind::Block), Some(Kind::Char)] {
                for (major, minor) in [
                    (None, None),
                    (Some(8), None),
                    (Some(8), Some(1)),
                    (None, Some(1)),
                ] {
                    for access in [1, 2, 6, 7] {
                        rules.push(Rule {
                            allow,
                            kind,
                            major,
                            minor,
                            access,
                        });
                    }
                }
            }
        }
        rules
    }

    fn every_request() -> Vec<Request> {
        let mut requests = Vec::new();
        for kind in [Kind::Block, Kind::Char] {
            for (major, minor) in [(8, 1), (8, 2), (9, 1), (0, 0)] {
                for access in 1..=7 {
                    requests.push(Request {
                        kind,
                        major,
                        minor,
                        access,
                    });
                }
            }
        }
        requests
    }

    #[test]
    fn program_of_two_rules_means_what_the_list_means() {
        let (rules, requests) = (every_rule(), every_request());
        for first in &rules {
            for second in &rules {
                let list = [*first, *second];
                let program = compile(&list);
                for request in &requests {
                    assert_eq!(
                        run(&program, *request),
                        means(&list, *request),
                        "{list:?} {request:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn program_of_many_rules_means_what_the_list_means() {
        let (rules, requests) = (every_rule(), every_request());
        // Strides that share no factor with 96 meet every rule in another order.
        for stride in [5, 7, 11, 13, 17, 19, 23, 25, 29, 31] {
            let list: Vec<Rule> = (0..12).map(|n| rules[n * stride % rules.len()]).collect();
            let program = compile(&list);
            for request in &requests {
                assert_eq!(run(&program, *request), means(&list, *request), "{list:?}");
            }
        }
    }

    #[test]
    fn empty_list_denies_everything() {
        let program = compile(&[]);
        assert!(
            every_request()
                .into_iter()
                .all(|request| !run(&program, request))
        );
    }

    #[test]
    fn instruction_is_eight_bytes_in_the_kernels_order() {
        let bytes = encode(&[instruction(code::LOAD_WORD, MAJOR, CONTEXT, 4, 0)]);
        let offset = 4_i16.to_ne_bytes();
        assert_eq!(bytes[0], 0x61);
        assert_eq!(bytes[2..4], offset);
        assert_eq!(bytes.len(), 8);
    }
}
