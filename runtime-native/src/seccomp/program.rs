//! An assembler for classic BPF that writes programs from their end to their start.
//!
//! Jumps in classic BPF only go forward, so whoever writes the last instruction first knows
//! every target when it writes the jump. A conditional jump reaches 255 instructions; a target
//! beyond gets a `ja` (32 bits of reach) in between, and a return is written again nearby.

use super::SeccompError;
use super::rule::Action;

/// `BPF_MAXINSNS` of `include/uapi/linux/bpf_common.h`.
const MAX_INSTRUCTIONS: usize = 4096;

/// How far a conditional jump goes.
const MAX_JUMP: usize = u8::MAX as usize;

/// Operation codes: class, size or operation, source, as in `bpf_common.h`.
pub(super) const LOAD_WORD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) operand: u32,
}

/// Where control goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To a return, wherever one is in reach.
    Return(Action),
    /// To an instruction that is already written, counted from the program's end.
    Label(usize),
}

/// A program under construction. Everything is written in reverse.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The return written last for each action.
    returns: Vec<(Action, usize)>,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self {
            reversed: Vec::with_capacity(512),
            returns: Vec::new(),
        }
    }

    /// Writes a conditional jump. Both ways the same: nothing is written.
    pub(super) fn branch(&mut self, code: u16, operand: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // Bringing `no` into reach may write one instruction more between here and `yes`.
        let yes = self.bring_near(yes, 1);
        let no = self.bring_near(no, 0);
        let (if_true, if_false) = (self.offset(yes), self.offset(no));
        self.push(Instruction {
            code,
            if_true,
            if_false,
            operand,
        })
    }

    /// Writes an instruction that changes the accumulator before `next`, which was written last.
    ///
    /// If `next` is anything else, then the test that needed the value fell away, and with it
    /// the instruction: nothing else uses an accumulator that it did not load itself.
    pub(super) fn prepare(&mut self, code: u16, operand: u32, next: Target) -> Target {
        if next != Target::Label(self.reversed.len().wrapping_sub(1)) {
            return next;
        }
        self.push(Instruction {
            code,
            if_true: 0,
            if_false: 0,
            operand,
        })
    }

    /// Ends the program, which starts at `entry`: the bytes of an array of `struct sock_filter`.
    pub(super) fn finish(mut self, entry: Target) -> Result<Vec<u8>, SeccompError> {
        let last = self.reversed.len().wrapping_sub(1);
        match entry {
            Target::Label(label) if label == last => {}
            Target::Label(label) => self.jump(label),
            Target::Return(action) => self.write_return(action),
        }
        let instructions = self.reversed.len();
        if instructions > MAX_INSTRUCTIONS {
            return Err(SeccompError::TooLong {
                instructions,
                limit: MAX_INSTRUCTIONS,
            });
        }
        Ok(encode(self.reversed.iter().rev()))
    }

    /// A label for `target` in reach of a jump that is written `later` instructions from now.
    fn bring_near(&mut self, target: Target, later: usize) -> usize {
        let from = self.reversed.len() + later;
        let known = match target {
            Target::Label(label) => Some(label),
            Target::Return(action) => self
                .returns
                .iter()
                .find(|(known, _)| *known == action)
                .map(|&(_, label)| label),
        };
        match (known, target) {
            (Some(label), _) if from - label - 1 <= MAX_JUMP => return label,
            (_, Target::Label(label)) => self.jump(label),
            (_, Target::Return(action)) => self.write_return(action),
        }
        self.reversed.len() - 1
    }

    fn write_return(&mut self, action: Action) {
        let label = self.reversed.len();
        match self.returns.iter_mut().find(|(known, _)| *known == action) {
            Some((_, last)) => *last = label,
            None => self.returns.push((action, label)),
        }
        self.push(Instruction {
            code: RETURN,
            if_true: 0,
            if_false: 0,
            operand: action.0,
        });
    }

    fn jump(&mut self, label: usize) {
        let distance = self.reversed.len() - label - 1;
        let operand = u32::try_from(distance).expect("programs are shorter than 2^32");
        self.push(Instruction {
            code: JUMP,
            if_true: 0,
            if_false: 0,
            operand,
        });
    }

    fn offset(&self, label: usize) -> u8 {
        u8::try_from(self.reversed.len() - label - 1).expect("`bring_near` kept it in reach")
    }

    fn push(&mut self, instruction: Instruction) -> Target {
        self.reversed.push(instruction);
        Target::Label(self.reversed.len() - 1)
    }
}

fn encode<'a>(instructions: impl ExactSizeIterator<Item = &'a Instruction>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(instructions.len() * 8);
    for instruction in instructions {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.if_true, instruction.if_false]);
        bytes.extend_from_slice(&instruction.operand.to_ne_bytes());
    }
    bytes
}
