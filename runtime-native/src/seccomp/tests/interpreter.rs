//! The part of classic BPF that seccomp(2) accepts, with the kernel's checks.

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) arguments: [u64; 6],
}

/// The instructions of a program: code, jump if true, jump if false, operand.
pub(super) fn decode(program: &[u8]) -> Vec<(u16, u8, u8, u32)> {
    assert!(
        !program.is_empty() && program.len().is_multiple_of(8),
        "whole instructions"
    );
    assert!(program.len() / 8 <= 4096, "BPF_MAXINSNS");
    program
        .chunks_exact(8)
        .map(|bytes| {
            let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
            let operand = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            (code, bytes[2], bytes[3], operand)
        })
        .collect()
}

/// Checks what the kernel checks before it takes a filter: known codes, aligned loads within
/// the data, jumps within the program, a return at the end.
pub(super) fn check(program: &[u8]) {
    let instructions = decode(program);
    let length = instructions.len() as u64;
    for (at, &(code, yes, no, operand)) in instructions.iter().enumerate() {
        let at = at as u64;
        match code {
            0x20 => assert!(
                operand < 64 && operand % 4 == 0,
                "load of {operand} at {at}"
            ),
            0x54 | 0x06 => {}
            0x05 => assert!(at + 1 + u64::from(operand) < length, "jump at {at}"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(at + 1 + u64::from(yes.max(no)) < length, "jump at {at}");
            }
            other => panic!("code {other:#x} at {at}"),
        }
    }
    assert_eq!(
        instructions.last().expect("not empty").0,
        0x06,
        "ends with a return"
    );
}

/// Runs `program` on `call`.
pub(super) fn run(program: &[u8], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let instruction = &program[at * 8..at * 8 + 8];
        let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
        let operand = u32::from_ne_bytes([
            instruction[4],
            instruction[5],
            instruction[6],
            instruction[7],
        ]);
        at += 1;
        let holds = match code {
            0x20 => {
                accumulator = load(call, operand);
                continue;
            }
            0x54 => {
                accumulator &= operand;
                continue;
            }
            0x05 => {
                at += operand as usize;
                continue;
            }
            0x06 => return operand,
            0x15 => accumulator == operand,
            0x25 => accumulator > operand,
            0x35 => accumulator >= operand,
            0x45 => accumulator & operand != 0,
            other => panic!("code {other:#x}"),
        };
        at += usize::from(if holds {
            instruction[2]
        } else {
            instruction[3]
        });
    }
}

fn load(call: &Call, offset: u32) -> u32 {
    match offset {
        0 => call.number,
        4 => call.arch,
        16..64 => {
            let argument = call.arguments[(offset as usize - 16) / 8].to_ne_bytes();
            let half = (offset as usize) % 8;
            u32::from_ne_bytes([
                argument[half],
                argument[half + 1],
                argument[half + 2],
                argument[half + 3],
            ])
        }
        other => panic!("load of {other}"),
    }
}
